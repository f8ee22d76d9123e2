"""
How far confidence is from accuracy, computed from bins that can be added up.

``BinCounts`` of several replicas sum to the bins of all their traffic, so a fleet's calibration error is exact.
Like every measure (see ``metrics``), bins take ``weights`` of shape (B, n) for B resamples at once.
"""

import math
from dataclasses import dataclass

import numpy as np

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.metrics import checked_weights, grouped_sums
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray

BINS = 15
"""As in Guo et al. 2017 and most published figures; more bins raise the bias of the plug-in error."""


@dataclass(frozen=True)
class BinCounts:
    """What calibration errors need to know of each bin; the last axis of each array runs over the bins."""

    count: FloatArray
    correct: FloatArray
    confidence: FloatArray
    """Sum, not mean: sums can be added."""

    def __add__(self, other: "BinCounts") -> "BinCounts":
        """The bins of both together; they must have the same edges, which the caller knows."""
        if self.count.shape != other.count.shape:
            raise CannotMeasure(f"bins differ in shape: {self.count.shape} and {other.count.shape}")
        return BinCounts(self.count + other.count, self.correct + other.correct, self.confidence + other.confidence)


def equal_width_edges(bins: int = BINS) -> FloatArray:
    """
    (bins + 1,) edges from 0 to 1.

    >>> equal_width_edges(4).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    return np.linspace(0.0, 1.0, bins + 1)


def equal_mass_edges(confidence: FloatArray, bins: int = BINS) -> FloatArray:
    """
    Edges from 0 to 1 that put as many rows in each bin; fewer bins when confidences tie.

    An edge lies midway between two neighbours, so that rounding moves no row.

    >>> equal_mass_edges(np.array([0.9, 0.1, 0.2, 0.8]), 2).tolist()
    [0.0, 0.5, 1.0]
    """
    _check_confidence(confidence)
    ordered = np.sort(np.asarray(confidence, dtype=np.float64))
    cuts = np.arange(1, bins) * len(ordered) // bins
    cuts = cuts[(cuts > 0) & (ordered[cuts] > ordered[cuts - 1])]
    return np.unique(np.concatenate([[0.0], (ordered[cuts - 1] + ordered[cuts]) / 2, [1.0]]))


def bin_counts(
    confidence: FloatArray, is_correct: BoolArray, edges: FloatArray, weights: FloatArray | None = None
) -> BinCounts:
    """
    Count rows into bins (lower, upper], the first one closed at 0 too, as in Guo et al. 2017.

    >>> bins = bin_counts(np.array([0.2, 0.9, 0.7]), np.array([False, True, False]), equal_width_edges(2))
    >>> bins.count.tolist(), bins.correct.tolist(), bins.confidence.round(6).tolist()
    ([1.0, 2.0], [0.0, 1.0], [0.2, 1.6])
    """
    if len(confidence) != len(is_correct):
        raise CannotMeasure(f"confidence has {len(confidence)} rows and is_correct {len(is_correct)}")
    counts = checked_weights(weights, len(confidence))
    _check_confidence(confidence)
    groups, n_bins = bin_index(confidence, edges), len(edges) - 1
    return BinCounts(
        count=grouped_sums(counts, groups, n_bins),
        correct=grouped_sums(counts * is_correct, groups, n_bins),
        confidence=grouped_sums(counts * confidence, groups, n_bins),
    )


def bin_index(confidence: FloatArray, edges: FloatArray) -> IntArray:
    """
    The bin of each confidence, from 0.

    >>> bin_index(np.array([0.0, 0.5, 0.51, 1.0]), np.array([0.0, 0.5, 1.0])).tolist()
    [0, 0, 1, 1]
    """
    return np.searchsorted(edges[1:-1], confidence, side="left")


def expected_calibration_error(bins: BinCounts) -> FloatArray:
    """
    ECE = sum_b n_b / n |accuracy_b - confidence_b|, the plug-in estimate; biased upwards when n_b is small.

    >>> float(expected_calibration_error(BinCounts(np.array([2.0]), np.array([1.0]), np.array([1.6])))).__round__(6)
    0.3
    """
    return np.asarray(np.abs(bins.correct - bins.confidence).sum(axis=-1) / _total(bins))


def debiased_ece(bins: BinCounts) -> FloatArray:
    """
    ECE less its estimated bias; may be below zero.

    Of a perfectly calibrated model's bias this takes away two fifths only (sqrt 2 - 1), since the gaps it starts from
    are noise already; ``debiased_squared_error`` is unbiased throughout.

    Each bin's accuracy a_b is taken as normal with variance a_b (1 - a_b) / n_b, as Kumar et al. 2019 do in their
    published code for the L1 error (by simulation; here in closed form, the mean of a folded normal):

        bias = sum_b n_b / n (E|N(d_b, s_b^2)| - |d_b|),  d_b = a_b - confidence_b

    >>> bins = BinCounts(np.array([100.0]), np.array([50.0]), np.array([52.0]))
    >>> round(float(expected_calibration_error(bins)), 3), round(float(debiased_ece(bins)), 3)
    (0.02, -0.003)
    """
    accuracy, gap, size = _per_bin(bins)
    spread = np.sqrt(accuracy * (1.0 - accuracy) / np.maximum(size, 1.0))
    folded = _folded_normal_mean(gap, spread)
    return np.asarray((size * (2.0 * np.abs(gap) - folded)).sum(axis=-1) / _total(bins))


def debiased_squared_error(bins: BinCounts) -> FloatArray:
    """
    Squared L2 calibration error without the plug-in's bias (Kumar et al. 2019, "Verified Uncertainty Calibration").

        E^2 = sum_b n_b / n [ (a_b - confidence_b)^2 - a_b (1 - a_b) / (n_b - 1) ]

    A bin with fewer than two rows adds nothing. Below zero when there is no sign of an error.

    >>> round(float(debiased_squared_error(BinCounts(np.array([101.0]), np.array([50.5]), np.array([60.6])))), 6)
    0.0075
    """
    accuracy, gap, size = _per_bin(bins)
    inner = gap**2 - accuracy * (1.0 - accuracy) / np.maximum(size - 1.0, 1.0)
    return np.asarray((np.where(size >= 2, size * inner, 0.0)).sum(axis=-1) / _total(bins))


def class_wise_ece(
    probabilities: FloatArray, targets: FloatArray, weights: FloatArray | None = None, bins: int = BINS
) -> FloatArray:
    """
    Mean over the classes of the ECE of p_k against y_k, equal-width bins (Kull et al. 2019).

    ``targets`` (n, K) are shares, as in ``metrics.shares``. Costs B n times the occupied bins of all classes.

    >>> round(float(class_wise_ece(np.array([[0.8, 0.2]]), np.array([[1.0, 0.0]]))), 3)
    0.2
    """
    if probabilities.ndim != 2 or probabilities.shape != targets.shape:
        raise CannotMeasure(f"arrays must both be (n, K), got {probabilities.shape} and {targets.shape}")
    n, classes = probabilities.shape
    counts = checked_weights(weights, n)
    _check_confidence(probabilities)
    cells = bin_index(probabilities, equal_width_edges(bins)) + bins * np.arange(classes)
    occupied, column = np.unique(cells, return_inverse=True)
    gaps = np.zeros((n, len(occupied)))
    gaps[np.arange(n)[:, None], column.reshape(n, classes)] = probabilities - targets
    total = counts.sum(axis=-1)
    # A resample may lack every row that counts.
    return np.asarray(np.abs(counts @ gaps).sum(axis=-1) / np.where(total > 0, total, np.nan) / classes)


def _per_bin(bins: BinCounts) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Accuracy, accuracy less confidence, and count of each bin; an empty bin has accuracy and gap 0."""
    size = np.maximum(bins.count, np.finfo(np.float64).tiny)
    accuracy = np.clip(bins.correct / size, 0.0, 1.0)
    return accuracy, accuracy - bins.confidence / size, bins.count


