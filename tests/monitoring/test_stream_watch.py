"""Streams are followed row by row, compared with what was pinned, begin anew after a remedy and survive a restart."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from monitoring.alerts import AlertRules, AlertState, advance
from monitoring.assessment import ASSESSED_SIGNALS, Assessment
from monitoring.drawn_streams import BEGAN, KEY, POLICY, QUIET, Change, DrawnSources, DrawnStream
from monitoring.errors import BadFailureTree, BadState
from monitoring.failure_tree import Outcome, load, walk
from monitoring.label_join import Joined, StreamJoined
from monitoring.observations import Limits, StreamKey
from monitoring.signals import Signal, Verdict
from monitoring.stream_watch import WATCHES as SAVED_AS
from monitoring.stream_watch import StreamWatches, WatchSettings
from monitoring.windows import WindowSet

TREE = load()
SETTINGS = WatchSettings(window_predictions=2000, window_labelled=800, pin_predictions=2000, pin_labelled=2000)
REVISION = replace(POLICY, revision=2, temperature=1.5)
REVISED = StreamKey("1", REVISION.name, "champion")


class Watched:
    """A journey without a log: chunks are saved, taken over and shown to the windows."""

    def __init__(self, settings: WatchSettings = SETTINGS, sources: DrawnSources | None = None) -> None:
        self.saved: dict[str, bytes] = {}
        self.sources = sources or DrawnSources({POLICY.name: POLICY, REVISION.name: REVISION})
        self.windows = WindowSet(Limits())
        self.settings = settings
        self.watches = StreamWatches(TREE, self.sources, settings, self.saved.get)

    def resume(self) -> None:
        """As after a kill: only what was saved is left. The windows come back from the state file."""
        self.watches = StreamWatches(TREE, self.sources, self.settings, self.saved.get)

    def save(self, bodies: Mapping[str, bytes]) -> None:
        """A transaction that succeeds."""
        self.saved.update(bodies)
        self.watches.take_over()

    def take(self, *chunks: StreamJoined, pins: bool = True) -> None:
        """Each is a chunk of the log."""
        for chunk in chunks:
            joined = Joined((chunk,), (), Counter())
            self.save(self.watches.follow(joined))
            self.windows.push(joined)
            if pins:
                self.save(self.watches.pin_due(self.windows.stream(chunk.key)))

    def assess(self, key: StreamKey = KEY, extra: Mapping[str, Signal] | None = None) -> Assessment:
        return self.watches.assess(self.windows.stream(key), BEGAN, extra or {})

    def restart(self, key: StreamKey = KEY) -> None:
        self.save(self.watches.restart(key, self.windows.stream(key)))


def fired(assessment: Assessment) -> list[str]:
    """Diagnoses of one walk."""
    return [one.diagnosis for one in walk(TREE, assessment.signals) if one.outcome is Outcome.FIRED]


def assert_same(left: Assessment, right: Assessment) -> None:
    """Signal by signal, NaN being NaN."""
    assert repr(left) == repr(right)


@pytest.fixture
def stream() -> DrawnStream:
    """A quiet one, until something else is drawn."""
    return DrawnStream(np.random.default_rng(5))


@pytest.fixture
def watched(stream: DrawnStream) -> Watched:
    """With a reference of the first 2,000 rows."""
    watched = Watched()
    watched.take(stream.draw(2000))
    return watched


class TestReference:
    def test_nothing_is_judged_before_there_is_one(self, stream: DrawnStream) -> None:
        """Every signal is there and inconclusive; what can be measured is, with nothing to compare it with."""
        watched = Watched()
        watched.take(stream.draw(1400))
        assessment = watched.assess()
        assert set(assessment.signals) == set(ASSESSED_SIGNALS)
        assert {signal.verdict for signal in assessment.signals.values()} == {Verdict.INCONCLUSIVE}
        assert (assessment.reference, assessment.predictions, assessment.labelled) == ("none", 1400, 800)
        assert assessment.signals["accuracy"].value == pytest.approx(0.95, abs=0.03)
        assert np.isnan(assessment.signals["accuracy"].reference)
        assert assessment.signals["energy_ks"].n == 0

    def test_first_rows_are_pinned_once(self, stream: DrawnStream) -> None:
        """With enough predictions and labels; what comes later, however different, does not change it."""
        watched = Watched()
        first = stream.draw(2100)
        watched.take(first)
        expected = float(first.labelled["is_correct"][:2000][~first.labelled["truth"][:2000, -1]].mean())
        pinned = watched.saved["reference/1"]
        watched.take(stream.draw(1000, Change(lost_accuracy=0.3)))
        assert watched.saved["reference/1"] == pinned
        assert watched.assess().reference == "production"
        assert watched.assess().signals["accuracy"].reference == pytest.approx(expected)

    @pytest.mark.parametrize("role", ["candidate", "shadow"])
    def test_only_a_champion_is_pinned(self, stream: DrawnStream, role: str) -> None:
        """A candidate has not yet shown that it is fit to be compared with, and a shadow answers nobody."""
        watched = Watched()
        stream.key = replace(KEY, role=role)
        watched.take(stream.draw(2100))
        assert "reference/1" not in watched.saved

    def test_version_profile_serves_label_free_signals_until_then(self, watched: Watched, stream: DrawnStream) -> None:
        """When the settings say so; what needs labels waits for the pin."""
        pinned = watched.watches._reference("1")
        assert pinned is not None
        sources = DrawnSources(profiles={"1": pinned.profile})
        other = Watched(replace(SETTINGS, reference="version"), sources)
        other.take(stream.draw(1000))
        assessment = other.assess()
        assert assessment.reference == "version"
        assert assessment.signals["energy_ks"].verdict is Verdict.OK
        assert assessment.signals["accuracy"].verdict is Verdict.INCONCLUSIVE
        other.take(stream.draw(1100))
        assert other.assess().reference == "production"

    def test_revision_of_the_policy_goes_on_with_it(self, watched: Watched) -> None:
        """A miscalibrating revision is found by comparing with what was before it, and it alone is accused of it."""
        stream = DrawnStream(np.random.default_rng(6), key=REVISED, policy=REVISION, drawn=10_000)
        watched.take(*(stream.draw(1000) for _ in range(3)))
        signals = watched.assess(REVISED).signals
        assert signals["ece"].verdict is Verdict.BREACHED
        assert signals["accuracy"].verdict is Verdict.OK
        assert watched.assess(KEY).signals["ece"].verdict is Verdict.OK

    def test_missing_policy_or_profile_is_not_judged(self, stream: DrawnStream) -> None:
        """The model repository may have lost a file; nothing fails, and nothing is said of probabilities."""
        for settings in (SETTINGS, replace(SETTINGS, reference="version")):
            watched = Watched(settings, DrawnSources(policies={}))
            watched.take(stream.draw(2100))
            assessment = watched.assess()
            assert (assessment.reference, assessment.labelled) == ("none", 0)
            assert {signal.verdict for signal in assessment.signals.values()} == {Verdict.INCONCLUSIVE}

    def test_damaged_state_is_refused(self, watched: Watched) -> None:
        """It is not taken for an empty one."""
        watched.saved[SAVED_AS] = b"[["
        with pytest.raises(BadState, match="evidence"):
            watched.resume()

    def test_signal_without_threshold_is_refused_at_start(self) -> None:
        """Every signal is judged, so every one needs a watch."""
        tree = replace(TREE, watches={name: watch for name, watch in TREE.watches.items() if name != "nll"})
        with pytest.raises(BadFailureTree, match="nll"):
            StreamWatches(tree, DrawnSources(), SETTINGS, Watched().saved.get)


class TestDiagnosis:
    @pytest.mark.parametrize(
        ("change", "diagnosis"),
        [
            (Change(lost_accuracy=0.08), "accuracy_down/retrain"),
            (Change(lost_accuracy=0.6, lost_intent=5), "accuracy_down/relabel_segment"),
            (Change(sharpness=2.2), "ece_up/refit_calibrator"),
            (Change(delay_ms=4.0), "latency_up/tune_batching"),
            (Change(moved_prior=0.11), "unlabelled_drift/sample_for_labels"),
        ],
    )
    def test_change_is_diagnosed(self, watched: Watched, stream: DrawnStream, change: Change, diagnosis: str) -> None:
        """After a quiet stretch that says nothing, within 2,500 rows."""
        watched.take(stream.draw(1500))
        assert fired(watched.assess()) == []
        watched.take(*(stream.draw(500, change) for _ in range(5)))
        assert diagnosis in fired(watched.assess())

    def test_segments_are_looked_at_when_the_accuracy_is_breached(self, watched: Watched, stream: DrawnStream) -> None:
        """The one that lost most is first; before that there is nothing to look for."""
        assert watched.assess().segments == ()
        watched.take(*(stream.draw(500, Change(lost_accuracy=0.6, lost_intent=5)) for _ in range(4)))
        assert watched.assess().segments[0].name == "decided=intent_5"

    def test_signals_of_actions_are_passed_on(self, watched: Watched) -> None:
        """As the walk needs them."""
        extra = Signal("ece_after_refit", 0.01, 0.0, 0.02, 400, Verdict.OK, 0.01, 0.01)
        assert watched.assess(extra={"ece_after_refit": extra}).signals["ece_after_refit"] is extra

    def test_shadow_is_measured_and_never_judged(self, stream: DrawnStream) -> None:
        """Nobody waits for its answers."""
        watched = Watched()
        stream.key = replace(KEY, role="shadow")
        watched.take(stream.draw(3000, Change(delay_ms=30.0)))
        assessment = watched.assess(stream.key)
        assert assessment.signals["total_p95_ms"].value > 30.0
        assert {signal.verdict for signal in assessment.signals.values()} == {Verdict.INCONCLUSIVE}


class TestTransaction:
    def test_failed_transaction_leaves_no_trace(self, watched: Watched, stream: DrawnStream) -> None:
        """What was rolled back and read again counts once."""
        chunk = stream.draw(500)
        joined = Joined((chunk,), (), Counter())
        once = watched.watches.follow(joined)
        watched.watches.roll_back()
        assert watched.watches.follow(joined) == once
        watched.watches.take_over()

    def test_restart_of_the_process_loses_nothing(self, watched: Watched, stream: DrawnStream) -> None:
        """Killed between any two chunks, it says what an uninterrupted one does."""
        other = Watched()
        twin = DrawnStream(np.random.default_rng(5))
        other.take(twin.draw(2000))
        for change in (QUIET, Change(sharpness=1.8), Change(sharpness=1.8), Change(sharpness=1.8)):
            watched.take(stream.draw(700, change))
            watched.resume()
            other.take(twin.draw(700, change))
        assert_same(watched.assess(), other.assess())
        assert watched.saved[SAVED_AS] == other.saved[SAVED_AS]

    def test_chunk_without_a_followed_stream_saves_nothing(self, watched: Watched, stream: DrawnStream) -> None:
        """A shadow's, or an empty one."""
        stream.key = replace(KEY, role="shadow")
        assert watched.watches.follow(Joined((stream.draw(10),), (), Counter())) == {}
        assert watched.watches.follow(Joined((), (), Counter())) == {}

    def test_forgotten_stream_is_forgotten_here_too(self, watched: Watched) -> None:
        """Its evidence goes with its windows."""
        watched.save(watched.watches.follow(Joined((), (KEY,), Counter())))
        assert watched.saved[SAVED_AS] == b"[]"


