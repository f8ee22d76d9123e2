"""An incident records what was done, goes on to the next remedy when one did not help, and ends when it recovers."""

import json
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from monitoring.failure_tree import FailureTree, Outcome, Walk, load
from monitoring.incidents import (
    Check,
    Incident,
    ask,
    did_not_help,
    incident_id,
    next_remedy,
    open_incident,
    with_attempts,
    with_check,
    with_diagnosis,
    with_needs_people,
    with_result,
)
from monitoring.observations import StreamKey
from monitoring.remedies import ActionRequest, ActionResult, Awaited, SignalRecord
from monitoring.signals import Signal, Verdict
from tests.monitoring.watches import signal_of

NAN = float("nan")
STREAM = StreamKey("3", "3.1", "champion")
BEGAN = 1767268800.0
"""2026-01-01T12:00:00Z."""
DONE = ActionResult("done", "Done.")
FAILED = ActionResult("failed", "It cannot be done.")


@pytest.fixture(scope="module")
def tree() -> FailureTree:
    """The one that ships."""
    return load()


def fired(action: str = "reload_model_graph", branch: str = "latency_up") -> Walk:
    evidence = (signal_of("total_p95_ms", Verdict.BREACHED), Signal("x", NAN, NAN, NAN, 0, Verdict.OK, NAN, 1.0))
    return Walk(branch, Outcome.FIRED, ("P95 up", "model graph"), action, evidence)


def asked(walk: Walk, action: str | None = None) -> Incident:
    """An incident whose first remedy waits."""
    return ask(open_incident(walk, STREAM, BEGAN), action or str(walk.action), BEGAN)[0]


def finished(incident: Incident, at: float, result: ActionResult = DONE) -> Incident:
    """Its last remedy has finished."""
    return with_result(incident, incident.remedies[-1].key, result, at)


def check(verdict: str, at: float = BEGAN) -> Check:
    record = SignalRecord.of_signal(signal_of("total_p95_ms", Verdict.OK))
    return Check(at, verdict, "Looked at again.", (record,))  # type: ignore[arg-type]


class TestRecord:
    def test_incident_tells_what_began_it(self) -> None:
        """Id, diagnosis, path and evidence come from the walk; nothing is asked yet."""
        incident = open_incident(fired(), STREAM, BEGAN, "lang=ja")
        assert (incident.id, incident.diagnosis) == ("latency_up-20260101T120000", "latency_up/reload_model_graph")
        assert incident.path == ("P95 up", "model graph")
        assert [record.name for record in incident.evidence] == ["total_p95_ms", "x"]
        assert (incident.status, incident.remedies, incident.segment) == ("open", (), "lang=ja")

    def test_incident_of_an_older_sidecar_waits_for_nothing(self) -> None:
        """The state file goes on under a newer one."""
        incident = asked(fired())
        body = incident.to_json()
        assert body.pop("awaited") is None
        assert Incident.from_json(body) == incident

    def test_request_carries_what_the_incident_knows(self) -> None:
        """Each remedy has a key of its own, which tells the incident, the ordinal and the action."""
        incident, first = ask(open_incident(fired(), STREAM, BEGAN, "lang=ja"), "reload_model_graph", BEGAN + 1)
        incident, second = ask(incident, "roll_back", BEGAN + 2)
        assert first.key == "latency_up-20260101T120000/1-reload_model_graph"
        assert second.key == "latency_up-20260101T120000/2-roll_back"
        assert [remedy.key for remedy in incident.remedies] == [first.key, second.key]
        assert (second.incident, second.stream, second.asked_at, second.segment) == (
            incident.id,
            STREAM,
            BEGAN + 2,
            "lang=ja",
        )
        assert (second.path, second.evidence) == (incident.path, incident.evidence)

    def test_result_is_kept_once(self) -> None:
        """A request that was delivered twice has two results; the first counts."""
        incident = finished(asked(fired()), BEGAN + 5)
        assert finished(incident, BEGAN + 9, FAILED) == incident
        assert (incident.remedies[0].result, incident.remedies[0].finished_at) == (DONE, BEGAN + 5)

    def test_attempts_are_counted_on_their_remedy(self) -> None:
        """And a key of another incident is none."""
        incident = asked(fired())
        assert with_attempts(incident, incident.remedies[0].key, 3).remedies[0].attempts == 3
        with pytest.raises(KeyError, match="has no remedy other"):
            with_result(incident, "other", DONE, BEGAN)

    def test_superseded_incident_goes_on(self) -> None:
        """The same id and remedies, the new path; a segment that was known stays known."""
        incident = finished(asked(fired("refit_calibrator", "ece_up")), BEGAN + 5)
        changed, request = ask(
            with_diagnosis(incident, fired("swap_calibrator", "ece_up")), "swap_calibrator", BEGAN + 6
        )
        assert (changed.id, changed.diagnosis) == (incident.id, "ece_up/swap_calibrator")
        assert [remedy.action for remedy in changed.remedies] == ["refit_calibrator", "swap_calibrator"]
        assert request.key.endswith("/2-swap_calibrator")
        worst = with_diagnosis(replace(incident, segment="lang=ja"), fired())
        assert worst.segment == "lang=ja"

    def test_json_round_trip(self) -> None:
        """With a signal that could not be measured, which is null, and with everything that can be set."""
        incident = with_check(finished(asked(fired()), BEGAN + 5), check("not_recovered"))
        incident = with_needs_people(ask(incident, "roll_back", BEGAN + 6)[0])
        body = json.loads(json.dumps(incident.to_json(), allow_nan=False))
        assert body["evidence"][1]["value"] is None
        assert Incident.from_json(body) == incident

    def test_ids_are_of_utc(self) -> None:
        """Whatever the zone of the machine."""
        assert incident_id("ece_up", 0.0) == "ece_up-19700101T000000"


