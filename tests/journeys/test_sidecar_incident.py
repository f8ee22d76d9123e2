"""Whole incidents, in this process: events in a log -> a signal falls -> an incident -> a remedy -> recovered."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from model_repo.store import Store
from monitoring.app import Sidecar, build
from monitoring.drawn_streams import QUIET, Change, DrawnStream
from monitoring.incidents import Incident
from monitoring.remedies import ActionRequest, ActionResult
from monitoring.settings import MonitorSettings
from monitoring.snapshot import Health, Snapshot
from monitoring.state_file import StateFile
from monitoring.telemetry import Telemetry
from monitoring.windows import Window
from tests.monitoring.drawn_log import make_repository, serve, write
from tests.monitoring.event_logs import WrittenLog

CHUNK = 250
"""Predictions between two looks."""


class Noted:
    """An action of which it is only noted that it was asked for."""

    def __init__(self) -> None:
        self.requests: list[ActionRequest] = []

    def run(self, request: ActionRequest, window: Window) -> ActionResult:
        """See Action."""
        self.requests.append(request)
        return ActionResult("done", "noted")


class World:
    """Traffic, the sidecar that watches it, and the service as far as it follows the deployment."""

    def __init__(self, folder: Path, sidecar: Sidecar, store: Store, log: WrittenLog) -> None:
        self.folder = folder
        self.sidecar = sidecar
        self.store = store
        self.log = log
        self.stream = DrawnStream(np.random.default_rng(5))
        self.now = 0.0

    def serve(self, n: int, change: Change = QUIET) -> None:
        """Answer so many under what the repository says serves, look, decide, and let actions come to an end."""
        for _ in range(0, n, CHUNK):
            champion = self.store.deployment().champion
            serve(self.stream, self.store.policy(champion.version, champion.policy_revision))
            self.now = write(self.log, self.stream, CHUNK, change)
            while not self.sidecar.monitor.take_in(self.now):
                pass
            self.sidecar.monitor.assess(self.now)
            self.sidecar.monitor.deliver(self.now)
            self._await_actions()

    def serve_until(self, branch: str, status: str, most: int, change: Change = QUIET) -> None:
        """Until the latest incident of a branch is so; fails after so many predictions."""
        for _ in range(0, most, CHUNK):
            if any((one.branch, one.status) == (branch, status) for one in self.snapshot.latest_incidents):
                return
            self.serve(CHUNK, change)
        pytest.fail(f"no {branch} is {status} after {most} predictions: {self.snapshot.latest_incidents}")

    def incident(self, branch: str) -> Incident:
        """The only one of a branch."""
        [found] = [one for one in self.snapshot.latest_incidents if one.branch == branch]
        return found

    @property
    def snapshot(self) -> Snapshot:
        """The moment."""
        return self.sidecar.monitor.snapshot(self.now, Health("available"))

    def _await_actions(self) -> None:
        deadline = time.monotonic() + 60.0
        while self.snapshot.outbox_waiting:
            assert time.monotonic() < deadline, "an action does not come back"
            time.sleep(0.01)
            self.sidecar.monitor.deliver(self.now)


@contextmanager
def world(folder: Path, **stand_ins: Noted) -> Iterator[World]:
    """Everything in one folder; actions are the real ones but for the stand-ins, and a retrain trains nothing."""
    store = make_repository(folder / "repo")
    log = WrittenLog(folder / "events.sqlite")
    state = StateFile(folder / "monitor.sqlite")
    settings = MonitorSettings(
        event_log_path=log.path,
        model_repo=folder / "repo",
        state_path=state.path,
        work_folder=folder / "work",
        pin_predictions=3000,
        pin_labelled=3000,
        window_predictions=2000,
        window_labelled=1000,
        retrain_command="true",
    )
    sidecar = build(settings, state, Telemetry(lambda: Snapshot(at=0.0)), stand_ins)
    try:
        yield World(folder, sidecar, store, log)
    finally:
        sidecar.close()
        state.close()
        log.close()


@pytest.mark.slow
def test_miscalibration_is_found_refitted_swapped_and_has_recovered(tmp_path: Path) -> None:
    """The model grows too sure of itself; a new temperature is fitted, judged and published, and the ECE comes back."""
    with world(tmp_path) as running:
        running.serve(4000)
        assert running.snapshot.assessments[0].reference == "production"
        assert len(running.snapshot.latest_incidents) == 0
        too_sure = Change(sharpness=1.7)
        running.serve_until("ece_up", "open", 3000, too_sure)
        running.serve_until("ece_up", "recovered", 8000, too_sure)
        incident = running.incident("ece_up")
        champion = running.store.deployment().champion
        policy = running.store.policy(champion.version, champion.policy_revision)
    assert [(remedy.action, remedy.attempts) for remedy in incident.remedies] == [
        ("refit_calibrator", 1),
        ("swap_calibrator", 1),
    ]
    assert incident.path == ("ECE up >= 0.01", "ECE after a re-fit", "recovers")
    assert incident.remedies[-1].check is not None
    assert incident.remedies[-1].check.verdict == "recovered"
    assert policy.name == "1.2"
    assert policy.temperature == pytest.approx(1.7, abs=0.2)


@pytest.mark.slow
def test_an_accuracy_that_falls_asks_for_a_retrain_once(tmp_path: Path) -> None:
    """However long it lasts; once the answers are right again, the incident has recovered."""
    retrain = Noted()
    with world(tmp_path, retrain=retrain) as running:
        running.serve(4000)
        falls = Change(lost_accuracy=0.08)
        running.serve_until("accuracy_down", "open", 3000, falls)
        running.serve(1000, falls)
        running.serve_until("accuracy_down", "recovered", 5000)
        incident = running.incident("accuracy_down")
    [request] = retrain.requests
    assert (request.key, request.path[-1]) == (f"{incident.id}/1-retrain", "broad")
    assert [record.name for record in request.evidence] == ["accuracy", "segment_concentration"]


@pytest.mark.slow
def test_a_latency_that_the_tuning_brings_down_has_recovered(tmp_path: Path) -> None:
    """The queue grows; half the tokens are computed together, and what came after that is what is judged."""
    with world(tmp_path) as running:
        running.serve(4000)
        running.serve_until("latency_up", "open", 3000, Change(delay_ms=4.0))
        assert running.store.deployment().tuning.batch_tokens == 48
        running.serve_until("latency_up", "recovered", 6000)
        incident = running.incident("latency_up")
    [remedy] = incident.remedies
    assert (remedy.action, incident.path[-1]) == ("tune_batching", "batching")
    assert remedy.check is not None
    assert remedy.check.words == "the signals came back after tune_batching"
    assert remedy.finished_at is not None
    # A prediction a second, and rows from before the remedy say nothing of it: about a window of new ones had to come.
    assert remedy.check.at - remedy.finished_at >= 0.8 * 2000 - CHUNK


@pytest.mark.slow
def test_a_latency_that_nothing_brings_down_needs_people(tmp_path: Path) -> None:
    """One remedy after the other, each judged by rows of its own; the last has no version to go back to."""
    with world(tmp_path) as running:
        running.serve(4000)
        slow = Change(delay_ms=4.0)
        running.serve_until("latency_up", "open", 3000, slow)
        running.serve_until("latency_up", "needs_people", 12_000, slow)
        incident = running.incident("latency_up")
    assert [remedy.action for remedy in incident.remedies] == ["tune_batching", "reload_model_graph", "roll_back"]
    assert [remedy.result.outcome for remedy in incident.remedies if remedy.result] == ["done", "done", "nothing_to_do"]
    assert [remedy.check.verdict for remedy in incident.remedies if remedy.check] == ["not_recovered"] * 3
