"""
Streams of real text: messages drawn with replacement in the shares of the traffic, answered by one version, each with
its label right after it. Nothing is wrong with one but what its ``Phase`` says.

Shares of the intents are those that the taxonomy gives; of the messages of an intent a few are from other shops, and
of those that are ood, the most are from elsewhere. Latencies are drawn from recorded ones.
"""

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from model_repo.contract.calibration_error import bin_counts, equal_width_edges, expected_calibration_error
from model_repo.contract.decision import decide, softmax
from model_repo.contract.labels import OOD
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray
from model_repo.contract.policy import Policy
from monitoring.label_join import StreamJoined
from monitoring.observations import Embeddings, Records, StreamKey, labelled_dtype, prediction_dtype
from monitoring.replay_text import CLINC150, CUT, HINT3, MULTIDOGO, OWN, Corpus

TRAFFIC: Mapping[str, float] = {
    "product_discovery": 0.22,
    "product_question": 0.15,
    "recommendation": 0.18,
    "faq": 0.08,
    "order_tracking": 0.12,
    "return_request": 0.07,
    "promotion": 0.05,
    "checkout_help": 0.04,
    "escalation": 0.03,
    "chitchat": 0.06,
}
"""By main intent; the taxonomy's shares of traffic before what is ood comes to it."""
OOD_SHARE = 0.05
OTHER_SHOPS = 0.04
"""Of the messages of an intent."""
OOD_PARTS: Mapping[str, float] = {OWN: 0.4, CLINC150: 0.3, MULTIDOGO: 0.3}
CHANNELS = np.array([b"web", b"app", b"mail"])
CHANNEL_SHARES = (0.6, 0.25, 0.15)
BROKEN_CHANNEL = b"app"
EMBEDDED_SHARE = 0.1
"""The service's default."""
BEGAN = 1_700_000_000.0
MOST_NEW = 0.10
"""Of the traffic, what a new intent grows to."""


@dataclass(frozen=True)
class Phase:
    """How a stream is drawn for a while."""

    weights: FloatArray
    """(n,) of each message of the corpus; sums to 1."""
    table: Records
    """(n,) of ``labelled_dtype``: the decision on each message, and its label."""
    key: StreamKey
    delays_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Added to every request, in the order of ``latency.STAGES``."""
    cut_share: float = 0.0
    """Of the messages of BROKEN_CHANNEL, those that arrive cut."""
    new: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Messages of an intent that comes up."""
    grows_over: int = 1
    """Rows until that has grown from nothing to MOST_NEW."""
    has_labels: bool = True


@dataclass
class ReplayedStream:
    """Draws one stretch after the other; prediction numbers go on."""

    corpus: Corpus
    latencies_ms: FloatArray
    """(m, 3) recorded ones, in the order of ``latency.STAGES``."""
    rng: np.random.Generator
    drawn: int = 0

    def draw(self, n: int, phase: Phase, since: int = 0) -> tuple[StreamJoined, IntArray]:
        """The next n predictions, and which messages they are; ``since`` rows were drawn in this phase before."""
        channels = self.rng.choice(len(CHANNELS), n, p=CHANNEL_SHARES)
        messages = self._messages(n, phase, channels, since)
        rows = phase.table[messages]
        rows["number"] = self.drawn + 1 + np.arange(n)
        self.drawn += n
        rows["at"] = rows["label_at"] = BEGAN + rows["number"]
        rows["channel"] = CHANNELS[channels]
        times = self.latencies_ms[self.rng.integers(0, len(self.latencies_ms), n)] + phase.delays_ms
        rows["tokenize_ms"], rows["queue_ms"], rows["inference_ms"] = times.T
        rows["total_ms"] = times.sum(axis=1)
        predictions = np.zeros(n, dtype=prediction_dtype(len(self.corpus.taxonomy.intents)))
        for name in predictions.dtype.names or ():
            predictions[name] = rows[name]
        embedded = np.flatnonzero(self.rng.random(n) < EMBEDDED_SHARE)
        vectors = self.corpus.outputs.embeddings[messages[embedded]].astype(np.float16)
        embeddings = Embeddings(rows["number"][embedded].copy(), vectors)
        labelled = rows if phase.has_labels else rows[:0]
        joined = StreamJoined(
            phase.key, self.corpus.taxonomy, predictions, embeddings, labelled, rows[:0], 0, Counter()
        )
        return joined, messages

    def copy(self) -> "ReplayedStream":
        """Goes on as this one would, without moving it."""
        return replace(self, rng=deepcopy(self.rng))

    def _messages(self, n: int, phase: Phase, channels: IntArray, since: int) -> IntArray:
        cumulated = np.cumsum(phase.weights)
        messages = np.searchsorted(cumulated / cumulated[-1], self.rng.random(n), side="right")
        is_cut = (CHANNELS[channels] == BROKEN_CHANNEL) & (self.rng.random(n) < phase.cut_share)
        messages = np.where(is_cut, cut_of(self.corpus)[messages], messages)
        if len(phase.new):
            share = MOST_NEW * np.minimum(1.0, (since + np.arange(n)) / phase.grows_over)
            is_new = self.rng.random(n) < share
            messages = np.where(is_new, self.rng.choice(phase.new, n), messages)
        return messages


