"""
Streams drawn from a model that is known: calibrated, with eight intents and utterances that are ood. For measurements
and tests of what watches a stream: nothing is wrong with it but what a ``Change`` says.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from model_repo.contract.decision import decide, softmax
from model_repo.contract.errors import FileMissing
from model_repo.contract.labels import LANGUAGES, Taxonomy
from model_repo.contract.outputs import FloatArray, IntArray, ModelOutputs
from model_repo.contract.policy import Policy
from model_repo.contract.reference import ReferenceProfile
from monitoring.label_choice import ChosenLabel, with_labels
from monitoring.label_join import StreamJoined
from monitoring.latency import STAGES
from monitoring.observations import Embeddings, Records, StreamKey, prediction_dtype

TAXONOMY = Taxonomy(tuple(f"intent_{index}" for index in range(8)), frozenset({"intent_3"}))
POLICY = Policy("1", 1, 1.0, (0.4,) * 8, 1.0, -4.0, 0.5, 0.95)
KEY = StreamKey("1", POLICY.name, "champion")
BEGAN = 1_700_000_000.0
HIDDEN = 32
EMBEDDED_SHARE = 0.1
OOD_SHARE = 0.08
CHANNELS = np.array([b"web", b"app", b"mail"])
STAGE_MEANS_MS = (0.1, 0.8, 2.0)
"""In the order of ``latency.STAGES``; each is drawn from a gamma distribution of shape 2."""


@dataclass(frozen=True)
class Change:
    """What happens to a stream; the defaults change nothing."""

    lost_accuracy: float = 0.0
    """Share of right answers whose label turns out to be another, however sure the model was."""
    lost_intent: int | None = None
    """They are lost among the utterances of this intent only; None loses them everywhere."""
    sharpness: float = 1.0
    """The logits times this, after the labels are drawn: above 1 the model is too sure."""
    temperature: float = POLICY.temperature
    """Of the policy that answers. Another one than at first is another revision, hence another stream; below 1 it is
    too sure."""
    delay_ms: float = 0.0
    """Added to the queue of every request."""
    moved_prior: float = 0.0
    """Share of traffic moved from the first intent to the last."""
    ood_share: float = OOD_SHARE
    """Of traffic."""


QUIET = Change()


def revision_of(change: Change) -> Policy:
    """The policy with the change's temperature."""
    return replace(POLICY, revision=POLICY.revision + 1, temperature=change.temperature)


@dataclass
class DrawnSources:
    """What ``stream_watch.Sources`` asks for, of the one version that is drawn from; every mistake costs 1."""

    policies: dict[str, Policy] = field(default_factory=lambda: {POLICY.name: POLICY})
    profiles: dict[str, ReferenceProfile] = field(default_factory=dict)

    def policy(self, version: str, policy_name: str) -> Policy:
        """By its name; raises FileMissing."""
        if policy_name not in self.policies:
            raise FileMissing(f"version {version} has no policy {policy_name}")
        return self.policies[policy_name]

    def profile(self, version: str) -> ReferenceProfile:
        """By its version; raises FileMissing."""
        if version not in self.profiles:
            raise FileMissing(f"version {version} has no profile")
        return self.profiles[version]

    def costs(self, taxonomy: Taxonomy) -> FloatArray:
        """(K + 1, K + 1)."""
        return 1.0 - np.eye(len(taxonomy.intents) + 1)


