"""From what was measured to incidents, requests and checks; every step of it survives a kill."""

import sqlite3
from pathlib import Path
from typing import ClassVar

import pytest

from monitoring.course import WaitRule
from monitoring.errors import HookFailed, LogUnavailable
from monitoring.incident_store import IncidentStore
from monitoring.remedies import ActionResult, SignalRecord
from monitoring.signals import Verdict
from monitoring.snapshot import Health
from monitoring.state_file import StateFile
from tests.monitoring.event_logs import BEGAN, EMBEDDING, KEY, WrittenLog, label, prediction
from tests.monitoring.monitored import DONE, HandDeliverer, Monitored, measured

BROAD = measured("segment_concentration", Verdict.OK)
ACCURACY_BREACHED = measured("accuracy", Verdict.BREACHED), BROAD
ACCURACY_OK = (measured("accuracy", Verdict.OK),)
ECE_BREACHED = (measured("ece", Verdict.BREACHED),)
SLOW = measured("total_p95_ms", Verdict.BREACHED), measured("queue_share_of_delay", Verdict.BREACHED)


@pytest.fixture
def run(log: WrittenLog, state: StateFile) -> Monitored:
    """A monitor that has seen nothing yet."""
    return Monitored(log, state)


class TestTakingIn:
    def test_evidence_is_saved_with_the_chunk_and_then_taken_over(self, run: Monitored, state: StateFile) -> None:
        """One transaction; memory follows the file, never the other way round."""
        run.turn()
        assert (run.watches.heard, state.get("watches")) == (["follow", "take over"], b"1")

    def test_failed_chunk_is_rolled_back(self, run: Monitored, state: StateFile) -> None:
        """A state that cannot be written leaves the evidence as it was, and the same events come again."""
        run.log.predict(prediction(0))
        state.connection.execute("PRAGMA query_only=ON")
        with pytest.raises(sqlite3.OperationalError):
            run.monitor.take_in(run.now)
        assert run.watches.heard[-1] == "roll back"
        state.connection.execute("PRAGMA query_only=OFF")
        run.monitor.take_in(run.now)
        assert run.journey.counters.predictions_read == 1

    def test_missing_log_is_told(self, run: Monitored) -> None:
        """The loop waits for it."""
        run.log.close()
        run.log.path.unlink()
        with pytest.raises(LogUnavailable):
            run.monitor.take_in(run.now)

    def test_lag_is_the_age_of_the_last_event_while_more_is_waiting(self, log: WrittenLog, state: StateFile) -> None:
        """Nothing is behind once all was read, however long ago that was."""
        run = Monitored(log, state)
        log.predict(*(prediction(index) for index in range(3000)))
        run.monitor.take_in(run.now + 10_000.0)
        behind = run.monitor.snapshot(run.now + 10_000.0, Health()).behind_s
        assert behind == pytest.approx(10_000.0 - 2047)
        run.monitor.take_in(run.now + 10_000.0)
        assert run.monitor.snapshot(run.now + 10_000.0, Health()).behind_s == 0.0