def quiet(corpus: Corpus, policy: Policy) -> Phase:
    """Ordinary traffic under a policy."""
    truth = corpus.truth
    return Phase(
        weights=traffic(corpus, TRAFFIC),
        table=table_of(corpus, policy, truth),
        key=StreamKey(policy.version, policy.name, "champion"),
    )


def traffic(corpus: Corpus, shares: Mapping[str, float]) -> FloatArray:
    """(n,) weight of each message; raises KeyError for an intent without a share."""
    weights = np.zeros(len(corpus))
    for position, intent in enumerate(corpus.taxonomy.intents):
        own, others = (_of_main(corpus, position, part) for part in (OWN, HINT3))
        share = shares[intent] * (1.0 - OOD_SHARE)
        of_others = OTHER_SHOPS * share if len(others) else 0.0
        weights[others] = of_others / max(1, len(others))
        weights[own] = (share - of_others) / len(own)
    for part, share in OOD_PARTS.items():
        rows = _of_main(corpus, len(corpus.taxonomy.intents), part)
        weights[rows] = OOD_SHARE * share / len(rows)
    return np.asarray(weights / weights.sum())


def table_of(corpus: Corpus, policy: Policy, truth: BoolArray) -> Records:
    """What the events of each message say, but for number, times and channel; ``truth`` (n, K + 1) is the label."""
    intents = corpus.taxonomy.intents
    decisions = decide(corpus.outputs, policy)
    rows = np.zeros(len(corpus), dtype=labelled_dtype(len(intents)))
    rows["logits"], rows["accepted"], rows["top"] = corpus.outputs.logits, decisions.is_accepted, decisions.top
    rows["confidence"] = decisions.probabilities.max(axis=1)
    rows["energy"], rows["is_ood"] = decisions.energies, decisions.is_ood
    rows["is_age_sensitive"] = decisions.is_age_sensitive
    high = [corpus.taxonomy.index(name) for name in corpus.taxonomy.high_risk]
    rows["is_high_risk"] = decisions.is_accepted[:, high].any(axis=1) | decisions.is_age_sensitive
    rows["lang"], rows["n_tokens"] = corpus.lang, corpus.n_tokens
    rows["is_labelled"] = True
    return with_truth(rows, truth)


def with_truth(table: Records, truth: BoolArray) -> Records:
    """Under other labels."""
    rows = table.copy()
    rows["truth"] = truth
    rows["is_correct"] = truth[np.arange(len(rows)), rows["top"]]
    return rows


def accuracy(weights: FloatArray, table: Records) -> float:
    """In-scope accuracy of the traffic."""
    scope = weights * ~table["truth"][:, -1]
    return float((scope * table["is_correct"]).sum() / scope.sum())


def ece(weights: FloatArray, table: Records, confidence: FloatArray | None = None) -> float:
    """In-scope calibration error of the traffic, 15 bins of equal width."""
    scope = ~table["truth"][:, -1] & (weights > 0)
    sure = (table["confidence"] if confidence is None else confidence)[scope]
    scaled = weights[scope] / weights[scope].sum() * scope.sum()
    bins = bin_counts(sure, table["is_correct"][scope], equal_width_edges(), scaled)
    return float(expected_calibration_error(bins))


