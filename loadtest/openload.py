"""
Open-loop HTTP load: requests leave at a constant rate whatever the server does, so a slow server hides nothing.

    python -m loadtest.openload --url http://127.0.0.1:8080 --rate 200 --duration 8

One thread, one epoll, one timerfd (Linux). A request goes out on a free kept-alive connection, on a new one when none
is free, or waits in the generator when all are busy. Every answer is checked to carry the id of the request it answers.
Prints one JSON object.
"""

import argparse
import errno
import json
import random
import resource
import secrets
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.latency import Sample, summarise
from loadtest.load_plan import LoadPlan, LoadReport, RateStep
from loadtest.messages import DEFAULT_FOLDER, read_texts
from loadtest.timer import DueTimer
from loadtest.wire import BadResponse, PreparedRequest, ResponseReader, Target, loopback_target, prepare, request_id


def run_open_loop(target: Target, texts: Sequence[str], plan: LoadPlan, headers: Sequence[str] = ()) -> LoadReport:
    """Send the plan's requests, shuffled by its seed and repeated as needed, and wait for the answers."""
    requests = prepare(target, texts, headers)
    random.Random(plan.seed).shuffle(requests)
    return _OpenLoop(target, requests, plan).run()


class _Connection:
    """A kept-alive connection and the request in flight on it."""

    __slots__ = ("due", "fd", "has_served", "identifier", "reader", "request", "sock", "unsent")

    def __init__(self, target: Target) -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in target.host else socket.AF_INET)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect_ex((target.host, target.port))
        self.fd = self.sock.fileno()
        self.reader = ResponseReader()
        self.request: bytes | None = None
        self.identifier = b""
        self.unsent = b""
        self.due = 0.0
        self.has_served = False


@dataclass(frozen=True)
class _Due:
    due: float
    identifier: bytes
    request: bytes


