"""What is asked of actions is asked at least once and given up at last, over failures, kills and a clock that steps."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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


BRIEF = OutboxRules(attempts=3)


class OutboxMachine(RuleBasedStateMachine):
    """Requests that are tried, fail, succeed, are withdrawn and forgotten by a kill, while the clock goes anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self._rng = np.random.default_rng(3)
        self.now = BEGAN
        self.expected: dict[str, str] = {}
        """State by key."""
        self.tries: dict[str, int] = {}
        self.running: set[str] = set()
        self._open()

    def _open(self) -> None:
        self.state = StateFile(Path(self._folder.name) / "state.sqlite")
        self.store = IncidentStore(self.state)

    @initialize(count=st.integers(1, 4))
    def ask_some(self, count: int) -> None:
        for second in range(count):
            self.ask(second)

    @rule(second=st.integers(0, 5))
    def ask(self, second: int) -> None:
        request = incident_at(BEGAN + second)[1]
        with self.state.transaction():
            is_new = self.store.put(request)
        assert is_new == (request.key not in self.expected)
        self.expected.setdefault(request.key, "waiting")
        self.tries.setdefault(request.key, 0)

    @rule(step=st.sampled_from([0.1, 7.0, 1000.0, -5000.0]))
    def move_clock(self, step: float) -> None:
        self.now += step

    @rule()
    def start_what_is_due(self) -> None:
        for row in self.store.due(self.now):
            key = row.request.key
            if key in self.running:
                continue
            with self.state.transaction():
                row = self.store.record_attempt(key, self.now, BRIEF, self._rng)
            self.tries[key] += row.state == "waiting"
            self.expected[key] = row.state
            if row.state == "waiting":
                self.running.add(key)

    @rule(data=st.data(), outcome=st.sampled_from(["done", "failed", "nothing_to_do", None]))
    @precondition(lambda self: self.running)
    def end_one(self, data: st.DataObject, outcome: Any) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(key)
        with self.state.transaction():
            if outcome is None:
                row = self.store.record_failure(key, HookFailed("no"), self.now, BRIEF, self._rng)
            else:
                row = self.store.record_result(key, ActionResult(outcome, "Ended."), self.now)
        if self.expected[key] == "withdrawn":
            assert row.state == "withdrawn"
        elif outcome is None:
            assert row.state == ("dead" if self.tries[key] == BRIEF.attempts else "waiting")
        else:
            assert row.state == outcome
        self.expected[key] = row.state

    @rule(data=st.data())
    @precondition(lambda self: self.expected)
    def withdraw(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.expected)))
        with self.state.transaction():
            keys = self.store.withdraw(self.store.row(key).request.incident, self.now)
        assert keys == ([key] if self.expected[key] == "waiting" else [])
        self.expected.update(dict.fromkeys(keys, "withdrawn"))

    @rule()
    def kill(self) -> None:
        """What ran is forgotten; the file is as it was committed."""
        self.state.close()
        self._open()
        self.running.clear()

    @invariant()
    def nothing_is_lost(self) -> None:
        """What waits comes up again, whatever the clock did; what has ended never does."""
        waiting = {key for key, state in self.expected.items() if state == "waiting"}
        assert {row.request.key for row in self.store.due(self.now + BRIEF.longest_wait_s)} == waiting
        assert {row.request.key for row in self.store.due(float("inf"))} == waiting
        for key, state in self.expected.items():
            row = self.store.row(key)
            assert (row.state, row.attempts) == (state, self.tries[key])
            assert row.attempts <= BRIEF.attempts
            assert (row.finished_at is None) == (state == "waiting")
        counts = self.store.counts()
        assert (counts.waiting, counts.dead) == (len(waiting), list(self.expected.values()).count("dead"))

    def teardown(self) -> None:
        self.state.close()
        self._folder.cleanup()


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


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

    def test_what_had_no_result_is_due_again_after_its_wait(self, path: Path, rng: np.random.Generator) -> None:
        """The process ended during the first try; the same request, whose try counts."""
        for _ in range(2):
            state = StateFile(path)
            store = IncidentStore(state)
            (row,) = store.due(BEGAN + 5.0)
            if row.attempts == 0:
                with state.transaction():
                    store.record_attempt(row.request.key, BEGAN, RULES, rng)
                assert store.due(BEGAN + 4.9) == []
            state.close()
        assert row.request == incident_at(BEGAN)[1]
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
