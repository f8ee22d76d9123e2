"""
The temperature that makes the served probability as often right as it says, and thresholds that survive another one.

Used when a version is made (on its calibration split) and when it is re-fitted (on labels of production).
"""

import math
from collections.abc import Callable

import numpy as np

from model_repo.contract.decision import sigmoid, softmax
from model_repo.contract.errors import CannotMeasure
from model_repo.contract.metrics import nll, shares, top_in_set
from model_repo.contract.outputs import BoolArray, FloatArray

TEMPERATURES = (0.05, 20.0)
"""Nothing outside is tried: a fit that ends at one of them has not found a minimum."""
GRID = 25
"""Places looked at before the search narrows down, a factor of 1.28 apart: no second dip is taken for the lowest."""
PRECISION = 1e-7
"""Of the logarithm of the temperature."""
SMALLEST = 1e-12
"""A threshold is above zero."""
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def fit_temperature(logits: FloatArray, targets: BoolArray) -> float:
    """
    The T whose top probability has the lowest NLL for the event that the top intent is one of those carried.

        minimise over T   -mean[ c log p + (1 - c) log(1 - p) ],   p = max softmax(z / T),  c = 1 when top is carried

    With one intent an utterance this is the usual temperature scaling (Guo et al. 2017) up to how a mistake's
    probability is spread over the other intents; with several it fits what the served probability is read as.
    Both arrays (n, K), rows in scope; raises CannotMeasure when there is none. Costs about 60 softmaxes of them all.

    >>> rows = np.array([[2.0, 0.0]] * 4)
    >>> three_right = np.array([[True, False]] * 3 + [[False, True]])
    >>> round(fit_temperature(rows, three_right), 4)  # sigmoid(2 / T) = 3 / 4
    1.8205
    """
    if len(logits) == 0:
        raise CannotMeasure("a temperature needs in-scope utterances, got none")
    scaled = np.asarray(logits, dtype=np.float64)
    is_correct = top_in_set(scaled.argmax(axis=-1), targets)

    def loss(log_temperature: float) -> float:
        return top_nll(scaled, is_correct, math.exp(log_temperature))

    return math.exp(_minimum(loss, math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1])))


def is_at_a_bound(temperature: float) -> bool:
    """
    Whether a fit ended where nothing beyond is tried.

    >>> is_at_a_bound(fit_temperature(np.array([[2.0, 0.0]]), np.array([[True, True]])))
    True
    """
    low, high = (abs(math.log(temperature / bound)) for bound in TEMPERATURES)
    return min(low, high) < 1e-3


def fit_shares_temperature(logits: FloatArray, targets: BoolArray) -> float:
    """
    The T of the lowest cross-entropy with even shares of the intents that a row carries: -mean sum_k q_k log p_k.

    For a network that was taught to share its probability among them, and whose top intent is hardly ever wrong:
    ``fit_temperature`` then ends at a bound, where the top takes all and nothing of the others is left.

    >>> round(fit_shares_temperature(np.array([[1.0, 0.0]] * 4), np.array([[True, False]] * 3 + [[False, True]])), 4)
    0.9102
    """
    if len(logits) == 0:
        raise CannotMeasure("a temperature needs in-scope utterances, got none")
    scaled, shared = np.asarray(logits, dtype=np.float64), shares(targets)

    def loss(log_temperature: float) -> float:
        return float(nll(softmax(scaled, math.exp(log_temperature)), shared))

    return math.exp(_minimum(loss, math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1])))


def top_nll(logits: FloatArray, is_correct: BoolArray, temperature: float) -> float:
    """
    What ``fit_temperature`` minimises, in nats a row; a probability of zero counts as 1e-12.

    >>> round(top_nll(np.array([[2.0, 0.0]]), np.array([True]), 2.0), 4)
    0.3133
    """
    top = softmax(logits, temperature).max(axis=-1)
    chance = np.where(is_correct, top, 1.0 - top)
    return float(-np.log(np.maximum(chance, 1e-12)).mean())


def moved_thresholds(logits: FloatArray, thresholds: FloatArray, before: float, after: float) -> FloatArray:
    """
    (K,) thresholds under the temperature ``after`` that accept what ``thresholds`` accepted under ``before``.

    ``logits`` (n, K) are rows that were decided in scope. A change of temperature moves each probability, and by how
    much depends on its whole row, so that no threshold keeps the decision of every possible row. Each intent takes the
    one that changes the fewest of these; of those that do equally well the one nearest to

        odds(tau') = odds(tau)^(before / after)

    which is exact for a row of two intents, and what an intent without rows is given. The top intent is accepted
    whatever its threshold, so only the others count; the order within a row stays, and with it the limit of three.

    >>> rows, thresholds = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([0.2, 0.2])
    >>> moved_thresholds(rows, thresholds, before=1.0, after=2.0).round(4).tolist()
    [0.3333, 0.3333]
    """
    if logits.shape[1:] != thresholds.shape:
        raise CannotMeasure(f"logits {logits.shape} and thresholds {thresholds.shape} do not fit")
    with np.errstate(divide="ignore"):
        odds = np.log(thresholds) - np.log1p(-np.asarray(thresholds, dtype=np.float64))
    aims = sigmoid(before / after * odds)
    was_accepted = softmax(logits, before) >= thresholds
    probabilities = softmax(logits, after)
    behind = np.arange(len(thresholds)) != logits.argmax(axis=-1)[:, None]
    columns = range(len(thresholds))
    return np.array([_cut(probabilities[behind[:, k], k], was_accepted[behind[:, k], k], aims[k]) for k in columns])


def _cut(probabilities: FloatArray, is_accepted: BoolArray, aim: float) -> float:
    """The threshold in (0, 1] that disagrees with the fewest rows, the nearest to ``aim`` of them."""
    order = np.argsort(probabilities, kind="stable")
    rising, taken = probabilities[order], is_accepted[order]
    # Threshold i lies above the first i rows: it loses what was accepted of them and gains what was not of the others.
    lost = np.concatenate([[0], np.cumsum(taken)])
    gained = (~taken).sum() - np.concatenate([[0], np.cumsum(~taken)])
    low, high = np.concatenate([[0.0], rising]), np.concatenate([rising, [1.0]])
    wrong = np.where(high > low, lost + gained, len(rising) + 1)
    best = np.flatnonzero(wrong == wrong.min())
    # Inside the gap, away from its ends: another engine's rounding must not move the rows that bound it.
    margin = np.minimum(1e-6, (high[best] - low[best]) / 2.0)
    nearest = np.clip(aim, low[best] + margin, high[best] - np.where(high[best] < 1.0, margin, 0.0))
    return max(float(nearest[np.abs(nearest - aim).argmin()]), SMALLEST)


def _minimum(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where a function is lowest: the best of a grid, then golden-section search around it."""
    grid = np.linspace(low, high, GRID)
    best = int(np.argmin([loss(float(place)) for place in grid]))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, GRID - 1)])
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > PRECISION:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    return (low + high) / 2.0
