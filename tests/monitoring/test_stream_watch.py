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
from monitoring.reference_window import Reference
from monitoring.signals import Signal, Verdict
from monitoring.stream_watch import WATCHES as SAVED_AS
from monitoring.stream_watch import StreamWatches, WatchSettings
from monitoring.watch_state import Look
from monitoring.windows import WindowSet

TREE = load()
SETTINGS = WatchSettings(
    window_predictions=2000, window_labelled=800, pin_predictions=2000, pin_labelled=2000, pin_growth=1
)
GROWING = replace(SETTINGS, pin_predictions=1000, pin_labelled=800, pin_growth=3)
REVISION = replace(POLICY, revision=2, temperature=1.5)
REVISED = StreamKey("1", REVISION.name, "champion")


LIMITS = Limits()


class Watched:
    """A journey without a log: chunks are saved, taken over and shown to the windows."""

    def __init__(
        self,
        settings: WatchSettings = SETTINGS,
        sources: DrawnSources | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        self.saved: dict[str, bytes] = {}
        self.sources = sources or DrawnSources({POLICY.name: POLICY, REVISION.name: REVISION})
        self.windows = WindowSet(limits)
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

    @property
    def reference(self) -> Reference:
        """As it was saved."""
        return Reference.from_bytes(self.saved["reference/1"])


def fired(assessment: Assessment) -> list[str]:
    """Diagnoses of one walk."""
    return [one.diagnosis for one in walk(TREE, assessment.signals) if one.outcome is Outcome.FIRED]


FIRST, GROWN = (1000, 800), (3000, 2400)


def size_of(reference: Reference) -> tuple[int, int]:
    """Predictions and labels."""
    return reference.profile.n, len(reference.labelled)


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


class TestGrowth:
    """The reference of 1,000 predictions and 800 labels is pinned again, once, over three times as many."""

    @pytest.fixture
    def growing(self, stream: DrawnStream) -> Watched:
        """A row short of it."""
        watched = Watched(GROWING)
        chunks = [stream.draw(1000), stream.draw(1000), stream.draw(999)]
        watched.take(*chunks)
        assert size_of(watched.reference) == FIRST
        return watched

    def test_quiet_stream_is_pinned_over_more(self, growing: Watched, stream: DrawnStream) -> None:
        """Over its first rows, whatever else is held; it is compared with them from then on, and evidence is anew."""
        before = growing.assess().signals["accuracy"].reference
        growing.take(stream.draw(500))
        assert size_of(growing.reference) == GROWN
        numbers = growing.reference.labelled["number"]
        assert (numbers[0], numbers[-1]) == (1, 2400)
        scope = growing.reference.labelled[~growing.reference.labelled["truth"][:, -1]]
        growing.take(stream.draw(300))
        assert growing.assess().signals["accuracy"].reference == pytest.approx(float(scope["is_correct"].mean()))
        assert growing.assess().signals["accuracy"].reference != before
        assert growing.watches._streams[KEY].evidence["total_p95_ms"].rows == 300

    def test_it_grows_once(self, growing: Watched, stream: DrawnStream) -> None:
        """However much comes, and also after a restart of the process, which remembers by its size."""
        growing.take(stream.draw(1))
        grown = growing.saved["reference/1"]
        assert size_of(growing.reference) == GROWN
        growing.take(stream.draw(4000))
        growing.resume()
        growing.take(stream.draw(1000))
        assert growing.saved["reference/1"] == grown

    def test_growth_survives_a_restart_of_the_process(self, growing: Watched, stream: DrawnStream) -> None:
        """Killed before and after it, it comes to the same reference and the same evidence."""
        twin = Watched(GROWING)
        other = DrawnStream(np.random.default_rng(5))
        twin.take(other.draw(1000), other.draw(1000), other.draw(999))
        for rows in (400, 700):
            growing.resume()
            growing.take(stream.draw(rows))
            twin.take(other.draw(rows))
        assert size_of(twin.reference) == GROWN
        assert growing.saved == twin.saved

    def test_it_waits_while_something_is_detected(self, growing: Watched, stream: DrawnStream) -> None:
        """A change that has been found is not made a part of it; once that has passed the first rows still do."""
        growing.take(stream.draw(600, Change(delay_ms=8.0)), stream.draw(400))
        assert growing.watches.detected(KEY) == {"total_p95_ms"}
        assert size_of(growing.reference) == FIRST
        growing.take(stream.draw(2500))
        growing.assess()
        assert growing.watches.detected(KEY) == frozenset()
        growing.take(stream.draw(1))
        assert size_of(growing.reference) == GROWN
        assert growing.reference.latencies_ms[:2999, -1].mean() < 4.0

    @pytest.mark.parametrize(
        ("name", "verdict", "expected"),
        [
            ("embedding_mmd", Verdict.BREACHED, FIRST),
            ("embedding_mmd", Verdict.OK, GROWN),
            ("queue_share_of_delay", Verdict.BREACHED, GROWN),
        ],
    )
    def test_it_waits_while_the_embeddings_are_breached(
        self, growing: Watched, stream: DrawnStream, name: str, verdict: Verdict, expected: tuple[int, int]
    ) -> None:
        """They fire a branch by a look alone; what is only asked further down says nothing by itself."""
        look = Look(Signal(name, 0.1, 0.1, 0.1, 256, verdict, 0.0, 0.005), 2999)
        growing.watches._streams = {KEY: replace(growing.watches._streams[KEY], looks={name: look})}
        growing.take(stream.draw(500))
        assert size_of(growing.reference) == expected

    @pytest.mark.parametrize(
        ("limits", "expected"),
        [(Limits(recent=3500), FIRST), (Limits(labelled=3500), FIRST), (Limits(recent=4200, labelled=4200), GROWN)],
    )
    def test_rows_that_were_let_go_are_not_replaced_by_later_ones(
        self, stream: DrawnStream, limits: Limits, expected: tuple[int, int]
    ) -> None:
        """What is held must begin with what was pinned, predictions and labels."""
        watched = Watched(GROWING, limits=limits)
        watched.take(stream.draw(1000))
        watched.take(stream.draw(3000), pins=False)
        watched.take(stream.draw(200))
        assert size_of(watched.reference) == expected

    def test_remedy_ends_it(self, growing: Watched, stream: DrawnStream) -> None:
        """What was before it is another service's behaviour than what came after."""
        growing.restart()
        growing.take(stream.draw(4000))
        assert size_of(growing.reference) == FIRST

    def test_what_began_anew_before_the_pin_does_not(self, stream: DrawnStream) -> None:
        """A promotion is noticed some seconds late, when the new version has answered already."""
        watched = Watched(GROWING)
        watched.take(stream.draw(5))
        watched.restart()
        watched.take(*(stream.draw(1000) for _ in range(3)))
        assert size_of(watched.reference) == GROWN

    def test_reference_of_another_policy_stays(self, growing: Watched) -> None:
        """Whether a revision helped is told by what was before it."""
        stream = DrawnStream(np.random.default_rng(6), key=REVISED, drawn=10_000)
        growing.take(*(stream.draw(1000) for _ in range(5)))
        assert growing.watches.detected(REVISED) == frozenset()
        assert (size_of(growing.reference), growing.reference.key) == (FIRST, KEY)

    def test_growth_of_one_is_none(self, stream: DrawnStream) -> None:
        """The reference stays as it was pinned."""
        watched = Watched(replace(GROWING, pin_growth=1))
        watched.take(*(stream.draw(1000) for _ in range(5)))
        assert size_of(watched.reference) == FIRST


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