class TestRemedy:
    def test_rows_of_before_no_longer_count(self, watched: Watched, stream: DrawnStream) -> None:
        """Neither predictions nor labels that come later for them; the next rows are judged by themselves."""
        watched.take(*(stream.draw(500, Change(lost_accuracy=0.08)) for _ in range(4)))
        assert fired(watched.assess()) == ["accuracy_down/retrain"]
        late = stream.draw(400, Change(lost_accuracy=0.9))
        watched.take(replace(late, labelled=late.labelled[:0]))
        watched.restart()
        watched.take(replace(late, predictions=late.predictions[:0], embeddings=late.embeddings))
        assessment = watched.assess()
        assert (assessment.predictions, assessment.labelled) == (0, 0)
        assert fired(assessment) == []
        watched.take(stream.draw(600))
        assert watched.assess().labelled == 600
        assert watched.assess().signals["accuracy"].verdict is Verdict.OK

    def test_what_did_not_help_is_found_again(self, watched: Watched, stream: DrawnStream) -> None:
        """The same fault after the floor gathers its own evidence, also over a restart of the process."""
        broken = Change(delay_ms=4.0)
        watched.take(*(stream.draw(500, broken) for _ in range(3)))
        assert fired(watched.assess()) == ["latency_up/tune_batching"]
        watched.restart()
        watched.resume()
        watched.take(stream.draw(100, broken))
        assert fired(watched.assess()) == []
        watched.take(*(stream.draw(500, broken) for _ in range(3)))
        assert fired(watched.assess()) == ["latency_up/tune_batching"]


