"""What walks change about incidents."""

from dataclasses import replace

import pytest

from monitoring.alerts import Alert, Transition
from monitoring.course import Changes, Moment, confirmed, extra_signals, has_come_back, proceed
from monitoring.failure_tree import Outcome, Walk
from monitoring.incidents import Incident, ask, with_result
from monitoring.observations import StreamKey
from monitoring.remedies import ActionResult, SignalRecord
from monitoring.signals import Signal, Verdict
from tests.monitoring.monitored import DONE, TREE, measured

KEY, NEXT_POLICY = StreamKey("1", "1.1", "champion"), StreamKey("1", "1.2", "champion")
BREACHED = measured("ece", Verdict.BREACHED)
NOW = 1_767_268_800.0


def fired(action: str = "refit_calibrator") -> Walk:
    """A walk of the calibration branch."""
    return Walk("ece_up", Outcome.FIRED, ("ECE up >= 0.01", action), action, (BREACHED,))


def transition(kind: str, action: str = "refit_calibrator") -> Transition:
    """Of that walk."""
    return Transition(kind, Alert(fired(action), NOW), NOW)  # type: ignore[arg-type]


def moment(stream: StreamKey = KEY, now: float = NOW, acts: bool = True) -> Moment:
    """When."""
    return Moment(TREE, stream, now, "lang=ja", acts)


def begun(action: str = "refit_calibrator") -> Incident:
    """An open incident whose first remedy waits."""
    changes = proceed([fired(action)], [transition("begun", action)], [], moment())
    [incident] = changes.incidents.values()
    return incident


def finished(incident: Incident, result: ActionResult = DONE, at: float = NOW) -> Incident:
    """Its last remedy has come to an end."""
    assert incident.last_remedy is not None
    return with_result(incident, incident.last_remedy.key, result, at)


def only(changes: Changes) -> Incident:
    """The one that changed."""
    [incident] = changes.incidents.values()
    return incident


def test_beginning_asks_for_the_action_of_the_walk() -> None:
    """The request carries all that the action needs to know."""
    changes = proceed([fired()], [transition("begun")], [], moment())
    [request] = changes.requests
    incident = only(changes)
    assert (request.key, request.incident) == (f"{incident.id}/1-refit_calibrator", incident.id)
    assert (request.stream, request.segment, request.path) == (KEY, "lang=ja", fired().path)
    assert [event for event, _ in changes.events] == ["begun"]


def test_another_diagnosis_goes_on_in_the_same_incident() -> None:
    """What the one before still waited for is withdrawn."""
    before = begun()
    both = [transition("superseded"), transition("begun", "swap_calibrator")]
    changes = proceed([fired("swap_calibrator")], both, [before], moment())
    incident = only(changes)
    assert (incident.id, incident.diagnosis) == (before.id, "ece_up/swap_calibrator")
    assert ([request.action for request in changes.requests], changes.withdrawn) == (["swap_calibrator"], [before.id])
    assert [event for event, _ in changes.events] == ["superseded", "begun"]


def test_what_was_tried_is_not_tried_again() -> None:
    """Two diagnoses that take turns would ask for ever."""
    incident, _ = ask(finished(begun()), "swap_calibrator", NOW)
    changes = proceed([fired()], [transition("begun")], [finished(incident)], moment())
    assert (changes.requests, changes.withdrawn) == ([], [])
    assert only(changes).diagnosis == "ece_up/refit_calibrator"


def test_next_remedy_is_about_the_stream_that_is_walked_now() -> None:
    """A swap has moved the traffic to another policy; its rows are what a retrain is to look at."""
    swapped = finished(begun("swap_calibrator"))
    changes = proceed([fired("swap_calibrator")], [], [swapped], moment(NEXT_POLICY, NOW + 61.0))
    [request] = changes.requests
    assert (request.action, request.stream, only(changes).stream) == ("retrain", NEXT_POLICY, KEY)


def test_without_actions_nothing_is_asked_for() -> None:
    """Nor counted as tried."""
    changes = proceed([fired()], [transition("begun")], [], moment(acts=False))
    assert (changes.requests, only(changes).remedies) == ([], ())


def test_recovery_withdraws_what_still_waits() -> None:
    """The problem is gone: a retrain that is still in the outbox is not wanted."""
    before = begun("retrain")
    clear = Walk("ece_up", Outcome.CLEAR, ("ECE up >= 0.01",), None, (measured("ece", Verdict.OK),))
    changes = proceed([clear], [transition("recovered", "retrain")], [before], moment())
    assert (only(changes).status, changes.withdrawn, changes.requests) == ("recovered", [before.id], [])


def test_of_what_remedies_measured_the_latest_holds() -> None:
    """A second re-fit replaces what the first one found."""
    persists, recovers = (
        ActionResult("done", "re-fitted", signals=(SignalRecord.of_signal(measured("ece_after_refit", verdict)),))
        for verdict in (Verdict.BREACHED, Verdict.OK)
    )
    first = finished(begun(), recovers, at=NOW + 9.0)
    second = finished(replace(begun(), id="another"), persists, at=NOW + 1.0)
    assert extra_signals([first, second])["ece_after_refit"].verdict is Verdict.OK
    assert extra_signals([begun()]) == {}


class TestRecovery:
    def test_needs_about_as_many_rows_as_the_breach(self) -> None:
        """Four fifths of them."""
        incident = begun()
        enough, few = (measured("ece", Verdict.OK, n) for n in (800, 799))
        assert has_come_back(incident, {"ece": enough}, TREE)
        assert not has_come_back(incident, {"ece": few}, TREE)
        assert not has_come_back(incident, {}, TREE)

    def test_is_measured_against_what_it_was_before(self) -> None:
        """A new version that is as bad from its first day, its own reference, has not brought the ECE back."""
        value = BREACHED.value
        as_bad = Signal("ece", value, value, value, 1000, Verdict.OK, value, 0.01)
        assert not has_come_back(begun(), {"ece": as_bad}, TREE)

    @pytest.mark.parametrize("outcome", [Outcome.HELD, Outcome.FIRED])
    def test_only_a_clear_walk_can_be_held_back(self, outcome: Outcome) -> None:
        """Other walks, and branches without an incident, stay as they are."""
        walks = [replace(fired(), outcome=outcome), Walk("latency_up", Outcome.CLEAR, (), None, ())]
        assert confirmed(walks, {}, [begun()], TREE) == walks

    def test_clear_walk_of_too_few_rows_is_held(self) -> None:
        """It neither ends the incident nor begins anything."""
        clear = replace(fired(), outcome=Outcome.CLEAR, action=None)
        [held] = confirmed([clear], {"ece": measured("ece", Verdict.OK, 10)}, [begun()], TREE)
        assert held.outcome is Outcome.HELD
