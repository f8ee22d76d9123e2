"""One client that asks again as soon as it is answered: the latency of a service that has nothing else to do."""

import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.latency import LatencySummary, summarise
from loadtest.wire import ResponseReader, Target, prepare, request_id


@dataclass(frozen=True)
class ClosedReport:
    """Latencies of one client's answered requests, and how many were not answered with 200."""

    latency: LatencySummary
    errors: int


def run_closed_loop(
    target: Target, texts: Sequence[str], seconds: float, run: str = "closed", at_most: int = sys.maxsize
) -> ClosedReport:
    """Ask for ``seconds``, or ``at_most`` times, on one kept-alive connection; OSError when the server goes away."""
    requests = prepare(target, texts)
    latencies: list[float] = []
    errors = asked = 0
    ends = time.monotonic() + seconds
    with socket.create_connection((target.host, target.port), timeout=10.0) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = ResponseReader()
        while asked < at_most and time.monotonic() < ends:
            request = requests[asked % len(requests)].with_id(request_id(run, asked))
            began = time.monotonic()
            connection.sendall(request)
            _read_whole(connection, reader)
            if reader.status == 200:
                latencies.append((time.monotonic() - began) * 1e3)
            else:
                errors += 1
            asked += 1
    return ClosedReport(summarise(latencies), errors)


def _read_whole(connection: socket.socket, reader: ResponseReader) -> None:
    reader.reset()
    while True:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection in the middle of an answer")
        if reader.feed(data):
            return
