"""What walks change about incidents."""

import math
from dataclasses import replace

import numpy as np
import pytest

from monitoring.alerts import Alert, Transition
from monitoring.course import Changes, Moment, WaitRule, confirmed, extra_signals, has_come_back, proceed, wait_on
from monitoring.failure_tree import Outcome, Walk
from monitoring.incidents import Incident, ask, with_result
from monitoring.novelty import NO_OOD_DECISIONS, OodDecisions
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

    @pytest.mark.parametrize(
        ("left", "interval", "is_back"),
        [
            (0.004, (0.034, 0.038), True),  # below half of the threshold of 0.01, whatever the interval
            (0.012, (0.010, 0.060), True),  # below a quarter of the 0.06, and the interval holds what was before
            (0.012, (0.035, 0.060), False),  # the interval says that it is not back
            (0.016, (0.010, 0.070), False),  # more than a quarter
            (math.nan, (math.nan, math.nan), False),
        ],
    )
    def test_of_a_large_change_a_quarter_may_be_left_to_chance(
        self, left: float, interval: tuple[float, float], is_back: bool
    ) -> None:
        """An ECE of 0.03 that had risen to 0.09."""
        worse = Signal("ece", 0.09, 0.08, 0.10, 1000, Verdict.BREACHED, 0.03, 0.01)
        walk = replace(fired(), evidence=(worse,))
        alert = Transition("begun", Alert(walk, NOW), NOW)
        [incident] = proceed([walk], [alert], [], moment()).incidents.values()
        now = Signal("ece", 0.03 + left, *interval, 1000, Verdict.OK, 0.03, 0.01)
        assert has_come_back(incident, {"ece": now}, TREE) is is_back

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


REJECTED = measured("ood_precision", Verdict.BREACHED)
"""Ood decisions of the reference are right in one of two cases."""
NEW_INTENT = Walk("ood_precision_down", Outcome.FIRED, ("ood precision",), "discover_intents", (REJECTED,))
NEEDED, LONGEST_S, BROKEN_AT = 40, 3600.0, NOW - 9.0


def came(novel: int, quiet: int = 200) -> OodDecisions:
    """Ood decisions a second apart, every other one wrong up to the break, and then so many that all are."""
    at = BROKEN_AT - quiet + np.arange(float(quiet + novel))
    is_wrong = (np.arange(quiet + novel) % 2 == 0) | (np.arange(quiet + novel) >= quiet)
    return OodDecisions(at, at, is_wrong, 1.0)