class TestCheckAfterwards:
    def test_recovery_ends_it(self) -> None:
        """The check stands on the last remedy, with its signals."""
        incident = with_check(finished(asked(fired()), BEGAN + 5), check("recovered", BEGAN + 60))
        assert (incident.status, incident.ended_at) == ("recovered", BEGAN + 60)
        assert incident.remedies[0].check == check("recovered", BEGAN + 60)

    def test_recovery_by_itself_ends_it_too(self) -> None:
        """Nothing was asked, as when actions are off; or the remedy still waits."""
        assert with_check(open_incident(fired(), STREAM, BEGAN), check("recovered")).status == "recovered"
        assert with_check(asked(fired()), check("recovered")).status == "recovered"

    def test_end_is_final(self) -> None:
        """A late check or a late lack of remedies changes nothing."""
        ended = with_check(asked(fired()), check("recovered"))
        assert with_check(ended, check("not_recovered")) == ended
        assert with_needs_people(ended) == ended

    def test_one_that_needs_people_may_recover(self) -> None:
        """It goes on until then."""
        incident = with_needs_people(finished(asked(fired()), BEGAN))
        assert (incident.status, incident.ended_at) == ("needs_people", None)
        assert with_check(incident, check("recovered")).status == "recovered"


class TestDidNotHelp:
    def test_remedy_has_its_time(self, tree: FailureTree) -> None:
        """A branch that fires before it is over says nothing."""
        wait = tree.remedies["reload_model_graph"].check_after_s
        incident = finished(asked(fired()), BEGAN + 5)
        assert not did_not_help(tree, incident, fired(), BEGAN + 5 + wait - 1)
        assert did_not_help(tree, incident, fired(), BEGAN + 5 + wait)

    def test_failed_remedy_needs_no_time(self, tree: FailureTree) -> None:
        """It changed nothing that could be waited for."""
        assert did_not_help(tree, finished(asked(fired()), BEGAN + 5, FAILED), fired(), BEGAN + 5)

    def test_unfinished_or_checked_remedy_is_not_judged(self, tree: FailureTree) -> None:
        """Nor one of an incident that has ended, nor when nothing was asked."""
        late = BEGAN + 1e7
        done = finished(asked(fired()), BEGAN)
        for incident in (
            open_incident(fired(), STREAM, BEGAN),
            asked(fired()),
            with_check(done, check("not_recovered")),
            with_check(done, check("recovered")),
        ):
            assert not did_not_help(tree, incident, fired(), late)

    def test_only_the_same_diagnosis_counts(self, tree: FailureTree) -> None:
        """A walk that is clear, held or leads elsewhere is no proof; the re-fit's signal leads elsewhere."""
        incident = finished(asked(fired("refit_calibrator", "ece_up")), BEGAN)
        for walk in (
            fired("swap_calibrator", "ece_up"),
            fired("retrain", "ece_up"),
            Walk("ece_up", Outcome.CLEAR, ("up",), None, ()),
            Walk("ece_up", Outcome.HELD, ("up",), None, ()),
        ):
            assert not did_not_help(tree, incident, walk, BEGAN + 1e7)
        assert did_not_help(tree, incident, fired("refit_calibrator", "ece_up"), BEGAN + 1)

    def test_clock_that_steps_back_proves_nothing(self, tree: FailureTree) -> None:
        """A remedy that finished in the future has had no time yet."""
        assert not did_not_help(tree, finished(asked(fired()), BEGAN + 3600), fired(), BEGAN)


class TestNextRemedy:
    @pytest.mark.parametrize(
        ("action", "following"),
        [
            ("relabel_segment", ["retrain"]),
            ("swap_calibrator", ["retrain"]),
            ("tune_tokenizer", ["reload_model_graph", "roll_back"]),
            ("tune_batching", ["reload_model_graph", "roll_back"]),
            ("reload_model_graph", ["roll_back"]),
            ("retrain", []),
            ("refit_calibrator", []),
            ("discover_intents", []),
            ("sample_for_labels", []),
        ],
    )
    def test_remedies_follow_the_tree_to_their_end(self, tree: FailureTree, action: str, following: list[str]) -> None:
        """One after the other, then people."""
        incident, got = asked(fired(), action), []
        while (name := next_remedy(tree, incident)) is not None:
            got.append(name)
            incident = ask(incident, name, BEGAN)[0]
        assert got == following

    def test_what_was_tried_is_not_tried_again(self, tree: FailureTree) -> None:
        """A superseded incident comes back to an action whose next one it has had."""
        incident = asked(fired(), "reload_model_graph")
        incident = ask(incident, "tune_batching", BEGAN)[0]
        assert next_remedy(tree, incident) is None

    def test_nothing_follows_nothing(self, tree: FailureTree) -> None:
        """Before anything was asked, or for an action that the tree no longer has."""
        assert next_remedy(tree, open_incident(fired(), STREAM, BEGAN)) is None
        assert next_remedy(tree, asked(fired(), "an_action_of_yesterday")) is None


