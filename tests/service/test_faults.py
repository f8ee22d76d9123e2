"""The service as a process of its own, while things go wrong."""

import contextlib
import http.client
import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from model_repo.contract.events import PredictionEvent
from tests.service.running import Process, make_repository, post, process_running


class Clients:
    """Threads that post distinct texts one after the other until told to stop, each on a connection of its own."""

    def __init__(self, service: Process, count: int = 8) -> None:
        self.answered: set[str] = set()
        self.refused = 0
        self._service = service
        self._enough = threading.Semaphore(0)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(count)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def await_answers(self, count: int) -> None:
        """Return when so many more were answered."""
        for _ in range(count):
            assert self._enough.acquire(timeout=60)

    def stop(self) -> None:
        """End after the requests under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)

    def _work(self, number: int) -> None:
        with contextlib.closing(self._service.connect()) as connection:
            self._post_until_stopped(number, connection)

    def _post_until_stopped(self, number: int, connection: http.client.HTTPConnection) -> None:
        sent = 0
        while not self._stop.is_set():
            request_id = f"{number}-{sent}"
            sent += 1
            try:
                status, body = post(connection, "/route", {"text": f"hello {request_id}", "request_id": request_id})
            except (OSError, http.client.HTTPException):
                # The process is gone, or going: nothing was answered.
                return
            if status == 200:
                assert body["request_id"] == request_id
                self.answered.add(request_id)
                self._enough.release()
            else:
                self.refused += 1


def logged(path: Path) -> set[str]:
    """Request ids in the log."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        bodies = connection.execute("SELECT body FROM predictions").fetchall()
    return {PredictionEvent.from_body(body).request_id for (body,) in bodies}


def under_load(folder: Path, end: Callable[[Process], None], **settings: str) -> tuple[Clients, Process]:
    """Run the service under load, end it, and wait for that."""
    with process_running(folder, **settings) as service:
        clients = Clients(service)
        clients.start()
        clients.await_answers(100)
        end(service)
        service.process.wait(timeout=60)
        clients.stop()
    return clients, service


def test_every_answered_request_is_in_the_log_after_sigkill_under_load(tmp_path: Path) -> None:
    """The event is written before the answer leaves."""
    clients, _ = under_load(tmp_path, lambda service: service.process.kill())
    assert len(clients.answered) >= 100
    assert clients.answered - logged(tmp_path / "events.sqlite") == set()


def test_sigterm_under_load_drops_nothing_that_was_admitted(tmp_path: Path) -> None:
    """What came in is answered: the log holds no event that its caller did not get; and the process ends well."""
    clients, service = under_load(tmp_path, Process.terminate, ROUTER_SHUTDOWN_NOTICE_SECONDS="0.2")
    assert logged(tmp_path / "events.sqlite") == clients.answered
    assert service.process.returncode == 0


def test_several_workers_share_the_port_the_log_and_the_metrics(tmp_path: Path) -> None:
    """Two processes answer, and either tells of both; SIGTERM ends them all."""
    with process_running(tmp_path, ROUTER_WORKERS="2", ROUTER_EVENT_LOCK_WAIT_MS="1000") as service:
        clients = Clients(service)
        clients.start()
        clients.await_answers(100)
        clients.stop()
        with contextlib.closing(service.connect()) as connection:
            connection.request("GET", "/metrics")
            metrics = connection.getresponse().read().decode()
        service.terminate()
        service.process.wait(timeout=60)
    assert f'router_requests_total{{endpoint="/route",status="200"}} {float(len(clients.answered))}' in metrics
    assert logged(tmp_path / "events.sqlite") == clients.answered
    assert service.process.returncode == 0


def test_a_full_disk_does_not_stop_answers_and_losses_are_counted(tmp_path: Path) -> None:
    """
    The file may not grow beyond a limit, as on a full disk. Looked at while it is full: what is folded in at a retry
    makes room again for a while.
    """
    limits = {"TEST_FILE_LIMIT_BYTES": "200000", "ROUTER_EVENT_BACKLOG": "10"}
    with process_running(tmp_path, **limits) as service, contextlib.closing(service.connect()) as connection:
        for sent in range(1, 301):
            status, _ = post(connection, "/route", {"text": "hello", "request_id": str(sent)})
            assert status == 200
            connection.request("GET", "/health/ready")
            response = connection.getresponse()
            state = json.loads(response.read())["event_log"]
            assert response.status == 200
            if state["status"] == "failing" and state["lost"] >= 30:
                break
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read().decode()
        stored = len(logged(tmp_path / "events.sqlite"))
    assert state["status"] == "failing"
    assert state["lost"] == sent - stored - state["waiting"] >= 30
    assert f"router_events_lost_total {float(state['lost'])}" in metrics


@pytest.mark.parametrize("file", ["deployment.json", "1/manifest.json", "1/model.onnx", "1/tokenizer.json"])
@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_missing_or_damaged_file_refuses_to_start_and_is_named(tmp_path: Path, file: str, fault: str) -> None:
    """Nothing is served that the record does not vouch for."""
    make_repository(tmp_path / "repo")
    path = tmp_path / "repo" / file
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(AssertionError) as refused, process_running(tmp_path):
        pass
    assert str(path) in str(refused.value)


def test_bad_settings_stop_the_process_and_are_named(tmp_path: Path) -> None:
    """Every wrong variable is told at once."""
    with pytest.raises(AssertionError) as refused, process_running(tmp_path, ROUTER_WORKERS="none", ROUTER_COLOUR="1"):
        pass
    assert "ROUTER_WORKERS" in str(refused.value)
    assert "ROUTER_COLOUR" in str(refused.value)