class TestAnIncident:
    def test_begins_asks_for_its_action_and_recovers(self, run: Monitored) -> None:
        """The whole course, with what people see of it at the end."""
        run.watches.say(*ACCURACY_BREACHED)
        run.turn(3)
        assert run.deliverer.keys == ["1-retrain"]
        assert run.metric("monitor_incidents_open", branch="accuracy_down", diagnosis="accuracy_down/retrain") == 1.0
        assert run.metric("monitor_outbox_waiting") == 1.0
        run.deliverer.end(ActionResult("done", "trained version 2"))
        run.turn()
        run.watches.say(*ACCURACY_OK)
        run.turn(2)
        [incident] = run.snapshot.latest_incidents
        [remedy] = incident.remedies
        assert (incident.status, run.snapshot.outbox_waiting) == ("recovered", 0)
        assert run.open_count() == 0
        assert incident.path == ("accuracy down >= 1 pp", "segment breakdown", "broad")
        assert [record.name for record in incident.evidence] == ["accuracy", "segment_concentration"]
        assert remedy.result is not None
        assert remedy.check is not None
        assert (remedy.attempts, remedy.result.words, remedy.check.verdict) == (1, "trained version 2", "recovered")
        heard = {"branch": "accuracy_down", "diagnosis": "accuracy_down/retrain"}
        assert run.metric("monitor_incidents_total", event="begun", **heard) == 1.0
        assert run.metric("monitor_incidents_total", event="recovered", **heard) == 1.0
        assert run.metric("monitor_remedies_total", action="retrain", outcome="done") == 1.0

    def test_walks_count_only_when_something_new_was_read(self, run: Monitored) -> None:
        """The same rows looked at again confirm nothing."""
        run.watches.say(*ACCURACY_BREACHED)
        run.turn()
        for _ in range(5):
            assert not run.monitor.assess(run.now)
        assert run.open_count() == 0

    def test_too_few_rows_are_no_recovery(self, run: Monitored) -> None:
        """Evidence that began anew has found nothing yet; the incident goes on until as many rows say so."""
        run.watches.say(*ACCURACY_BREACHED)
        run.turn(2)
        run.watches.say(measured("accuracy", Verdict.OK, n=400))
        run.turn(10)
        assert run.open_count() == 1
        run.watches.say(*ACCURACY_OK)
        run.turn(2)
        assert run.open_count() == 0

    def test_what_a_remedy_measured_leads_the_walk_on(self, run: Monitored) -> None:
        """A re-fit that recovers the ECE leads to the swap, in the same incident."""
        run.watches.say(*ECE_BREACHED)
        run.turn(2)
        refitted = SignalRecord.of_signal(measured("ece_after_refit", Verdict.OK))
        run.deliverer.end(ActionResult("done", "re-fitted", signals=(refitted,)))
        run.turn(3)
        [incident] = run.snapshot.open_incidents
        assert incident.diagnosis == "ece_up/swap_calibrator"
        assert run.deliverer.keys == ["1-refit_calibrator", "2-swap_calibrator"]
        assert run.deliverer.started[1].path[-1] == "recovers"
        superseded = {"branch": "ece_up", "diagnosis": "ece_up/refit_calibrator", "event": "superseded"}
        assert run.metric("monitor_incidents_total", **superseded) == 1.0

    def test_remedy_that_did_not_help_is_followed_by_the_next(self, run: Monitored) -> None:
        """Until nothing is left: then people are needed, and the incident stays open."""
        run.watches.say(*SLOW)
        run.turn(2)
        for _ in range(3):
            run.deliverer.end()
            run.turn(2, seconds=300.0)
        [incident] = run.snapshot.open_incidents
        assert run.deliverer.keys == ["1-tune_batching", "2-reload_model_graph", "3-roll_back"]
        assert incident.status == "needs_people"
        assert [remedy.check.verdict for remedy in incident.remedies if remedy.check] == ["not_recovered"] * 3

    def test_remedy_has_its_time_before_it_is_judged(self, run: Monitored) -> None:
        """A branch that fires on a moment after the remedy says nothing yet."""
        run.watches.say(*SLOW)
        run.turn(2)
        run.deliverer.end()
        run.turn(10)
        assert run.deliverer.keys == ["1-tune_batching"]

    def test_without_actions_incidents_are_only_recorded(self, log: WrittenLog, state: StateFile) -> None:
        """As the setting says."""
        run = Monitored(log, state, acts=False)
        run.watches.say(*ACCURACY_BREACHED)
        run.turn(5)
        [incident] = run.snapshot.open_incidents
        assert (incident.remedies, run.deliverer.started, run.snapshot.outbox_waiting) == ((), [], 0)


class TestDelivery:
    def test_failed_try_comes_again_under_the_same_key(self, run: Monitored) -> None:
        """After its wait, not before."""
        run.watches.say(*ACCURACY_BREACHED)
        run.turn(2)
        run.deliverer.end(HookFailed("no answer"))
        run.turn(2)
        assert run.deliverer.keys == ["1-retrain"]
        run.turn(1, seconds=10.0)
        assert run.deliverer.keys == ["1-retrain"] * 2
        assert len({request.key for request in run.deliverer.started}) == 1
        assert run.metric("monitor_remedies_total", action="retrain", outcome="retried") == 1.0

    def test_action_that_keeps_failing_is_given_up(self, run: Monitored) -> None:
        """It becomes a dead letter, which counts as a remedy that failed."""
        run.watches.say(*ACCURACY_BREACHED)
        run.turn(2)
        for _ in range(3):
            run.deliverer.end(HookFailed("no answer"))
            run.turn(2, seconds=100.0)
        [incident] = run.snapshot.open_incidents
        assert (len(run.deliverer.started), run.snapshot.outbox_dead, incident.status) == (3, 1, "needs_people")
        assert run.metric("monitor_remedies_total", action="retrain", outcome="dead") == 1.0

    def test_an_action_that_hangs_stops_nothing_else(self, run: Monitored) -> None:
        """Reading, measuring and other actions go on; the same one is not started twice."""
        run.watches.say(*ACCURACY_BREACHED)
        run.turn(2)
        run.watches.say(*ACCURACY_BREACHED, *SLOW)
        run.turn(3, seconds=1000.0)
        assert run.deliverer.keys == ["1-retrain", "1-tune_batching"]
        assert run.journey.counters.predictions_read == 5

    def test_action_gets_the_window_of_its_stream(self, run: Monitored) -> None:
        """A copy of all that is held."""
        run.watches.say(*ACCURACY_BREACHED)
        run.turn(2)
        [window] = run.deliverer.windows
        assert (window.key, len(window.predictions)) == (KEY, 2)

    def test_result_is_not_lost_when_the_state_cannot_be_written(self, run: Monitored, state: StateFile) -> None:
        """It is saved once it can be."""
        run.watches.say(*ACCURACY_BREACHED)
        run.turn(2)
        run.deliverer.end()
        state.connection.execute("PRAGMA query_only=ON")
        with pytest.raises(sqlite3.OperationalError):
            run.monitor.deliver(run.now)
        state.connection.execute("PRAGMA query_only=OFF")
        run.monitor.deliver(run.now)
        [incident] = run.snapshot.open_incidents
        assert incident.remedies[0].result == DONE


