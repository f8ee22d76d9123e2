"""What a model gives for a batch of utterances."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class ModelOutputs:
    """One forward pass over n utterances, K intents, H hidden units; fp32, one row each."""

    logits: FloatArray
    """(n, K), before calibration."""
    age_logits: FloatArray
    """(n,), log-odds that the utterance is age-sensitive, before calibration."""
    embeddings: FloatArray
    """(n, H), the pooled hidden state that the logits were computed from."""

    def __len__(self) -> int:
        return int(self.logits.shape[0])

    def is_finite(self) -> bool:
        """False when any logit is NaN or infinite: such a batch must not become decisions."""
        return bool(np.isfinite(self.logits).all() and np.isfinite(self.age_logits).all())


def concatenate(parts: list[ModelOutputs]) -> ModelOutputs:
    """The rows of several passes, in order; ``parts`` must not be empty."""
    return ModelOutputs(
        logits=np.concatenate([p.logits for p in parts]),
        age_logits=np.concatenate([p.age_logits for p in parts]),
        embeddings=np.concatenate([p.embeddings for p in parts]),
    )