class _OpenLoop:
    def __init__(self, target: Target, requests: Sequence[PreparedRequest], plan: LoadPlan) -> None:
        self._target, self._requests, self._plan = target, requests, plan
        self._due_times = plan.due_times()
        self._run_name = secrets.token_hex(6)
        self._poll, self._timer = select.epoll(), DueTimer()
        self._poll.register(self._timer.fd, select.EPOLLIN)
        self._connections: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[_Due] = deque()
        self._samples: list[Sample] = []
        self._next = 0
        self._began = 0.0
        self._last_answer = 0.0

    def run(self) -> LoadReport:
        plan, due_times = self._plan, self._due_times
        for _ in range(min(plan.prewarmed, plan.connections)):
            self._idle.append(self._connect())
        cpu_before = _cpu_seconds()
        self._began = self._last_answer = time.monotonic() + 0.05
        ends = self._began + due_times[-1] + plan.timeout_s
        most_unanswered = max(64.0, max(step.rate for step in plan.steps) * plan.abort_backlog_s)
        has_collapsed = False
        while True:
            self._send_what_is_due()
            left_s = ends - time.monotonic()
            if left_s <= 0 or (self._next == len(due_times) and not self._unanswered()):
                break
            if self._unanswered() > most_unanswered:
                has_collapsed = True
                break
            if self._next < len(due_times):
                self._timer.wake_at(self._began + due_times[self._next])
            for fd, events in self._poll.poll(min(1.0, left_s)):
                self._on_event(fd, events)
        self._abandon("overload" if has_collapsed else "timeout")
        return self._report(has_collapsed, _cpu_seconds() - cpu_before)

    def _unanswered(self) -> int:
        return len(self._connections) - len(self._idle) + len(self._waiting)

    def _send_what_is_due(self) -> None:
        now = time.monotonic() - self._began
        while self._next < len(self._due_times) and self._due_times[self._next] <= now:
            number = self._next
            identifier = request_id(self._run_name, number)
            request = self._requests[number % len(self._requests)].with_id(identifier)
            self._next += 1
            self._dispatch(_Due(self._due_times[number], identifier, request))
            now = time.monotonic() - self._began

    def _dispatch(self, due: _Due) -> None:
        if self._idle:
            self._start(self._idle.popleft(), due)
        elif len(self._connections) < self._plan.connections:
            self._start(self._connect(), due)
        else:
            self._waiting.append(due)

    def _connect(self) -> _Connection:
        connection = _Connection(self._target)
        self._connections[connection.fd] = connection
        self._poll.register(connection.fd, select.EPOLLIN)
        return connection

    def _start(self, connection: _Connection, due: _Due) -> None:
        connection.due, connection.identifier, connection.request = due.due, due.identifier, due.request
        connection.reader.reset()
        try:
            sent = connection.sock.send(due.request)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # still connecting: send when writable
                self._lose(connection)
                return
            sent = 0
        if sent < len(due.request):
            connection.unsent = due.request[sent:]
            self._poll.modify(connection.fd, select.EPOLLIN | select.EPOLLOUT)

    def _on_event(self, fd: int, events: int) -> None:
        if fd == self._timer.fd:
            self._timer.clear()
            return
        connection = self._connections.get(fd)
        if connection is None:
            return
        if events & select.EPOLLOUT and connection.unsent and not self._send_rest(connection):
            return
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._receive(connection)

    def _send_rest(self, connection: _Connection) -> bool:
        try:
            sent = connection.sock.send(connection.unsent)
        except BlockingIOError:
            return True
        except OSError:
            self._lose(connection)
            return False
        connection.unsent = connection.unsent[sent:]
        if not connection.unsent:
            self._poll.modify(connection.fd, select.EPOLLIN)
        return True

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or connection.request is None:
            self._lose(connection)
            return
        try:
            is_whole = connection.reader.feed(data)
        except BadResponse:
            self._lose(connection)
            return
        if is_whole:
            self._finish(connection)

    def _finish(self, connection: _Connection) -> None:
        reader = connection.reader
        self._last_answer = time.monotonic()
        error = "" if reader.status == 200 else f"http_{reader.status}"
        if not error and connection.identifier not in reader.body:
            error = "wrong_answer"
        self._record(connection.due, reader.status, error)
        connection.request, connection.has_served = None, True
        if reader.closes:
            self._drop(connection)
        else:
            self._idle.append(connection)
        if self._waiting:
            self._dispatch(self._waiting.popleft())

    def _lose(self, connection: _Connection) -> None:
        lost = _Due(connection.due, connection.identifier, connection.request or b"")
        # A kept-alive connection may be closed just as the next request leaves: once more, on a new one.
        is_retried = bool(lost.request) and connection.has_served and not connection.reader.has_begun
        self._drop(connection)
        if is_retried:
            self._start(self._connect(), lost)
        elif lost.request:
            self._record(lost.due, 0, "connection")

    def _drop(self, connection: _Connection) -> None:
        self._poll.unregister(connection.fd)
        self._connections.pop(connection.fd, None)
        if connection in self._idle:
            self._idle.remove(connection)
        connection.sock.close()

    def _abandon(self, why: str) -> None:
        for connection in list(self._connections.values()):
            if connection.request is not None:
                self._record(connection.due, 0, why)
            self._drop(connection)
        for due in self._waiting:
            self._record(due.due, 0, why)
        self._poll.close()
        self._timer.close()

    def _record(self, due: float, status: int, error: str) -> None:
        latency_ms = (time.monotonic() - self._began - due) * 1e3
        self._samples.append(Sample(due, latency_ms, status, error))

    def _report(self, has_collapsed: bool, cpu_seconds: float) -> LoadReport:
        spent = max(self._last_answer - self._began, self._due_times[min(self._next, len(self._due_times)) - 1])
        return LoadReport(
            samples=tuple(self._samples),
            latency=summarise([sample.latency_ms for sample in self._samples if not sample.error]),
            sent=self._next,
            seconds=round(spent, 3),
            error_kinds=dict(Counter(sample.error for sample in self._samples if sample.error)),
            has_collapsed=has_collapsed,
            client_cpu=round(cpu_seconds / spent, 3) if spent else 0.0,
        )


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080/route")
    parser.add_argument("--bodies", type=Path, default=DEFAULT_FOLDER, help="folder of *.jsonl, or file of lines")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--duration", type=float, default=8.0, help="seconds")
    parser.add_argument("--header", action="append", default=[], help="one more header line")
    parser.add_argument("--seed", type=int, default=LoadPlan.seed)
    chosen = parser.parse_args(arguments)
    plan = LoadPlan((RateStep(chosen.rate, chosen.duration),), seed=chosen.seed)
    report = run_open_loop(loopback_target(chosen.url), read_texts(chosen.bodies), plan, chosen.header)
    print(json.dumps(report.to_json()))


if __name__ == "__main__":
    main()