class TestLooks:
    def test_evidence_of_what_has_passed_begins_anew(self, watched: Watched, stream: DrawnStream) -> None:
        """Once a whole window has come since and is ok, the same fault must be shown again before it counts."""
        slow = Change(delay_ms=4.0)
        watched.take(stream.draw(90, slow), stream.draw(910))
        assert watched.assess().signals["total_p95_ms"].verdict is Verdict.OK
        assert watched.watches._streams[KEY].evidence["total_p95_ms"].has_detected
        watched.take(stream.draw(1500))
        assert watched.assess().signals["total_p95_ms"].verdict is Verdict.OK
        assert "total_p95_ms" not in watched.watches._streams[KEY].evidence
        watched.take(stream.draw(10, slow))
        assert not watched.watches._streams[KEY].evidence["total_p95_ms"].has_detected

    def test_without_new_rows_nothing_is_measured_again(self, watched: Watched) -> None:
        """The numbers are the same ones."""
        first = watched.assess()
        assert watched.assess().signals["brier"] is first.signals["brier"]

    def test_unfollowed_signal_is_renewed_after_its_minimum_of_new_rows(
        self, watched: Watched, stream: DrawnStream
    ) -> None:
        """A verdict on overlapping windows would be a further chance to be wrong; followed numbers move at once."""
        first = watched.assess().signals
        watched.take(stream.draw(100))
        second = watched.assess().signals
        assert second["brier"] == first["brier"]
        assert second["accuracy"] != first["accuracy"]
        watched.take(stream.draw(300))
        assert watched.assess().signals["brier"] != first["brier"]

    def test_embeddings_are_looked_at_once(self, watched: Watched, stream: DrawnStream) -> None:
        """As soon as there are enough new ones, and not the same again: in between the verdict stays."""
        assert watched.assess().signals["embedding_mmd"].n == 0
        watched.take(stream.draw(3000))
        first = watched.assess().signals["embedding_mmd"]
        assert (first.n, first.verdict) == (256, Verdict.OK)
        watched.take(stream.draw(500))
        assert watched.assess().signals["embedding_mmd"] == first
        watched.take(stream.draw(3000))
        assert watched.assess().signals["embedding_mmd"] != first


def test_quiet_stream_begins_no_alert(watched: Watched, stream: DrawnStream) -> None:
    """Five walks over 5,000 rows: no diagnosis."""
    state = AlertState()
    for step in range(5):
        watched.take(stream.draw(1000))
        state, transitions = advance(state, walk(TREE, watched.assess().signals), BEGAN + step, AlertRules())
        assert transitions == []
