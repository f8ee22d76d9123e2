"""
Which intents an utterance carries, asked of each by itself, and laid into one softmax.

One softmax over the intents says with one number how sure the first one is and whether there is a second: an utterance
that carries two takes probability from both, and so does one that may mean either. Here each intent has a log-odds of
its own (binary relevance, Tsoumakas & Katakis 2007), a small network on the embedding, and the probabilities are laid
out so that the decision can tell the two apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from model_repo.contract.decision import energy, sigmoid
from model_repo.contract.errors import BadManifest
from model_repo.contract.outputs import FloatArray, ModelOutputs

MEMBERSHIP_FILE = "membership.npz"
"""In a version's folder; a version without it serves the logits of its graph."""
CONSIDERED = 0.2
"""Chance of being carried from which on an intent behind the top one has the ``reserve``."""
FULL = 1.3
"""What an intent that is carried for certain has, as a multiple of the ``reserve``: thresholds lie between the two."""
NEXT_AT_MOST = 0.49
"""Of what the top one and the next have together: the top one stays the top one, also in another engine's rounding."""
SMALLEST = 1e-6
"""Of a probability, whose logarithm must be finite."""


@dataclass(frozen=True)
class MembershipHead:
    """One hidden layer of U rectified units on an embedding of H, and a log-odds for each of K intents; fp32."""

    hidden_weights: FloatArray
    """(H, U)"""
    hidden_bias: FloatArray
    """(U,)"""
    weights: FloatArray
    """(U, K)"""
    bias: FloatArray
    """(K,)"""
    reserve: float
    """
    Probability that an intent behind the top one gets at most unless it is considered to be carried, in (0, 1 / K].
    Of an unsure top one what is left is spread over all others, below this, so that none is accepted for it.
    """

    def __post_init__(self) -> None:
        shapes = [np.shape(part) for part in (self.hidden_weights, self.hidden_bias, self.weights, self.bias)]
        hidden, units = shapes[0] if len(shapes[0]) == 2 else (0, 0)
        intents = shapes[3][0] if len(shapes[3]) == 1 else 0
        if shapes != [(hidden, units), (units,), (units, intents), (intents,)] or min(hidden, units) < 1 or intents < 2:
            raise BadManifest(f"{MEMBERSHIP_FILE}: weights and biases of shapes {shapes} do not fit together")
        if not 0.0 < self.reserve <= 1.0 / intents:
            raise BadManifest(f"{MEMBERSHIP_FILE}: reserve must be in (0, 1/{intents}], got {self.reserve}")

    def memberships(self, embeddings: FloatArray) -> FloatArray:
        """(n, K) chance of each intent to be carried, from (n, H)."""
        units = np.maximum(np.asarray(embeddings, dtype=np.float32) @ self.hidden_weights + self.hidden_bias, 0.0)
        return sigmoid(units @ self.weights + self.bias)

    def applied(self, outputs: ModelOutputs) -> ModelOutputs:
        """The same with logits whose softmax is ``laid_out``, and whose energy at temperature 1 is that of before."""
        probabilities = laid_out(self.memberships(outputs.embeddings), self.reserve)
        logits = np.log(np.maximum(probabilities, SMALLEST)) - energy(outputs.logits)[:, None]
        return replace(outputs, logits=logits.astype(np.float32))

    def to_arrays(self) -> dict[str, Any]:
        """As ``np.savez`` takes it; half precision, which moves a log-odds by 0.001 or so."""
        arrays = {one.name: np.asarray(getattr(self, one.name)) for one in fields(self)}
        return {name: array.astype(np.float64 if name == "reserve" else np.float16) for name, array in arrays.items()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, Any]) -> "MembershipHead":
        """Inverse of ``to_arrays``; raises BadManifest naming what is missing, misshapen or not finite."""
        named: dict[str, Any] = {}
        for one in fields(MembershipHead):
            if one.name not in arrays:
                raise BadManifest(f"{MEMBERSHIP_FILE} lacks {one.name}")
            named[one.name] = np.asarray(arrays[one.name], dtype=np.float32)
            if not np.isfinite(named[one.name]).all():
                raise BadManifest(f"{MEMBERSHIP_FILE}: {one.name} is not finite")
        return MembershipHead(**{**named, "reserve": float(np.reshape(arrays["reserve"], ()))})


def laid_out(memberships: FloatArray, reserve: float) -> FloatArray:
    """
    (n, K) probabilities that sum to 1, from the chance of each intent to be carried (n, K).

    The top one gets its own chance. Of the others, one that may be carried gets a part of ``FULL`` times the reserve
    that grows with its chance, the reserve from ``CONSIDERED`` on, at the cost of the top one if need be. What is
    left is poured evenly over the others from the bottom up, to the reserve at most, so that the order among those
    it covers is lost. Beyond that it goes to the next one where that is considered, which never overtakes, else to
    the top one.

    >>> laid_out(np.array([[0.99, 0.99, 0.0], [0.6, 0.4, 0.0], [0.9, 0.0, 0.0]]), 0.2).round(2).tolist()
    [[0.74, 0.26, 0.0], [0.6, 0.22, 0.18], [0.9, 0.05, 0.05]]
    """
    n, n_intents = memberships.shape
    rows = np.arange(n)
    order = np.argsort(-memberships, axis=1, kind="stable")
    ranked = memberships[rows[:, None], order]
    top, others = ranked[:, 0], ranked[:, 1:]
    wanted = np.interp(others, [0.0, CONSIDERED, 1.0], [0.0, reserve, FULL * reserve])
    first = np.minimum(top, 1.0 - wanted.sum(axis=1))
    poured = np.maximum(wanted, _level(wanted, 1.0 - first, reserve)[:, None])
    beyond = np.maximum(1.0 - first - poured.sum(axis=1), 0.0)
    most = np.maximum(NEXT_AT_MOST * (first + beyond + poured[:, 0]) - poured[:, 0], 0.0)
    poured[:, 0] += np.where(others[:, 0] >= CONSIDERED, np.minimum(beyond, most), 0.0)
    laid = np.empty((n, n_intents))
    laid[rows[:, None], order] = np.concatenate([1.0 - poured.sum(axis=1, keepdims=True), poured], axis=1)
    return laid


def _level(wanted: FloatArray, total: FloatArray, reserve: float) -> FloatArray:
    """(n,) up to which each row of falling ``wanted`` is filled so that it sums to ``total``; the reserve at most."""
    rising = wanted[:, ::-1]
    after = np.append(rising[:, 1:], np.full((len(rising), 1), np.inf), axis=1)
    above = wanted.sum(axis=1, keepdims=True) - np.cumsum(rising, axis=1)
    levels = (total[:, None] - above) / np.arange(1, rising.shape[1] + 1)
    holds = (levels <= after).argmax(axis=1)
    return np.asarray(np.minimum(levels[np.arange(len(rising)), holds], reserve))
