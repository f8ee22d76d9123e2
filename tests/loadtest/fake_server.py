"""
A service over HTTP whose behaviour a test chooses; standard library, on a thread of its own.

``python -m tests.loadtest.fake_server PORT`` is the one that answers everybody, as a process.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, Any]]
Behaviour = Callable[[int, dict[str, Any]], Answer]
"""Number of the request (from 0) and its body -> status and body."""


def echo(number: int, request: dict[str, Any]) -> Answer:
    """Answers everybody with their own id."""
    return 200, {"request_id": request["request_id"]}


class FakeService(ThreadingHTTPServer):
    """Answers ``POST /route`` as ``behaviour`` says and is always ready; keeps the texts it was sent, in order."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, behaviour: Behaviour, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.behaviour = behaviour
        self.texts: list[str] = []
        self.failures: list[BaseException | None] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of some tests; everything else fails the test."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            self.failures.append(error)

    def take(self, request: dict[str, Any]) -> Answer:
        """Note the request and choose the answer."""
        with self.lock:
            number = len(self.texts)
            self.texts.append(request["text"])
        return self.behaviour(number, request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeService

    def do_GET(self) -> None:
        self._send(200, {"status": "ready"})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(*self.server.take(request))

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing."""

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def fake_service(behaviour: Behaviour = echo) -> Iterator[FakeService]:
    """Serving until the block ends."""
    service = FakeService(behaviour)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        service.server_close()
        thread.join()
    assert service.failures == []


if __name__ == "__main__":
    FakeService(echo, int(sys.argv[1])).serve_forever()
