"""What is asked of actions is asked at least once and given up at last, over failures, kills and a clock that steps."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from monitoring.errors import HookFailed
from monitoring.failure_tree import Outcome, Walk
from monitoring.incident_store import KILLED, IncidentStore, OutboxRules, dead_result, wait_s
from monitoring.incidents import Check, Incident, ask, open_incident, with_check
from monitoring.observations import StreamKey
from monitoring.remedies import ActionRequest, ActionResult
from monitoring.signals import Verdict
from monitoring.state_file import StateFile
from tests.monitoring.watches import signal_of

RULES = OutboxRules(jitter=0.0)
BEGAN = 1767268800.0
DONE = ActionResult("done", "Done.", {"n": 1})
WALK = Walk("ece_up", Outcome.FIRED, ("up",), "retrain", (signal_of("ece", Verdict.BREACHED),))


@pytest.fixture
def store(state: StateFile) -> IncidentStore:
    """An empty one."""
    return IncidentStore(state)


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded."""
    return np.random.default_rng(7)


def incident_at(began_at: float, branch: str = "ece_up") -> tuple[Incident, ActionRequest]:
    """An incident that asks for a retrain."""
    walk = Walk(branch, WALK.outcome, WALK.path, WALK.action, WALK.evidence)
    return ask(open_incident(walk, StreamKey("3", "3.1", "champion"), began_at), "retrain", began_at)


def ended(incident: Incident, at: float) -> Incident:
    return with_check(incident, Check(at, "recovered", "Back.", ()))


def keys_due(store: IncidentStore, now: float) -> list[str]:
    return [row.request.key for row in store.due(now)]


class TestIncidents:
    def test_incident_is_kept_as_it_was_saved_last(self, store: IncidentStore) -> None:
        """Under its id, once."""
        first, _ = incident_at(BEGAN)
        store.save(first)
        store.save(ended(first, BEGAN + 60))
        assert store.get(first.id) == ended(first, BEGAN + 60)
        assert store.get("none") is None
        assert len(store.latest(10)) == 1

    def test_open_ones_are_told_apart_and_latest_come_first(self, store: IncidentStore) -> None:
        """Ended ones are among the latest only."""
        early, late, over = (incident_at(BEGAN + hours * 3600)[0] for hours in (0, 2, 1))
        for incident in (late, early, ended(over, BEGAN + 9000)):
            store.save(incident)
        assert [incident.id for incident in store.open()] == [early.id, late.id]
        assert [incident.id for incident in store.latest(2)] == [late.id, over.id]

    def test_old_ones_are_forgotten_with_their_requests(self, store: IncidentStore) -> None:
        """One that has not ended is never old."""
        (old, old_request), (still_open, open_request) = incident_at(BEGAN), incident_at(BEGAN + 1)
        store.save(ended(old, BEGAN + 60))
        store.save(still_open)
        for request in (old_request, open_request):
            store.put(request)
        assert store.forget(before=BEGAN + 1e6) == 1
        assert [incident.id for incident in store.latest(9)] == [still_open.id]
        assert keys_due(store, BEGAN + 1e6) == [open_request.key]

    def test_failed_transaction_leaves_neither_incident_nor_request(
        self, state: StateFile, store: IncidentStore
    ) -> None:
        """Both are written with the walk that asked for them, or neither is."""
        incident, request = incident_at(BEGAN)

        def fail() -> None:
            with state.transaction():
                store.save(incident)
                store.put(request)
                raise KeyError("stop")

        with pytest.raises(KeyError):
            fail()
        assert (store.open(), store.due(BEGAN + 1)) == ([], [])


