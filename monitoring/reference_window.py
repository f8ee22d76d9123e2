"""
The frozen side of every comparison: the version's own reference profile, or the first stretch of production, pinned.

A profile of the version comes from text that was labelled by hand and has no latencies; a pinned one has seen the
real traffic, and whatever was wrong with it at the time.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.labels import LANGUAGES, Taxonomy
from model_repo.contract.reference import EMBEDDINGS, ReferenceProfile, quantiles
from monitoring.errors import BadState
from monitoring.observations import STAGES, Records, StreamKey, labelled_dtype
from monitoring.windows import Window

_PREFIX = "profile_"


@dataclass(frozen=True)
class Reference:
    """What the current window of one stream is compared with."""

    key: StreamKey
    origin: Literal["version", "production"]
    profile: ReferenceProfile
    labelled: Records
    """Labelled predictions of the pinned stretch; none when the origin is the version."""
    latencies_ms: NDArray[np.float32]
    """(n, 4), in the order of ``observations.STAGES``; (0, 4) when the origin is the version."""

    def to_bytes(self) -> bytes:
        """As it is saved, so that a pinned reference stays pinned over a restart."""
        arrays = {_PREFIX + name: array for name, array in self.profile.to_arrays().items()}
        name = np.array([self.key.version, self.key.policy, self.key.role, self.origin])
        file = BytesIO()
        np.savez_compressed(
            file, allow_pickle=False, name=name, labelled=self.labelled, latencies_ms=self.latencies_ms, **arrays
        )
        return file.getvalue()

    @staticmethod
    def from_bytes(body: bytes) -> "Reference":
        """Inverse of ``to_bytes``; raises BadState."""
        try:
            with np.load(BytesIO(body), allow_pickle=False) as saved:
                version, policy, role, origin = (str(part) for part in saved["name"])
                profile = {name[len(_PREFIX) :]: saved[name] for name in saved.files if name.startswith(_PREFIX)}
                return Reference(
                    key=StreamKey(version, policy, role),
                    origin="production" if origin == "production" else "version",
                    profile=ReferenceProfile.from_arrays(profile),
                    labelled=saved["labelled"],
                    latencies_ms=saved["latencies_ms"],
                )
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as wrong:
            raise BadState(f"the saved reference cannot be read: {wrong!r}") from wrong


def from_version(key: StreamKey, taxonomy: Taxonomy, profile: ReferenceProfile) -> Reference:
    """The reference that a version brings with it."""
    labelled = np.empty(0, dtype=labelled_dtype(len(taxonomy.intents)))
    return Reference(key, "version", profile, labelled, np.empty((0, len(STAGES)), dtype=np.float32))


def pin(window: Window, rng: np.random.Generator) -> Reference:
    """
    A stretch of production as the reference from now on; raises CannotMeasure for one without predictions or labels.

    The profile needs one label an utterance: of several true intents the decided one counts, else the first in the
    order of the taxonomy. Its mix of decisions is that of all predictions, since labels are seldom drawn evenly.
    """
    predictions, labelled = window.predictions, window.labelled
    if len(predictions) == 0 or len(labelled) == 0:
        raise CannotMeasure(f"pinning needs predictions and labels, got {len(predictions)} and {len(labelled)}")
    n_labels = len(window.taxonomy.intents) + 1
    decided = np.where(predictions["is_ood"], n_labels - 1, predictions["top"].astype(np.int64))
    confusion = as_traffic(confusion_of(labelled, n_labels), np.bincount(decided, minlength=n_labels))
    embeddings = window.embeddings.astype(np.float32)
    kept = np.sort(rng.choice(len(embeddings), size=min(EMBEDDINGS, len(embeddings)), replace=False))
    profile = ReferenceProfile(
        n=len(predictions),
        energy_quantiles=quantiles(predictions["energy"]),
        confidence_quantiles=quantiles(predictions["confidence"]),
        length_quantiles=quantiles(predictions["n_tokens"].astype(np.float64)),
        label_counts=confusion.sum(axis=1),
        confusion=confusion,
        lang_counts=np.bincount(predictions["lang"], minlength=len(LANGUAGES)),
        embeddings=embeddings[kept],
    )
    latencies = np.column_stack([predictions[stage] for stage in STAGES])
    return Reference(window.key, "production", profile, labelled, latencies)


def confusion_of(labelled: Records, n_labels: int) -> NDArray[np.int64]:
    """(n_labels, n_labels), true main label by decided main label, ood last in both."""
    top, truth = labelled["top"].astype(np.int64), labelled["truth"]
    true_main = np.where(labelled["is_correct"], top, truth.argmax(axis=1))
    decided = np.where(labelled["is_ood"], n_labels - 1, top)
    counts = np.bincount(true_main * n_labels + decided, minlength=n_labels**2)
    return counts.reshape(n_labels, n_labels)


def as_traffic(confusion: NDArray[np.int64], decided_counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """
    The confusion as if every prediction were labelled: each decided label's column drawn to its count in the traffic.

    Right when labels are drawn by what was decided, at any rate for each. A decided label that no labelled prediction
    has is taken to be right; rounding goes to the largest cell of a column.

    >>> as_traffic(np.array([[9, 0, 0], [1, 5, 0], [0, 0, 0]]), np.array([100, 20, 4])).tolist()
    [[90, 0, 0], [10, 20, 0], [0, 0, 4]]
    """
    unseen = np.diag((confusion.sum(axis=0) == 0).astype(np.int64))
    known = confusion + unseen
    cells = np.floor(known * (decided_counts / known.sum(axis=0))).astype(np.int64)
    cells[known.argmax(axis=0), np.arange(len(known))] += decided_counts - cells.sum(axis=0)
    return np.asarray(cells)