class TestWhatServes:
    def test_evidence_begins_anew_when_something_else_serves(self, run: Monitored, state: StateFile) -> None:
        """What was seen of the deployment before says nothing of the new one; the start of the sidecar is no change."""
        run.turn(2)
        assert run.watches.restarted == []
        run.serving = 2
        run.turn(2)
        run.serving = None
        run.turn()
        assert run.watches.restarted == [KEY]
        assert state.get("watches") is not None

    def test_change_while_the_sidecar_was_down_is_noticed(self, run: Monitored, state: StateFile) -> None:
        """The number is saved."""
        run.turn()
        resumed = Monitored(run.log, state, run.now)
        resumed.serving = 5
        resumed.turn()
        assert resumed.watches.restarted == [KEY]


class TestResuming:
    def test_incidents_alerts_and_requests_go_on_after_a_kill(self, run: Monitored, state: StateFile) -> None:
        """What ran at the kill runs again under the same key, and nothing begins twice."""
        run.watches.say(*ACCURACY_BREACHED)
        run.turn(2)
        [key] = [request.key for request in run.deliverer.started]
        resumed = Monitored(run.log, state, run.now + 60.0)
        resumed.watches.say(*ACCURACY_BREACHED)
        resumed.turn(3)
        assert [request.key for request in resumed.deliverer.started] == [key]
        assert len(resumed.snapshot.latest_incidents) == 1
        assert resumed.snapshot.latest_incidents[0].remedies[0].attempts == 2

    def test_walks_before_the_kill_count(self, run: Monitored, state: StateFile) -> None:
        """One before it and one after it are two."""
        run.watches.say(*ACCURACY_BREACHED)
        run.turn(1)
        resumed = Monitored(run.log, state, run.now)
        resumed.watches.say(*ACCURACY_BREACHED)
        resumed.turn(1)
        assert resumed.open_count() == 1

    def test_what_is_saved_is_all_or_nothing(self, run: Monitored, state: StateFile, tmp_path: Path) -> None:
        """An incident whose request could not be written is not there either, and begins with the next walk."""
        run.watches.say(*ACCURACY_BREACHED)
        run.turn(1)
        state.connection.execute("CREATE TRIGGER refuse BEFORE INSERT ON outbox BEGIN SELECT RAISE(FAIL, 'full'); END")
        with pytest.raises(sqlite3.IntegrityError):
            run.turn(1)
        assert IncidentStore(state).open() == []
        state.connection.execute("DROP TRIGGER refuse")
        run.turn(1)
        assert (len(IncidentStore(state).open()), run.deliverer.keys) == (1, ["1-retrain"])


