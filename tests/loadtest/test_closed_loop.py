"""One client alone."""

import socket
import threading

import pytest

from loadtest.closed_loop import run_closed_loop
from loadtest.wire import Target, loopback_target
from tests.loadtest.fake_server import fake_service


def test_requests_follow_each_other_and_stop_at_the_number_asked_for() -> None:
    """One at a time, texts in their order."""
    with fake_service() as service:
        report = run_closed_loop(loopback_target(service.url), ["a", "b", "c"], seconds=30.0, at_most=5)
        assert service.texts == ["a", "b", "c", "a", "b"]
    assert (report.latency.answered, report.errors) == (5, 0)


def test_a_server_that_hangs_up_in_the_middle_is_an_error() -> None:
    """Half an answer is none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_half() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

        thread = threading.Thread(target=answer_half)
        thread.start()
        with pytest.raises(ConnectionError, match="middle of an answer"):
            run_closed_loop(Target("127.0.0.1", listener.getsockname()[1]), ["a"], seconds=5.0)
        thread.join()
