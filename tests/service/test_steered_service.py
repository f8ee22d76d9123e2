"""The service as a process of its own under traffic, while the model repository says something else again and again."""

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from model_repo.contract.tuning import NO_TUNING, Tuning
from model_repo.store import Store
from service.settings import Settings
from tests.service.running import POLICY, Process, add_version, make_repository, post, process_running

CLIENTS = 6
PATIENCE_S = 60.0
"""For a busy machine; what is awaited comes with the next look."""


class Traffic:
    """Threads that post one request after the other; what came back is kept."""

    def __init__(self, service: Process) -> None:
        self.statuses: dict[int, int] = {}
        """How many answers of each status; 0 stands for a connection that broke."""
        self.policies: set[str] = set()
        self._service = service
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(CLIENTS)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the requests under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def await_policy(self, name: str) -> None:
        """Return when an answer names it."""
        with self._changed:
            assert self._changed.wait_for(lambda: name in self.policies, PATIENCE_S), self.statuses

    def await_answers(self, count: int) -> None:
        """Return when so many more came."""
        with self._changed:
            goal = self.statuses.get(200, 0) + count
            assert self._changed.wait_for(lambda: self.statuses.get(200, 0) >= goal, PATIENCE_S), self.statuses

    def _work(self) -> None:
        with contextlib.closing(self._service.connect()) as connection:
            while not self._stop.is_set():
                try:
                    status, body = post(connection, "/route", {"text": "where is order 4411?"})
                except (OSError, http.client.HTTPException):
                    status, body = 0, {}
                with self._changed:
                    self.statuses[status] = self.statuses.get(status, 0) + 1
                    if status == 200:
                        self.policies.add(body["model"]["policy"])
                    self._changed.notify_all()


@dataclass(frozen=True)
class Steered:
    """A service under traffic, and the repository that it follows."""

    service: Process
    store: Store
    traffic: Traffic

    def get(self, path: str) -> str:
        """The body."""
        with contextlib.closing(self.service.connect()) as connection:
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def model(self) -> dict[str, Any]:
        """``GET /model``."""
        answer: dict[str, Any] = json.loads(self.get("/model"))
        return answer

    def await_deployment(self, number: int) -> dict[str, Any]:
        """``GET /model`` once it names this deployment, after further answers under it."""
        for _ in range(1000):
            if self.model()["deployment"] == number:
                self.traffic.await_answers(50)
                return self.model()
            self.traffic.await_answers(5)
        raise AssertionError(f"deployment {number} is not taken over: {self.model()}")


@pytest.fixture(name="steered")
def _steered(tmp_path: Path) -> Iterator[Steered]:
    store = make_repository(tmp_path / "repo")
    with process_running(tmp_path) as service:
        traffic = Traffic(service)
        traffic.start()
        try:
            traffic.await_answers(50)
            yield Steered(service, store, traffic)
        finally:
            traffic.stop()


def test_a_policy_revision_is_named_by_answers_and_no_request_is_dropped(steered: Steered) -> None:
    """
    As a sidecar publishes a re-fitted calibrator. By default the service looks four times in the two seconds that it is
    given.
    """
    steered.store.add_policy(replace(POLICY, revision=2, temperature=1.5))
    steered.store.promote("1", 2, "refit")
    steered.traffic.await_policy("1.2")
    steered.traffic.await_answers(100)
    steered.traffic.stop()
    assert set(steered.traffic.statuses) == {200}
    assert steered.traffic.policies == {"1.1", "1.2"}
    assert Settings().model_poll_seconds * 4 <= 2.0


def test_every_remedy_under_traffic_drops_no_request(steered: Steered) -> None:
    """Tuning, tuning with a reload, a reload, another version, its tuning and the end of that, and back again."""
    store = steered.store
    add_version(store, "2")
    steps: list[tuple[Callable[[], int], str, dict[str, int]]] = [
        (lambda: store.tune(Tuning(batch_tokens=40), "batching").number, "1", {"batch_tokens": 40}),
        (lambda: store.tune(Tuning(max_tokens=9), "tokenizer", reload=True).number, "1", {"max_tokens": 9}),
        (lambda: store.reload("graph").number, "1", {"max_tokens": 9}),
        (lambda: store.promote("2", 1, "better").number, "2", {}),
        (lambda: store.tune(Tuning(max_in_flight=20), "batching").number, "2", {"max_in_flight": 20}),
        (lambda: store.tune(NO_TUNING, "well again").number, "2", {}),
        (lambda: store.roll_back("worse").number, "1", {}),
    ]
    for step, version, tuning in steps:
        model = steered.await_deployment(step())
        assert (model["version"], model["tuning"]) == (version, tuning)
        assert model["limits"] == {
            "batch_tokens": 96, "batch_utterances": 32, "max_in_flight": 64, "max_tokens": 64, **tuning,
        }  # fmt: skip
    steered.traffic.stop()
    assert set(steered.traffic.statuses) == {200}
    metrics = steered.get("/metrics")
    counts = {
        outcome: f'router_model_swaps_total{{outcome="{outcome}"}} {count}.0' in metrics
        for outcome, count in {"version": 2, "reload": 2, "tuning": 3}.items()
    }
    assert counts == {"version": True, "reload": True, "tuning": True}, metrics