ACTIONS = sorted(load().actions)
RESULTS = [DONE, FAILED, ActionResult("nothing_to_do", "It was done before.")]


class IncidentMachine(RuleBasedStateMachine):
    """Everything that can happen to an incident, in any order, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = load()
        self.now = BEGAN
        self.incident = open_incident(fired(), STREAM, BEGAN)
        self.seen = [self.incident]

    def change(self, incident: Incident) -> None:
        self.incident = incident
        self.seen.append(incident)

    @rule(seconds=st.floats(-100.0, 1e6))
    def move_clock(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.incident.ended_at is None)
    @rule(action=st.sampled_from(ACTIONS))
    def supersede(self, action: str) -> None:
        before = self.incident
        walk = fired(action)
        changed, request = ask(with_diagnosis(before, walk), action, self.now)
        assert request.key not in {remedy.key for remedy in before.remedies}
        assert ActionRequest.from_json(json.loads(json.dumps(request.to_json()))) == request
        assert (changed.id, changed.diagnosis, changed.status) == (before.id, walk.diagnosis, "open")
        self.change(changed)

    @precondition(lambda self: self.incident.remedies)
    @rule(data=st.data(), result=st.sampled_from(RESULTS))
    def finish(self, data: st.DataObject, result: ActionResult) -> None:
        remedy = data.draw(st.sampled_from(self.incident.remedies))
        changed = with_result(
            with_attempts(self.incident, remedy.key, remedy.attempts + 1), remedy.key, result, self.now
        )
        assert remedy.is_unfinished or changed.remedies[self.incident.remedies.index(remedy)].result == remedy.result
        self.change(changed)

    @rule(action=st.sampled_from(ACTIONS), outcome=st.sampled_from(list(Outcome)))
    def walk_on(self, action: str, outcome: Outcome) -> None:
        """As the monitor does: a walk that counts against the last remedy leads to the next one, or to people."""
        walk = replace(fired(action), outcome=outcome)
        before = self.incident
        if not did_not_help(self.tree, before, walk, self.now):
            return
        last = before.last_remedy
        assert last is not None
        assert last.result is not None
        assert (outcome, walk.diagnosis, before.ended_at) == (Outcome.FIRED, before.diagnosis, None)
        following = next_remedy(self.tree, before)
        changed = with_check(before, check("not_recovered", self.now))
        if following is None:
            changed = with_needs_people(changed)
        else:
            assert following not in {remedy.action for remedy in before.remedies}
            changed = ask(changed, following, self.now)[0]
        # What counted once does not count again: no walk asks for two remedies.
        assert not did_not_help(self.tree, changed, walk, self.now)
        self.change(changed)

    @precondition(lambda self: self.incident.ended_at is None)
    @rule(have=st.integers(0, 100), until=st.none() | st.floats(0.0, 1e10))
    def wait(self, have: int, until: float | None) -> None:
        awaited = Awaited("discover_intents", 80, have, since=BEGAN, until=until, precision=0.7)
        self.change(replace(self.incident, awaited=awaited))

    @rule()
    def recover(self) -> None:
        ended = with_check(self.incident, check("recovered", self.now))
        assert ended.status == "recovered"
        assert with_check(ended, check("not_recovered", self.now + 1)) == ended
        assert with_needs_people(ended) == ended
        self.change(ended)

    @invariant()
    def record_is_sound(self) -> None:
        """Whatever happened: it goes to JSON and back, keys are distinct, and what was recorded stays."""
        incident = self.incident
        assert Incident.from_json(json.loads(json.dumps(incident.to_json(), allow_nan=False))) == incident
        assert (incident.ended_at is None) == (incident.status != "recovered")
        assert incident.ended_at is None or incident.awaited is None
        assert [remedy.key for remedy in incident.remedies] == [
            f"{incident.id}/{ordinal}-{remedy.action}" for ordinal, remedy in enumerate(incident.remedies, 1)
        ]
        assert all((remedy.result is None) == (remedy.finished_at is None) for remedy in incident.remedies)
        for before in self.seen[-2:-1]:
            kept = incident.remedies[: len(before.remedies)]
            assert [remedy.key for remedy in kept] == [remedy.key for remedy in before.remedies]
            results = zip(kept, before.remedies, strict=True)
            assert all(then.result in (None, now.result) for now, then in results)


TestIncidentMachine = IncidentMachine.TestCase
TestIncidentMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
