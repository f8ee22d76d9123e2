"""Requests and responses as bytes."""

import json

import pytest

from loadtest.wire import (
    ID_LENGTH,
    BadResponse,
    NotLoopback,
    ResponseReader,
    Target,
    loopback_target,
    prepare,
    request_id,
)

TARGET = Target("127.0.0.1", 8080)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    "url", ["http://10.0.0.7:8080", "http://example.org/route", "https://127.0.0.1", "127.0.0.1:8080"]
)
def test_other_machines_are_refused(url: str) -> None:
    """Load is never aimed at anything but this machine."""
    with pytest.raises(NotLoopback, match=r"127\.0\.0\.1"):
        loopback_target(url)


@pytest.mark.parametrize(
    "text", ["plain", "予約 cancel", 'quote " and \\ and #####################', "nul \0", "emoji 🍜"]
)
def test_prepared_request_carries_id_and_text_and_its_exact_length(text: str) -> None:
    """Whatever the text, Content-Length is right and the body holds both."""
    sent = prepare(TARGET, [text], ["X-Api-Key: abc"])[0].with_id(request_id("run", 7))
    headers, body = sent.split(b"\r\n\r\n", 1)
    assert json.loads(body) == {"request_id": "000000000run-00000007", "text": text}
    assert f"content-length: {len(body)}".encode() in headers.lower().splitlines()
    assert b"X-Api-Key: abc" in headers.splitlines()


def test_request_ids_are_distinct_and_of_one_width() -> None:
    """A fixed width is what lets the length be written beforehand."""
    ids = {request_id("0123456789ab", number) for number in range(300)}
    assert len(ids) == 300
    assert {len(identifier) for identifier in ids} == {ID_LENGTH}


@pytest.mark.parametrize("size", [1, 3, 7, len(OK)])
def test_response_is_whole_only_with_its_last_byte(size: int) -> None:
    """However the bytes are cut, the reader waits for the last."""
    reader = ResponseReader()
    pieces = [OK[at : at + size] for at in range(0, len(OK), size)]
    assert [reader.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert (reader.status, reader.body, reader.closes) == (200, b"hello", False)


def test_chunked_response_ends_with_the_empty_chunk() -> None:
    """A server that streams is understood too."""
    reader = ResponseReader()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    assert reader.feed(b"0\r\n\r\n")


def test_connection_close_is_noticed() -> None:
    """The connection is not used again."""
    reader = ResponseReader()
    assert reader.feed(b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    assert (reader.status, reader.closes) == (503, True)


def test_reset_forgets_the_last_response() -> None:
    """A reader is used for every response of its connection."""
    reader = ResponseReader()
    reader.feed(OK)
    reader.reset()
    assert not reader.has_begun
    assert reader.feed(OK)


def test_something_else_than_http_is_an_error() -> None:
    """Not a status of 0 that could pass for an answer."""
    with pytest.raises(BadResponse):
        ResponseReader().feed(b"SSH-2.0-server\r\n\r\n")