class TestOutbox:
    def test_request_is_due_at_once_and_once(self, store: IncidentStore) -> None:
        """Asked for again under its key, nothing changes."""
        _, request = incident_at(BEGAN)
        assert store.put(request)
        assert not store.put(request)
        assert [row.request for row in store.due(BEGAN)] == [request]

    def test_result_takes_it_out(self, store: IncidentStore, rng: np.random.Generator) -> None:
        """The first result stays, and what it was is kept."""
        _, request = incident_at(BEGAN)
        store.put(request)
        store.record_attempt(request.key, BEGAN, RULES, rng)
        assert store.record_result(request.key, DONE, BEGAN + 2).state == "done"
        assert store.record_result(request.key, ActionResult("failed", "No."), BEGAN + 3).state == "done"
        assert store.record_failure(request.key, HookFailed("late"), BEGAN + 3, RULES, rng).state == "done"
        assert store.due(BEGAN + 1e9) == []
        assert store.row(request.key).finished_at == BEGAN + 2

    def test_failed_tries_wait_longer_and_longer_then_it_is_dead(
        self, store: IncidentStore, rng: np.random.Generator
    ) -> None:
        """Eight tries at 5, 10, 20 ... seconds; the dead letter says why each came to nothing."""
        _, request = incident_at(BEGAN)
        store.put(request)
        now, tries, waits = BEGAN, 0, []
        while (due := store.due(now)) and due[0].state == "waiting":
            tries += 1
            store.record_attempt(request.key, now, RULES, rng)
            row = store.record_failure(request.key, HookFailed(f"try {tries}"), now, RULES, rng)
            waits.append(row.due_at - now)
            assert row.state == "dead" or store.due(row.due_at - 0.01) == []
            now = row.due_at
        assert (tries, waits[:7]) == (8, [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0])
        (dead,) = store.dead()
        assert dead.reasons == tuple(f"try {number}" for number in range(1, 9))
        told = dead_result(dead)
        assert (told.outcome, told.detail["reasons"][-1]) == ("failed", "try 8")
        assert "8 tries" in told.words

    def test_other_side_may_ask_for_a_longer_wait_up_to_the_longest(
        self, store: IncidentStore, rng: np.random.Generator
    ) -> None:
        """A shorter one is no reason to come back sooner."""
        _, request = incident_at(BEGAN)
        store.put(request)
        waits = []
        for asked_for in (60.0, 1.0, 1e9):
            store.record_attempt(request.key, BEGAN, RULES, rng)
            failure = HookFailed("busy", retry_after_s=asked_for)
            waits.append(store.record_failure(request.key, failure, BEGAN, RULES, rng).due_at - BEGAN)
        assert waits == [60.0, 10.0, 900.0]

    def test_clock_that_steps_back_does_not_hold_it(self, store: IncidentStore, rng: np.random.Generator) -> None:
        """Neither one that was tried nor one that was not."""
        (_, tried), (_, fresh) = incident_at(BEGAN), incident_at(BEGAN + 1)
        for request in (tried, fresh):
            store.put(request)
        store.record_attempt(tried.key, BEGAN, RULES, rng)
        store.record_failure(tried.key, HookFailed("busy"), BEGAN, RULES, rng)
        assert set(keys_due(store, BEGAN - 86_400)) == {tried.key, fresh.key}

    def test_withdrawn_requests_are_not_tried(self, store: IncidentStore, rng: np.random.Generator) -> None:
        """Those of other incidents are, and a late result changes nothing."""
        (ending, first), (_, other) = incident_at(BEGAN), incident_at(BEGAN + 1)
        for request in (first, other):
            store.put(request)
        assert store.withdraw(ending.id, BEGAN + 5) == [first.key]
        assert keys_due(store, BEGAN + 1e6) == [other.key]
        assert store.record_result(first.key, DONE, BEGAN + 9).state == "withdrawn"

    def test_counts(self, store: IncidentStore, rng: np.random.Generator) -> None:
        """What waits, what is dead, and since when the oldest waits."""
        assert store.counts().oldest_asked_at is None
        for second in range(3):
            store.put(incident_at(BEGAN + second)[1])
        first = incident_at(BEGAN)[1].key
        once = OutboxRules(attempts=1)
        store.record_attempt(first, BEGAN, once, rng)
        store.record_failure(first, HookFailed("no"), BEGAN, once, rng)
        counts = store.counts()
        assert (counts.waiting, counts.dead, counts.oldest_asked_at) == (2, 1, BEGAN + 1)

    def test_unknown_key_is_an_error(self, store: IncidentStore) -> None:
        """Nothing is recorded of what was never asked."""
        with pytest.raises(KeyError, match="never"):
            store.record_result("never", DONE, BEGAN)