def relabelled(phase: Phase, corpus: Corpus, lost: float, rng: np.random.Generator, intent: int | None = None) -> Phase:
    """
    So many messages change their main label for good that the in-scope accuracy falls by ``lost``.

    With ``intent`` only those of one main intent do, and all go to one other; else any, each to one of its own.
    """
    candidates = corpus.of(OWN) if intent is None else _of_main(corpus, intent, OWN)
    candidates = rng.permutation(candidates[corpus.main[candidates] < len(corpus.taxonomy.intents)])
    steps = rng.integers(1, len(corpus.taxonomy.intents), len(candidates) if intent is None else 1)
    others = (corpus.main[candidates] + steps) % len(corpus.taxonomy.intents)
    truth = phase.table["truth"].copy()
    truth[candidates, corpus.main[candidates]] = False
    truth[candidates, others] = True
    changed = with_truth(phase.table, truth)
    before, after = (rows["is_correct"][candidates].astype(np.float64) for rows in (phase.table, changed))
    losses = np.cumsum(phase.weights[candidates] * (before - after)) / _scope_weight(phase)
    n = int(np.searchsorted(np.maximum.accumulate(losses), lost)) + 1
    if n > len(candidates):
        raise ValueError(f"all {len(candidates)} messages under another label lose {losses[-1]:.3f}, not {lost}")
    chosen = phase.table["truth"].copy()
    chosen[candidates[:n]] = truth[candidates[:n]]
    return replace(phase, table=with_truth(phase.table, chosen))


def cut(phase: Phase, corpus: Corpus, lost: float) -> Phase:
    """So many messages of BROKEN_CHANNEL arrive cut that the in-scope accuracy of all traffic falls by ``lost``."""
    own = corpus.of(OWN)
    correct = phase.table["is_correct"].astype(np.float64)
    weights = (phase.weights * ~phase.table["truth"][:, -1])[own]
    gap = float((weights * (correct[own] - correct[cut_of(corpus)[own]])).sum()) / _scope_weight(phase)
    channel = CHANNEL_SHARES[CHANNELS.tolist().index(BROKEN_CHANNEL)]
    if gap * channel < lost:
        raise ValueError(f"all messages of the channel cut lose {gap * channel:.3f}, not {lost}")
    return replace(phase, cut_share=lost / (gap * channel))


def too_sure(phase: Phase, corpus: Corpus, policy: Policy, added: float) -> tuple[Phase, Policy]:
    """
    Another revision of the policy, whose temperature is so low that the calibration error rises by ``added``.

    Raises ValueError for a policy that is so unsure of itself that a lower temperature would mend it first.
    """
    before = ece(phase.weights, phase.table)
    low, high = 0.05 * policy.temperature, policy.temperature
    for _ in range(50):
        middle = (low + high) / 2.0
        sure = softmax(corpus.outputs.logits, middle).max(axis=1)
        low, high = (middle, high) if ece(phase.weights, phase.table, sure) - before > added else (low, middle)
    revision = replace(policy, revision=policy.revision + 1, temperature=(low + high) / 2.0)
    table = table_of(corpus, revision, corpus.truth)
    found = ece(phase.weights, table) - before
    if abs(found - added) > added / 10.0:
        raise ValueError(f"no temperature adds {added} to a calibration error of {before:.3f}; the nearest {found:.3f}")
    return replace(phase, table=table, key=replace(phase.key, policy=revision.name)), revision


def moved(phase: Phase, corpus: Corpus, source: str, target: str, share: float) -> Phase:
    """That share of all traffic asks for the one intent instead of the other."""
    share /= 1.0 - OOD_SHARE
    shares = {**TRAFFIC, source: TRAFFIC[source] - share, target: TRAFFIC[target] + share}
    if shares[source] < 0:
        raise ValueError(f"{source} has {TRAFFIC[source]:.0%} of the traffic, less than {share:.0%}")
    return replace(phase, weights=traffic(corpus, shares))


def joined_by(phase: Phase, corpus: Corpus, part: str, grows_over: int, is_filed: bool) -> Phase:
    """A new intent comes up; people label it ood, or file it under one of ours."""
    rows = corpus.of(part)
    table = phase.table
    if is_filed:
        truth = table["truth"].copy()
        truth[rows] = False
        truth[rows, corpus.filed[rows]] = True
        table = with_truth(table, truth)
    return replace(phase, table=table, new=rows, grows_over=grows_over)


def cut_of(corpus: Corpus) -> NDArray[np.int64]:
    """(n,) which message each is when it arrives cut; others stay themselves."""
    rows = np.arange(len(corpus))
    rows[corpus.of(OWN)] = corpus.of(CUT)
    return rows


def main_labels(corpus: Corpus) -> tuple[str, ...]:
    """As ``Corpus.main`` counts them."""
    return (*corpus.taxonomy.intents, OOD)


def _of_main(corpus: Corpus, label: int, part: str) -> IntArray:
    rows = corpus.of(part)
    return np.asarray(rows[corpus.main[rows] == label])


def _scope_weight(phase: Phase) -> float:
    return float(phase.weights[~phase.table["truth"][:, -1]].sum())
