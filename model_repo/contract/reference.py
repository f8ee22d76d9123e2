"""The reference profile: the distributions that drift is measured against, taken from the calibration split."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_repo.contract.outputs import FloatArray, IntArray

QUANTILES = 257
"""Quantiles kept of each scalar: enough for a KS distance to 0.4 percentage points."""
EMBEDDINGS = 512
"""Embeddings kept, drawn without replacement: what a kernel two-sample test can afford."""


@dataclass(frozen=True)
class ReferenceProfile:
    """What the calibration split looked like to the model. All arrays float32 unless said."""

    n: int
    energy_quantiles: FloatArray
    """(QUANTILES,), equally spaced probabilities 0..1, in-scope and ood together."""
    confidence_quantiles: FloatArray
    """(QUANTILES,), calibrated probability of the top intent."""
    length_quantiles: FloatArray
    """(QUANTILES,), tokens an utterance."""
    label_counts: IntArray
    """(K + 1,), main labels, ood last."""
    confusion: IntArray
    """(K + 1, K + 1), true main label by decided main label, ood last: what BBSE needs."""
    lang_counts: IntArray
    """(3,), in the order of labels.LANGUAGES."""
    embeddings: FloatArray
    """(m, H), a seeded sample."""

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For ``numpy.savez``."""
        arrays: dict[str, np.ndarray] = {"n": np.array(self.n)}
        for name in self.__dataclass_fields__:
            if name != "n":
                arrays[name] = np.asarray(getattr(self, name))
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "ReferenceProfile":
        """Inverse of ``to_arrays``; raises KeyError for a missing array."""
        fields: dict[str, Any] = {name: arrays[name] for name in ReferenceProfile.__dataclass_fields__}
        return ReferenceProfile(**{**fields, "n": int(fields["n"])})


def quantiles(values: FloatArray) -> FloatArray:
    """
    Equally spaced quantiles, minimum to maximum.

    >>> quantiles(np.array([0.0, 1.0]))[[0, 128, 256]].tolist()
    [0.0, 0.5, 1.0]
    """
    return np.quantile(values, np.linspace(0.0, 1.0, QUANTILES)).astype(np.float32)