class TestWaitingForWhatIsNew:
    """Discovery waits for 30 utterances, an hour at most, and is tried once."""

    WAITS: ClassVar = {"discover_intents": WaitRule(30, 3600.0)}

    def monitored(self, log: WrittenLog, state: StateFile, now: float = BEGAN) -> Monitored:
        """As a process that starts now."""
        run = Monitored(log, state, now, waits=self.WAITS, attempts=1)
        run.watches.say(measured("ood_precision", Verdict.BREACHED))
        return run

    def come(self, run: Monitored, n: int, policy: str = "1.1", is_rejected: bool = True) -> None:
        """So many utterances that are decided ood, and labelled with an intent, or the other way round; then a turn."""
        for _ in range(n):
            run.now += 1.0
            number = int(run.now - BEGAN) + 10**6
            decision = {"intents": (), "is_ood": True} if is_rejected else {}
            event = prediction(number, at=run.now, policy=policy, embedding=EMBEDDING, **decision)
            run.log.predict(event)
            run.log.label(label(event.request_id, *(("refund",) if is_rejected else ())), run.now)
        run.monitor.take_in(run.now)
        run.monitor.assess(run.now)
        run.monitor.deliver(run.now)

    def test_nothing_is_tried_before_enough_has_come(self, log: WrittenLog, state: StateFile) -> None:
        """Everybody sees how many of how many; nothing waits in the outbox."""
        run = self.monitored(log, state)
        self.come(run, 5)
        self.come(run, 5)
        [incident] = run.snapshot.open_incidents
        assert incident.awaited is not None
        assert (incident.awaited.have, incident.awaited.need) == (10, 30)
        assert (run.deliverer.started, run.snapshot.outbox_waiting) == ([], 0)
        self.come(run, 20)
        [request] = run.deliverer.started
        assert request.awaited is not None
        assert request.awaited.have == 30

    def test_where_the_recall_fell_it_waits_for_what_was_taken_for_ours(
        self, log: WrittenLog, state: StateFile
    ) -> None:
        """What is rejected meanwhile is no part of it."""
        run = self.monitored(log, state)
        run.watches.say(measured("ood_recall", Verdict.BREACHED))
        self.come(run, 5, is_rejected=False)
        self.come(run, 20)
        [incident] = run.snapshot.open_incidents
        assert incident.awaited is not None
        assert (incident.awaited.signal, incident.awaited.have) == ("ood_recall", 5)
        self.come(run, 25, is_rejected=False)
        [request] = run.deliverer.started
        assert request.awaited is not None
        assert request.awaited.have == 30

    def test_killed_while_it_waits_it_waits_on(self, log: WrittenLog, state: StateFile) -> None:
        """As often as may be, with one try: none of it was used up, and the end of the wait stays where it was."""
        run = self.monitored(log, state)
        self.come(run, 5)
        self.come(run, 5)
        [before] = run.snapshot.open_incidents
        for _ in range(3):
            run = self.monitored(log, state, run.now)
            assert run.snapshot.open_incidents == (before,)
        self.come(run, 20)
        assert run.deliverer.keys == ["1-discover_intents"]
        run.deliverer.end()
        self.come(run, 1)
        [incident] = run.snapshot.open_incidents
        [remedy] = incident.remedies
        assert (remedy.result, remedy.attempts) == (DONE, 1)

    def test_killed_between_the_request_and_its_try_it_is_tried(self, log: WrittenLog, state: StateFile) -> None:
        """The request was saved with the end of the wait."""
        run = self.monitored(log, state)
        self.come(run, 5)
        run.deliverer.is_full = True
        self.come(run, 30)
        assert (run.deliverer.started, run.snapshot.outbox_waiting) == ([], 1)
        resumed = self.monitored(log, state, run.now)
        resumed.turn()
        assert resumed.deliverer.keys == ["1-discover_intents"]

    def test_it_holds_up_nothing_else(self, log: WrittenLog, state: StateFile) -> None:
        """Other incidents have their remedies meanwhile."""
        run = self.monitored(log, state)
        self.come(run, 5)
        self.come(run, 5)
        run.watches.say(measured("ood_precision", Verdict.BREACHED), *SLOW)
        run.turn(2)
        assert run.deliverer.keys == ["1-tune_batching"]

    def test_the_longest_wait_ends_without_anything_new(self, log: WrittenLog, state: StateFile) -> None:
        """Time passes for the sidecar although no event comes; no walk is made for it."""
        run = self.monitored(log, state)
        self.come(run, 5)
        self.come(run, 5)
        for seconds in (3599.0, 2.0):
            assert run.deliverer.started == []
            run.now += seconds
            assert not run.monitor.assess(run.now)
            run.monitor.deliver(run.now)
        [request] = run.deliverer.started
        assert request.awaited is not None
        assert (request.awaited.have, request.awaited.is_short) == (10, True)

    def test_another_policy_meanwhile_hides_nothing(self, log: WrittenLog, state: StateFile) -> None:
        """Embeddings are the version's: what came under the one before counts too."""
        run = self.monitored(log, state)
        self.come(run, 5)
        self.come(run, 15)
        self.come(run, 10, policy="1.2")
        [request] = run.deliverer.started
        assert request.stream.policy == "1.2"
        assert request.awaited is not None
        assert request.awaited.have == 30


def test_stream_that_was_forgotten_ends_its_requests(log: WrittenLog, state: StateFile) -> None:
    """After a restart its version may be gone from the model repository: there is no window to act on."""
    run = Monitored(log, state)
    run.watches.say(*ACCURACY_BREACHED)
    run.turn(2)
    state.connection.execute("DELETE FROM predictions")
    state.connection.execute("DELETE FROM streams")
    resumed = Monitored(log, state, run.now + 60.0)
    resumed.monitor.deliver(resumed.now)
    resumed.monitor.deliver(resumed.now)
    [incident] = resumed.snapshot.open_incidents
    assert isinstance(resumed.deliverer, HandDeliverer)
    assert resumed.deliverer.started == []
    assert incident.remedies[0].result is not None
    assert incident.remedies[0].result.outcome == "failed"