@dataclass
class DrawnStream:
    """Draws one stretch after the other; prediction numbers go on."""

    rng: np.random.Generator
    key: StreamKey = KEY
    policy: Policy = POLICY
    drawn: int = 0
    centres: FloatArray = field(default_factory=lambda: np.random.default_rng(0).normal(0.0, 1.0, (9, HIDDEN)))

    def draw(self, n: int, change: Change = QUIET) -> StreamJoined:
        """The next n predictions, a second apart, each with its label right after it."""
        policy = self.policy if change.temperature == POLICY.temperature else revision_of(change)
        key = self.key if policy is self.policy else replace(self.key, policy=policy.name)
        true = self._true_labels(n, change)
        logits = self._logits(true)
        is_ood = true == len(TAXONOMY.intents)
        chances = softmax(logits)
        labels = np.minimum((chances.cumsum(axis=1) < self.rng.random((n, 1))).sum(axis=1), len(TAXONOMY.intents) - 1)
        labels = self._lose(labels, chances.argmax(axis=1), change)
        records = self._records(logits * change.sharpness, policy, change)
        chosen = [
            ChosenLabel(str(row), () if out else (TAXONOMY.intents[label],), float(at), "agent")
            for row, (out, label, at) in enumerate(zip(is_ood.tolist(), labels.tolist(), records["at"], strict=True))
        ]
        labelled = with_labels(records, chosen, TAXONOMY)
        embedded = np.flatnonzero(self.rng.random(n) < EMBEDDED_SHARE)
        vectors = self.centres[true[embedded]] + self.rng.normal(0.0, 1.0, (len(embedded), HIDDEN))
        embeddings = Embeddings(records["number"][embedded].copy(), vectors.astype(np.float16))
        return StreamJoined(key, TAXONOMY, records, embeddings, labelled, labelled[:0], 0, Counter())

    def _true_labels(self, n: int, change: Change) -> IntArray:
        """(n,) positions, ood last."""
        intents = len(TAXONOMY.intents)
        shares = np.full(intents + 1, (1.0 - change.ood_share) / intents)
        shares[0] -= change.moved_prior
        shares[-2] += change.moved_prior
        shares[-1] = change.ood_share
        return self.rng.choice(intents + 1, n, p=shares)

    def _logits(self, true: IntArray) -> FloatArray:
        """(n, K): an intent stands out, of an utterance that is ood hardly."""
        n, intents = len(true), len(TAXONOMY.intents)
        logits = self.rng.normal(0.0, 1.3, (n, intents))
        is_ood = true == intents
        standing_out = np.where(is_ood, 0.0, self.rng.normal(6.5, 0.8, n))
        logits[np.arange(n), np.minimum(true, intents - 1)] += standing_out
        return logits

    def _lose(self, labels: IntArray, top: IntArray, change: Change) -> IntArray:
        loses = self.rng.random(len(labels)) < change.lost_accuracy
        if change.lost_intent is not None:
            loses &= labels == change.lost_intent
        other = (top + 1 + self.rng.integers(0, len(TAXONOMY.intents) - 1, len(labels))) % len(TAXONOMY.intents)
        return np.where(loses, other, labels)

    def _records(self, logits: FloatArray, policy: Policy, change: Change) -> Records:
        n = len(logits)
        decisions = decide(ModelOutputs(logits, np.full(n, -9.0), np.empty((n, 0))), policy)
        records = np.zeros(n, dtype=prediction_dtype(len(TAXONOMY.intents)))
        records["number"] = self.drawn + 1 + np.arange(n)
        self.drawn += n
        records["at"] = BEGAN + records["number"]
        records["logits"], records["accepted"] = logits, decisions.is_accepted
        records["confidence"] = decisions.probabilities.max(axis=1)
        records["energy"], records["is_ood"], records["top"] = decisions.energies, decisions.is_ood, decisions.top
        records["is_high_risk"] = decisions.is_accepted[:, [TAXONOMY.index(name) for name in TAXONOMY.high_risk]].any(1)
        records["lang"] = self.rng.choice(len(LANGUAGES), n, p=(0.85, 0.06, 0.09))
        records["channel"] = CHANNELS[self.rng.choice(3, n, p=(0.6, 0.3, 0.1))]
        records["n_tokens"] = 3 + self.rng.poisson(10, n)
        for stage, mean in zip(STAGES, STAGE_MEANS_MS, strict=True):
            records[f"{stage}_ms"] = self.rng.gamma(2.0, mean / 2.0, n)
        records["queue_ms"] += change.delay_ms
        records["total_ms"] = sum(records[f"{stage}_ms"] for stage in STAGES)
        return records
