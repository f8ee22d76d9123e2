"""An alert begins after enough firing walks, ends after enough clear ones, and is one a diagnosis at a time."""

import pytest

from monitoring.alerts import Alert, AlertRules, AlertState, Transition, advance
from monitoring.errors import BadState
from monitoring.failure_tree import Outcome, Walk
from monitoring.signals import Signal, Verdict
from tests.monitoring.watches import signal_of

RULES = AlertRules(begin_after=2, end_after=3, cooldown_s=100.0)


def fired(action: str = "retrain", branch: str = "accuracy_down") -> Walk:
    return Walk(branch, Outcome.FIRED, ("down", "broad"), action, ())


CLEAR = Walk("accuracy_down", Outcome.CLEAR, ("down",), None, ())
HELD = Walk("accuracy_down", Outcome.HELD, ("down",), None, ())


def run(walks: list[Walk], state: AlertState | None = None, at: float = 0.0) -> tuple[AlertState, list[str]]:
    """One walk a second; transitions as ``second kind diagnosis``."""
    state, heard = state or AlertState(), []
    for second, one in enumerate(walks):
        state, transitions = advance(state, [one], at + second, RULES)
        heard += [f"{at + second:g} {_words(transition)}" for transition in transitions]
    return state, heard


def _words(transition: Transition) -> str:
    return f"{transition.kind} {transition.alert.walk.diagnosis}"


class TestHysteresis:
    def test_one_spike_begins_nothing(self) -> None:
        """A walk that fires once between clear ones is passed over."""
        assert run([fired(), CLEAR, fired(), CLEAR])[1] == []

    def test_alert_begins_once_and_ends_once(self) -> None:
        """However long it fires, hooks hear of one beginning and one end."""
        state, heard = run([fired()] * 5 + [CLEAR] * 5)
        assert heard == ["1 begun accuracy_down/retrain", "7 recovered accuracy_down/retrain"]
        assert state.open == {}

    def test_held_walks_neither_begin_nor_end(self) -> None:
        """Too few labels for a while changes nothing, and does not start the counts anew."""
        assert run([fired(), HELD, HELD, fired()])[1] == ["3 begun accuracy_down/retrain"]
        state, heard = run([fired(), fired(), CLEAR, HELD, CLEAR])
        assert heard == ["1 begun accuracy_down/retrain"]
        assert run([CLEAR], state, at=5)[1] == ["5 recovered accuracy_down/retrain"]

    def test_relapse_starts_the_recovery_anew(self) -> None:
        """Two clear walks, one that fires, two clear ones: still open."""
        state, _ = run([fired(), fired(), CLEAR, CLEAR, fired(), CLEAR, CLEAR])
        assert list(state.open) == ["accuracy_down/retrain"]


class TestCooldown:
    def test_same_diagnosis_waits_for_its_cooldown(self) -> None:
        """It begins again with the first walk after it, if it still fires."""
        state, _ = run([fired(), fired(), CLEAR, CLEAR, CLEAR])
        state, heard = run([fired()] * 5, state, at=50)
        assert heard == []
        assert run([fired()], state, at=104)[1] == ["104 begun accuracy_down/retrain"]

    def test_other_diagnoses_do_not_wait(self) -> None:
        """A cooldown is of one diagnosis."""
        state, _ = run([fired(), fired(), CLEAR, CLEAR, CLEAR])
        other = fired("tune_batching", "latency_up")
        assert run([other, other], state, at=50)[1] == ["51 begun latency_up/tune_batching"]


class TestOneADiagnosis:
    def test_next_remedy_of_a_branch_supersedes(self) -> None:
        """A branch that comes to another action closes the first, so that its counts do not mix."""
        state, heard = run([fired("refit", "ece_up")] * 2 + [fired("retrain", "ece_up")] * 2)
        assert heard == ["1 begun ece_up/refit", "3 superseded ece_up/refit", "3 begun ece_up/retrain"]
        assert list(state.open) == ["ece_up/retrain"]

    def test_going_back_and_forth_begins_nothing_new(self) -> None:
        """Two actions that take turns never fire twice in a row."""
        state, heard = run([fired("a"), fired("b")] * 4)
        assert heard == []
        assert state.open == {}

    def test_state_is_a_value(self) -> None:
        """The state given in stays as it was, so that a crash between walks loses nothing."""
        before, _ = run([fired()])
        after, _ = advance(before, [fired()], 1.0, RULES)
        assert (before.open, list(after.open)) == ({}, ["accuracy_down/retrain"])
        assert advance(before, [fired()], 1.0, RULES)[0] == after


def test_rules_that_make_no_sense_are_refused() -> None:
    """Counts are one or more, a cooldown is not negative."""
    for rules in ({"begin_after": 0}, {"end_after": 0}, {"cooldown_s": -1.0}):
        with pytest.raises(ValueError, match="must be >= 1"):
            AlertRules(**rules)


def test_state_comes_back_as_it_was_saved() -> None:
    """Open alerts with their evidence, counts and cooldowns; what was not measured stays so."""
    unmeasured = Signal("nll", float("nan"), float("nan"), float("nan"), 0, Verdict.INCONCLUSIVE, 0.2, 0.05)
    evidence = (signal_of("accuracy", Verdict.BREACHED), unmeasured)
    walk = Walk("accuracy_down", Outcome.FIRED, ("accuracy down", "broad"), "retrain", evidence)
    state = AlertState({"accuracy_down/retrain": Alert(walk, 5.5)}, {"a/b": 1}, {"c": 2}, {"d/e": 99.5})
    again = AlertState.from_json(state.to_json())
    assert (again.fired, again.cleared, again.quiet_until) == (state.fired, state.cleared, state.quiet_until)
    back = again.open["accuracy_down/retrain"]
    assert (back.began_at, back.walk.path, back.walk.outcome) == (5.5, walk.path, Outcome.FIRED)
    assert back.walk.evidence[0] == evidence[0]
    assert repr(back.walk.evidence[1]) == repr(unmeasured)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"open": {"a": {}}}'])
def test_state_that_cannot_be_read_is_told(body: bytes) -> None:
    """Nothing is begun a second time by mistake."""
    with pytest.raises(BadState, match="saved alerts"):
        AlertState.from_json(body)
