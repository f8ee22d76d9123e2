"""
What happens to replayed streams, and what the tree should then say: the changes that are measured.

A stream is pinned over its first stretch, goes on quietly, and then changes. Streams of one seed are the same up to the
change, and the same for every watcher.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from model_repo.contract.outputs import FloatArray, IntArray
from model_repo.contract.policy import Policy
from monitoring.label_join import StreamJoined
from monitoring.replay_streams import (
    TRAFFIC,
    Phase,
    ReplayedStream,
    cut,
    joined_by,
    moved,
    relabelled,
    too_sure,
)
from monitoring.replay_text import NEW, Corpus
from monitoring.stream_watch import WatchSettings

PINNED = max(WatchSettings.pin_predictions, WatchSettings.pin_labelled)
"""The rows of the reference, as the sidecar pins them by default: every row has its label."""
QUIET_BEFORE = 2_000
"""Rows after the pinned stretch and before the change, unless told otherwise: the reference has not grown by then."""
CHUNK = 250
"""Rows between two walks."""
LOST_ACCURACY, ADDED_ECE, ADDED_MS, MOVED_PRIOR = 0.03, 0.03, 4.0, 0.10
LARGE = 0.07
"""Share of the traffic from which on an intent can lose three points of all accuracy."""
STAGE_DIAGNOSES = ("tune_tokenizer", "tune_batching", "reload_model_graph")
"""In the order of ``latency.STAGES``."""


@dataclass(frozen=True)
class Replay:
    """What streams are drawn from."""

    corpus: Corpus
    policy: Policy
    latencies_ms: FloatArray
    """(m, 3) recorded ones, in the order of ``latency.STAGES``."""
    quiet: Phase


@dataclass(frozen=True)
class Changed:
    """One change, as one run has it."""

    phase: Phase
    diagnosis: str
    """What the tree should come to."""
    policy: Policy
    """In force from then on."""
    words: str = ""
    """What was chosen for this run."""
    also: tuple[str, ...] = ()
    """Diagnoses that are as right as ``diagnosis``."""

    @property
    def diagnoses(self) -> tuple[str, ...]:
        """All that are right."""
        return (self.diagnosis, *self.also)

    @property
    def branches(self) -> frozenset[str]:
        """Those of the tree that they lie on."""
        return frozenset(diagnosis.split("/", 1)[0] for diagnosis in self.diagnoses)


@dataclass(frozen=True)
class Change:
    """A kind of change."""

    name: str
    words: str
    allowed: int
    """Rows that it should be diagnosed within."""
    make: Callable[[Replay, Phase, np.random.Generator], Changed]


@dataclass(frozen=True)
class Stretch:
    """A chunk of a stream."""

    joined: StreamJoined
    messages: IntArray
    """Positions in the corpus."""
    part: str
    """``pinned``, ``quiet`` or ``changed``."""


def stream_of(replay: Replay, seed: int) -> ReplayedStream:
    """Before anything is drawn."""
    return ReplayedStream(replay.corpus, replay.latencies_ms, np.random.default_rng(seed))


def pinned(stream: ReplayedStream, replay: Replay) -> Stretch:
    """The first stretch of a stream, at once."""
    return Stretch(*stream.draw(PINNED, replay.quiet), "pinned")


def stretches(stream: ReplayedStream, phase: Phase, rows: int, part: str) -> Iterator[Stretch]:
    """So many rows of one phase, chunk by chunk."""
    for since in range(0, rows, CHUNK):
        yield Stretch(*stream.draw(CHUNK, phase, since), part)


def changed_of(change: Change, replay: Replay, seed: int) -> Changed:
    """The change as the stream of one seed has it."""
    return change.make(replay, replay.quiet, np.random.default_rng([seed, 1]))


def _labels(replay: Replay, phase: Phase, rng: np.random.Generator) -> Changed:
    after = relabelled(phase, replay.corpus, LOST_ACCURACY, rng)
    return Changed(after, "accuracy_down/retrain", replay.policy)


def _labels_of_an_intent(replay: Replay, phase: Phase, rng: np.random.Generator) -> Changed:
    intent = str(rng.choice([name for name, share in TRAFFIC.items() if share >= LARGE]))
    position = replay.corpus.taxonomy.index(intent)
    after = relabelled(phase, replay.corpus, LOST_ACCURACY, rng, position)
    return Changed(after, "accuracy_down/relabel_segment", replay.policy, intent)


def _cut_channel(replay: Replay, phase: Phase, _: np.random.Generator) -> Changed:
    after = cut(phase, replay.corpus, LOST_ACCURACY)
    return Changed(after, "accuracy_down/relabel_segment", replay.policy, f"{after.cut_share:.0%} of the channel")


def _temperature(replay: Replay, phase: Phase, _: np.random.Generator) -> Changed:
    after, policy = too_sure(phase, replay.corpus, replay.policy, ADDED_ECE)
    return Changed(after, "ece_up/refit_calibrator", policy, f"temperature {policy.temperature:.3f}")


def _slower(replay: Replay, phase: Phase, rng: np.random.Generator) -> Changed:
    stage = int(rng.integers(0, 3))
    tokenize, queue, inference = (ADDED_MS if position == stage else 0.0 for position in range(3))
    after = replace(phase, delays_ms=(tokenize, queue, inference))
    return Changed(after, f"latency_up/{STAGE_DIAGNOSES[stage]}", replay.policy)


def _new_intent(grows_over: int, is_filed: bool) -> Callable[[Replay, Phase, np.random.Generator], Changed]:
    def make(replay: Replay, phase: Phase, rng: np.random.Generator) -> Changed:
        parts = replay.corpus.new_intents
        sets = sorted({part.removeprefix(NEW).split("_", 1)[0].split(" ", 1)[0] for part in parts})
        source = str(rng.choice(sets))
        part = str(rng.choice([part for part in parts if part.startswith(NEW + source)]))
        after = joined_by(phase, replay.corpus, part, grows_over, is_filed)
        # Labelled ood it shows in the recall where the model takes it for one of ours, else in what is asked.
        also = () if is_filed else ("unlabelled_drift/sample_for_labels",)
        return Changed(after, "ood_precision_down/discover_intents", replay.policy, part.removeprefix(NEW), also)

    return make


def _priors(replay: Replay, phase: Phase, rng: np.random.Generator) -> Changed:
    source = str(rng.choice([name for name, share in TRAFFIC.items() if share >= MOVED_PRIOR / 0.9]))
    target = str(rng.choice([name for name in TRAFFIC if name != source]))
    after = replace(moved(phase, replay.corpus, source, target, MOVED_PRIOR), has_labels=False)
    return Changed(after, "unlabelled_drift/sample_for_labels", replay.policy, f"{source} to {target}")


CHANGES = (
    Change("labels", "accuracy -3 pp: labels remapped, any intent", 2_500, _labels),
    Change("labels_of_an_intent", "accuracy -3 pp: labels of one intent remapped", 2_500, _labels_of_an_intent),
    Change("cut_channel", "accuracy -3 pp: one channel cuts its messages", 2_500, _cut_channel),
    Change("temperature", "ECE +0.03: a revision of wrong temperature", 2_500, _temperature),
    Change("slower", "P95 +4 ms, in one stage", 2_000, _slower),
    Change("new_fast", "new intent, 0 to 10% over 1,000; labelled ood", 3_000, _new_intent(1_000, False)),
    Change("new_slow", "new intent, 0 to 10% over 3,000; labelled ood", 3_000, _new_intent(3_000, False)),
    Change("new_filed", "new intent, 0 to 10% over 1,000; filed under ours", 3_000, _new_intent(1_000, True)),
    Change("new_filed_slow", "new intent, 0 to 10% over 3,000; filed under ours", 3_000, _new_intent(3_000, True)),
    Change("priors", "priors moved by 10 pp, no labels", 3_000, _priors),
)