def _folded_normal_mean(centre: FloatArray, spread: FloatArray) -> FloatArray:
    """E|N(centre, spread^2)|; |centre| where the spread is zero."""
    z = np.divide(centre, spread, out=np.zeros_like(centre), where=spread > 0)
    folded = spread * math.sqrt(2.0 / math.pi) * np.exp(-0.5 * z**2) + centre * _erf(z / math.sqrt(2.0))
    return np.where(spread > 0, folded, np.abs(centre))


def _erf(x: FloatArray) -> FloatArray:
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), dtype=np.float64)


def _total(bins: BinCounts) -> FloatArray:
    total = bins.count.sum(axis=-1)
    if np.ndim(total) == 0 and total == 0:
        raise CannotMeasure("a calibration error needs at least one row, got none")
    return np.asarray(np.where(total > 0, total, np.nan))


def _check_confidence(confidence: FloatArray) -> None:
    if len(confidence) == 0:
        raise CannotMeasure("a calibration error needs at least one row, got none")
    # Softmax rows may exceed 1 by rounding; NaN fails both comparisons.
    if not (np.min(confidence) >= 0.0 and np.max(confidence) <= 1.0 + 1e-9):
        raise CannotMeasure(f"confidence must be in [0, 1], got {np.min(confidence)} to {np.max(confidence)}")