class TestWaiting:
    """For enough of what is new; with each moment the incident as it is then, and what was asked for."""

    def moment(
        self, decisions: OodDecisions, now: float = NOW, acts: bool = True, signal: str = "ood_precision"
    ) -> Moment:
        """Which discovery is to wait for; there are decisions of one signal."""
        waits = {"discover_intents": WaitRule(NEEDED, LONGEST_S)}
        by_signal = {signal: decisions}
        return Moment(TREE, KEY, now, None, acts, waits, lambda asked: by_signal.get(asked, NO_OOD_DECISIONS))

    def begun(self, moment: Moment) -> Changes:
        """The diagnosis."""
        begins = Transition("begun", Alert(NEW_INTENT, moment.now), moment.now)
        return proceed([NEW_INTENT], [begins], [], moment)

    def fires_on(self, incident: Incident, moment: Moment) -> Changes:
        """Another walk."""
        return proceed([NEW_INTENT], [], [incident], moment)

    def test_the_action_is_asked_for_once_enough_has_come(self) -> None:
        """Until then the incident says how many of how many, since when, and how long it waits at most."""
        changes = self.begun(self.moment(came(novel=10)))
        incident = only(changes)
        assert (changes.requests, incident.remedies) == ([], ())
        assert incident.awaited is not None
        assert (incident.awaited.have, incident.awaited.need) == (10, NEEDED)
        assert (incident.awaited.since, incident.awaited.until) == (BROKEN_AT, NOW + LONGEST_S)
        changes = self.fires_on(incident, self.moment(came(novel=NEEDED), NOW))
        [request] = changes.requests
        assert (request.key, request.stream) == (f"{incident.id}/1-discover_intents", KEY)
        assert request.awaited is not None
        assert not request.awaited.is_short

    @pytest.mark.parametrize(
        ("verdicts", "counted"),
        [
            ((Verdict.OK, Verdict.BREACHED), "ood_recall"),
            ((Verdict.BREACHED, Verdict.OK), "ood_precision"),
            ((Verdict.BREACHED, Verdict.BREACHED), "ood_precision"),
        ],
    )
    def test_what_fell_is_what_is_counted(self, verdicts: tuple[Verdict, Verdict], counted: str) -> None:
        """An intent that is taken for ours leaves the precision as it was, which would count none for ever."""
        signals = tuple(map(measured, ("ood_precision", "ood_recall"), verdicts))
        walk = replace(NEW_INTENT, evidence=signals)
        moment = self.moment(came(novel=10), signal=counted)
        changes = proceed([walk], [Transition("begun", Alert(walk, NOW), NOW)], [], moment)
        awaited = only(changes).awaited
        assert awaited is not None
        assert (awaited.signal, awaited.have, awaited.since) == (counted, 10, BROKEN_AT)
        enough = self.moment(came(novel=NEEDED), signal=counted)
        assert len(proceed([walk], [], [only(changes)], enough).requests) == 1

    def test_enough_at_the_diagnosis_is_waited_for_no_longer(self) -> None:
        """A diagnosis that came late has seen it all."""
        assert len(self.begun(self.moment(came(novel=NEEDED + 1))).requests) == 1

    def test_what_is_counted_is_saved_when_it_has_changed(self) -> None:
        """Each walk looks again; most have nothing to write."""
        incident = only(self.begun(self.moment(came(novel=10))))
        assert self.fires_on(incident, self.moment(came(novel=10))).incidents == {}
        later = only(self.fires_on(incident, self.moment(came(novel=25))))
        assert later.awaited is not None
        assert later.awaited.have > 10

    @pytest.mark.parametrize("with_walk", [True, False])
    def test_after_the_longest_wait_it_goes_ahead_and_says_so(self, with_walk: bool) -> None:
        """Also when nothing new was read, and nothing is walked."""
        incident = only(self.begun(self.moment(came(novel=10))))

        def at(now: float) -> Changes:
            moment = self.moment(came(novel=10), now)
            return self.fires_on(incident, moment) if with_walk else wait_on([incident], moment)

        assert at(NOW + LONGEST_S - 1.0).requests == []
        [request] = at(NOW + LONGEST_S).requests
        assert request.awaited is not None
        assert request.awaited.is_short
        assert request.awaited.have == 10

    def test_without_a_label_since_it_began_the_wait_is_since_the_diagnosis(self) -> None:
        """Another version serves, of which nothing is known yet."""
        [awaited] = [one.awaited for one in self.begun(self.moment(NO_OOD_DECISIONS)).incidents.values()]
        assert awaited is not None
        assert (awaited.since, awaited.have) == (NOW, 0)

    def test_twice_as_many_ask_for_it_once_more(self) -> None:
        """Under a key of its own, and not before the first has come to an end; then for twice as many again."""
        asked = only(self.begun(self.moment(came(novel=60))))
        assert asked.awaited is not None
        assert (asked.awaited.need, asked.awaited.until) == (120, None)
        doubled = self.moment(came(novel=130))
        assert self.fires_on(asked, doubled).requests == []
        done = finished(asked)
        assert self.fires_on(done, self.moment(came(novel=100), NOW + 10 * LONGEST_S)).requests == []
        changes = self.fires_on(done, doubled)
        [request] = changes.requests
        again = only(changes)
        assert request.key == f"{again.id}/2-discover_intents"
        assert again.awaited is not None
        assert again.awaited.need == 260

    def test_what_went_ahead_with_too_few_is_asked_again_once_enough_has_come(self) -> None:
        """Twice next to nothing would show no more."""
        incident = only(self.begun(self.moment(came(novel=3))))
        early = only(self.fires_on(incident, self.moment(came(novel=3), NOW + LONGEST_S)))
        assert early.awaited is not None
        assert (early.awaited.have, early.awaited.need) == (3, NEEDED)
        assert self.fires_on(finished(early), self.moment(came(novel=20))).requests == []
        assert len(self.fires_on(finished(early), self.moment(came(novel=NEEDED))).requests) == 1

    def test_recovery_ends_the_wait(self) -> None:
        """There is nothing to be shown any longer."""
        incident = only(self.begun(self.moment(came(novel=10))))
        clear = Walk("ood_precision_down", Outcome.CLEAR, (), None, (measured("ood_precision", Verdict.OK),))
        recovered = Transition("recovered", Alert(NEW_INTENT, NOW), NOW)
        moment = self.moment(came(novel=90), NOW + LONGEST_S)
        changes = proceed([clear], [recovered], [incident], moment)
        assert (only(changes).status, only(changes).awaited, changes.requests) == ("recovered", None, [])

    def test_another_diagnosis_ends_the_wait(self) -> None:
        """Its action is asked for in the place of what was waited for."""
        incident = only(self.begun(self.moment(came(novel=10))))
        walk = replace(NEW_INTENT, action="retrain")
        begins = Transition("begun", Alert(walk, NOW), NOW)
        changes = proceed([walk], [begins], [incident], self.moment(came(novel=90), NOW + LONGEST_S))
        assert [request.action for request in changes.requests] == ["retrain"]
        assert only(changes).awaited is None

    def test_an_action_without_a_rule_is_asked_for_at_once(self) -> None:
        """As is one whose walk saw no ood precision fall: nothing tells what is new then."""
        begins = [Transition("begun", Alert(NEW_INTENT, NOW), NOW)]
        assert len(proceed([NEW_INTENT], begins, [], moment()).requests) == 1
        unseen = replace(NEW_INTENT, evidence=(measured("ood_rate", Verdict.BREACHED),))
        begins = [Transition("begun", Alert(unseen, NOW), NOW)]
        assert len(proceed([unseen], begins, [], self.moment(came(novel=10))).requests) == 1

    def test_without_actions_nothing_is_waited_for(self) -> None:
        """Nor asked for, where they were turned off meanwhile."""
        assert only(self.begun(self.moment(came(novel=90), acts=False))).awaited is None
        incident = only(self.begun(self.moment(came(novel=10))))
        off = self.moment(came(novel=90), NOW + LONGEST_S, acts=False)
        assert self.fires_on(incident, off).requests == wait_on([incident], off).requests == []
