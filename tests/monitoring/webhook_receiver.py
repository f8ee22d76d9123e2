"""The other side of a webhook: a receiver that verifies what it gets, and a real server in front of it."""

import contextlib
import hashlib
import hmac
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NOW = 1767268800.0
SECRET = "a secret of the two sides"
HANGS: tuple[int, dict[str, str], bytes] = (0, {}, b"")
"""For an answer: there is none, until whoever asked gives up."""


class Clock:
    """Both sides' time."""

    now = NOW

    def __call__(self) -> float:
        return self.now


class Receiver:
    """How a receiver checks a webhook: it needs the secret, a clock and the keys it has done."""

    TOLERANCE_S = 300.0

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.done: list[str] = []

    def take(self, headers: Mapping[str, str], body: bytes) -> int:
        """The HTTP status to answer with."""
        timestamp = headers["X-Monitor-Timestamp"]
        signed = hmac.new(SECRET.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
        # First the signature: an unsigned timestamp says nothing. Compared in constant time.
        if not hmac.compare_digest(f"sha256={signed}", headers["X-Monitor-Signature"]):
            return 401
        if abs(self._clock() - int(timestamp)) > self.TOLERANCE_S:
            return 401
        # Within the tolerance a replay, or a try whose answer was lost, has a key that was done.
        if headers["Idempotency-Key"] not in self.done:
            self.done.append(headers["Idempotency-Key"])
        return 200


class WebhookServer:
    """A real server; each answer is given by the next of ``answers``, the last one from then on."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes], receiver: Receiver | None = None) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers = list(answers) or [(200, {}, b"")]
        self.kept_waiting = 0
        """Requests that nothing is answered to at the moment."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = dict(self.headers.items())
                status, extra, answer = server.answers[0]
                if len(server.answers) > 1:
                    server.answers.pop(0)
                # Before it is seen to have come, so that a test that sees it come sees it wait as well.
                server.kept_waiting += not status
                server.got.append((headers, body))
                if not status:
                    self._outlast()
                    server.kept_waiting -= 1
                    return
                self.send_response(status if receiver is None else receiver.take(headers, body))
                for name, value in extra.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def _outlast(self) -> None:
                """Returns when the other side has hung up."""
                self.close_connection = True
                with contextlib.suppress(ConnectionError):
                    self.rfile.read(1)

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - as the class it is of
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> "WebhookServer":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