class TestWaits:
    def test_jitter_only_shortens_and_spreads(self, rng: np.random.Generator) -> None:
        """By a fifth at most."""
        waits = [wait_s(3, OutboxRules(), rng) for _ in range(500)]
        assert 16.0 <= min(waits) < 16.5
        assert 19.5 < max(waits) <= 20.0

    @pytest.mark.parametrize(
        "wrong",
        [
            {"first_wait_s": 0.0},
            {"longest_wait_s": 1.0},
            {"factor": 0.5},
            {"attempts": 0},
            {"jitter": 1.0},
            {"longest_wait_s": float("inf")},
            {"factor": float("nan")},
        ],
    )
    def test_rules_that_make_no_sense_are_refused(self, wrong: dict[str, float]) -> None:
        """At start, with what was given."""
        with pytest.raises(ValueError, match="an outbox needs"):
            OutboxRules(**wrong)  # type: ignore[arg-type]


DELIVER_AND_DIE = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from monitoring.incident_store import IncidentStore, OutboxRules
from monitoring.state_file import StateFile

state = StateFile(Path(sys.argv[1]))
store = IncidentStore(state)
(row,) = store.due(float(sys.argv[3]))
with state.transaction():
    store.record_attempt(row.request.key, float(sys.argv[3]), OutboxRules(jitter=0.0), np.random.default_rng(0))
Path(sys.argv[2]).write_text(json.dumps(row.request.to_json()))
# Carried out, and not yet recorded.
os.kill(os.getpid(), signal.SIGKILL)
"""


class TestKill:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """A state file that asks for one action, closed."""
        path = tmp_path / "state.sqlite"
        state = StateFile(path)
        incident, request = incident_at(BEGAN)
        with state.transaction():
            store = IncidentStore(state)
            store.save(incident)
            store.put(request)
        state.close()
        return path

    def test_kill_between_delivery_and_record_delivers_again_under_the_same_key(self, path: Path) -> None:
        """The process dies having delivered it; the next one finds it due, once its wait is over."""
        delivered = path.with_name("delivered.json")
        run = subprocess.run(
            [sys.executable, "-c", DELIVER_AND_DIE, str(path), str(delivered), str(BEGAN)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        assert run.returncode == -signal.SIGKILL, run.stderr
        state = StateFile(path)
        store = IncidentStore(state)
        assert store.due(BEGAN + 4.9) == []
        (row,) = store.due(BEGAN + 5.0)
        state.close()
        assert row.request == ActionRequest.from_json(json.loads(delivered.read_text()))
        assert (row.attempts, row.reasons) == (1, ())

    def test_request_that_kills_whoever_tries_it_is_given_up(self, path: Path, rng: np.random.Generator) -> None:
        """Three times the process ends during it; the fourth start finds a dead letter instead."""
        rules, now, states = OutboxRules(jitter=0.0, attempts=3), BEGAN, []
        for _ in range(4):
            state = StateFile(path)
            store = IncidentStore(state)
            (row,) = store.due(now)
            with state.transaction():
                states.append(store.record_attempt(row.request.key, now, rules, rng).state)
            dead, now = store.dead(), now + 1000.0
            state.close()
        assert states == ["waiting"] * 3 + ["dead"]
        assert [row.reasons for row in dead] == [(KILLED,) * 3]
