"""HTTP/1.1 as bytes: loopback targets, prepared requests, and a reader of responses that copies nothing twice."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ID_LENGTH = 21
"""Characters of every request id: a fixed width lets Content-Length be written beforehand."""
_ID_MARK = "#" * ID_LENGTH


class NotLoopback(ValueError):
    """The URL names another machine; load is only ever sent to this one."""


class BadResponse(Exception):
    """The bytes received are not an HTTP/1.1 response that this reader knows."""


@dataclass(frozen=True)
class Target:
    """Where requests go."""

    host: str
    port: int
    path: str = "/route"


def loopback_target(url: str) -> Target:
    """
    The target of an ``http://`` URL on this machine; raises NotLoopback for any other.

    >>> loopback_target("http://127.0.0.1:8080")
    Target(host='127.0.0.1', port=8080, path='/route')
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in LOOPBACK:
        raise NotLoopback(f"load is sent to http://{{{', '.join(LOOPBACK)}}} only, got {url!r}")
    return Target(parts.hostname, parts.port or 80, parts.path if parts.path not in ("", "/") else "/route")


def request_id(run: str, number: int) -> bytes:
    """
    Id of the n-th request of a run: ``ID_LENGTH`` characters, distinct across runs of distinct 12-digit names.

    >>> request_id("0123456789ab", 255)
    b'0123456789ab-000000ff'
    """
    return f"{run[:12]:0>12}-{number:08x}".encode()


@dataclass(frozen=True)
class PreparedRequest:
    """A POST of one utterance, cut open where the request id goes."""

    head: bytes
    tail: bytes

    def with_id(self, identifier: bytes) -> bytes:
        """The bytes to send; ``identifier`` has exactly ``ID_LENGTH`` characters."""
        return self.head + identifier + self.tail


def prepare(target: Target, texts: Iterable[str], headers: Iterable[str] = ()) -> list[PreparedRequest]:
    """One request a text; ``headers`` are whole header lines, such as ``X-Api-Key: abc``."""
    extra = "".join(f"{header}\r\n" for header in headers)
    return [_prepare_one(target, text, extra) for text in texts]


def _prepare_one(target: Target, text: str, extra: str) -> PreparedRequest:
    # The id comes first, so that a text cannot be taken for the mark.
    body = json.dumps({"request_id": _ID_MARK, "text": text}).encode()
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\nUser-Agent: openload\r\n"
        f"Content-Type: application/json\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    before, after = body.split(_ID_MARK.encode(), 1)
    return PreparedRequest(head + before, after)


class ResponseReader:
    """Collects one response; ``feed`` says when it is whole. ``reset`` before the next."""

    __slots__ = ("_body_starts", "_buffer", "_is_chunked", "_needed", "closes", "status")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the last response."""
        self._buffer = b""
        self._body_starts = -1
        self._is_chunked = False
        self._needed = 0
        self.status = 0
        self.closes = False

    @property
    def has_begun(self) -> bool:
        """Some of the response has arrived."""
        return bool(self._buffer)

    @property
    def body(self) -> bytes:
        """What came after the headers, chunk sizes included."""
        return self._buffer[self._body_starts :] if self._body_starts >= 0 else b""

    def feed(self, data: bytes) -> bool:
        """True once the whole response is in; raises BadResponse."""
        self._buffer += data
        if self._body_starts < 0 and not self._read_headers():
            return False
        if self._is_chunked:
            return self._buffer.endswith(b"0\r\n\r\n")
        return len(self._buffer) - self._body_starts >= self._needed

    def _read_headers(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        headers = self._buffer[:end].lower()
        if not headers.startswith(b"http/1.1 ") or not headers[9:12].isdigit():
            raise BadResponse(f"not an HTTP/1.1 status line: {headers[:40]!r}")
        self.status = int(headers[9:12])
        self._body_starts = end + 4
        self._is_chunked = b"transfer-encoding: chunked" in headers
        self.closes = b"connection: close" in headers
        at = headers.find(b"content-length:")
        self._needed = int(headers[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        return True
