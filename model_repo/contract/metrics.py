"""
Quality measures of decisions: pure functions of arrays, of one sample or of many resamples at once.

Every measure takes ``weights``: how often each row counts. None counts each once and gives one number; shape
(B, n) gives B numbers in one pass, which is what makes a bootstrap of 10,000 resamples cheap (see ``bootstrap``).
A measure that the data cannot give raises CannotMeasure; one that only a resample cannot give is NaN there.
"""

import numpy as np

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray


def accuracy(is_correct: BoolArray, weights: FloatArray | None = None) -> FloatArray:
    """
    Share of rows that are correct.

    >>> float(accuracy(np.array([True, True, False, True])))
    0.75
    """
    return mean(is_correct, weights)


def top_in_set(top: IntArray, targets: BoolArray) -> BoolArray:
    """
    Whether each row's top intent is one that its utterance carries; never for an utterance that carries none (ood).

    >>> top_in_set(np.array([1, 1]), np.array([[True, True], [True, False]])).tolist()
    [True, False]
    """
    if targets.ndim != 2 or len(top) != len(targets):
        raise CannotMeasure(f"top and targets must have the same rows, got {np.shape(top)} and {targets.shape}")
    return np.asarray(targets[np.arange(len(top)), top])


def macro_f1(true: IntArray, predicted: IntArray, weights: FloatArray | None = None) -> FloatArray:
    """
    Mean of the F1 of each class that occurs, true or predicted; a class that a resample lacks is left out there.

    >>> round(float(macro_f1(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))), 4)
    0.7333
    """
    _same_length(true=true, predicted=predicted)
    counts = checked_weights(weights, len(true))
    classes = int(max(true.max(), predicted.max())) + 1
    hits = grouped_sums(np.where(true == predicted, counts, 0.0), true, classes)
    support = grouped_sums(counts, true, classes) + grouped_sums(counts, predicted, classes)
    occurs = support > 0
    f1 = _ratio(2.0 * hits, support)
    return _ratio(np.where(occurs, f1, 0.0).sum(axis=-1), occurs.sum(axis=-1))


def recall(is_accepted: BoolArray, is_carried: BoolArray, weights: FloatArray | None = None) -> FloatArray:
    """
    Of the rows that carry something, the share where it was accepted.

    >>> float(recall(np.array([True, False, True]), np.array([True, True, False])))
    0.5
    """
    _same_length(is_accepted=is_accepted, is_carried=is_carried)
    if not np.any(is_carried):
        raise CannotMeasure(f"recall needs a row that carries the label, got none of {len(is_carried)}")
    counts = checked_weights(weights, len(is_carried))[..., is_carried]
    return _ratio(counts @ is_accepted[is_carried].astype(np.float64), counts.sum(axis=-1))


def precision(is_accepted: BoolArray, is_carried: BoolArray, weights: FloatArray | None = None) -> FloatArray:
    """
    Of the rows where something was accepted, the share that carries it.

    >>> float(precision(np.array([True, False, True]), np.array([True, True, False])))
    0.5
    """
    _same_length(is_accepted=is_accepted, is_carried=is_carried)
    if not np.any(is_accepted):
        raise CannotMeasure(f"precision needs a row where the label was accepted, got none of {len(is_accepted)}")
    return recall(is_carried, is_accepted, weights)


def micro_f1(is_accepted: BoolArray, targets: BoolArray, weights: FloatArray | None = None) -> FloatArray:
    """
    F1 of all (utterance, intent) pairs together: 2 TP / (accepted + carried). Both arrays (n, K).

    >>> float(micro_f1(np.array([[True, True]]), np.array([[True, False]]))).__round__(4)
    0.6667
    """
    _same_shape(is_accepted, targets)
    if not (is_accepted.any() or targets.any()):
        raise CannotMeasure("micro-F1 needs an accepted or a carried intent, got none")
    counts = checked_weights(weights, len(targets))
    hits = (is_accepted & targets).sum(axis=-1).astype(np.float64)
    named = (is_accepted.sum(axis=-1) + targets.sum(axis=-1)).astype(np.float64)
    return _ratio(2.0 * (counts @ hits), counts @ named)


def exact_match(is_accepted: BoolArray, targets: BoolArray, weights: FloatArray | None = None) -> FloatArray:
    """
    Share of rows whose accepted intents are exactly those carried. Both arrays (n, K).

    >>> float(exact_match(np.array([[True, True], [True, False]]), np.array([[True, False], [True, False]])))
    0.5
    """
    _same_shape(is_accepted, targets)
    return mean((is_accepted == targets).all(axis=-1), weights)


def brier(probabilities: FloatArray, targets: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """
    Mean of sum_k (p_k - y_k)^2, from 0 to 2 (Brier 1950). ``targets`` (n, K) are shares: each row sums to 1.

    >>> round(float(brier(np.array([[0.8, 0.2]]), np.array([[1.0, 0.0]]))), 3)
    0.08
    """
    _same_shape(probabilities, targets)
    return mean(((probabilities - targets) ** 2).sum(axis=-1), weights)


def nll(probabilities: FloatArray, targets: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """
    Mean of -sum_k y_k log p_k, in nats. ``targets`` (n, K) are shares: each row sums to 1.

    A probability of zero counts as the smallest normal double, so that one row costs 708 at most.

    >>> round(float(nll(np.array([[0.8, 0.2]]), np.array([[1.0, 0.0]]))), 4)
    0.2231
    """
    _same_shape(probabilities, targets)
    logs = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return mean(-(targets * logs).sum(axis=-1), weights)


def shares(targets: BoolArray) -> FloatArray:
    """
    An utterance's intents as shares that sum to 1, what a softmax over them can be right about; zeros when ood.

    >>> shares(np.array([[True, True, False], [False, False, False]])).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    return np.asarray(targets / np.maximum(targets.sum(axis=-1, keepdims=True), 1))


def mean(values: FloatArray | BoolArray, weights: FloatArray | None = None) -> FloatArray:
    """
    Weighted mean of a value a row.

    >>> mean(np.array([1.0, 3.0]), np.array([[1.0, 1.0], [2.0, 0.0]])).tolist()
    [2.0, 1.0]
    """
    counts = checked_weights(weights, len(values))
    return _ratio(counts @ np.asarray(values, dtype=np.float64), counts.sum(axis=-1))


def grouped_sums(weights: FloatArray, groups: IntArray, n_groups: int) -> FloatArray:
    """
    (..., n_groups) sum of the weights of each group; one pass whatever the number of groups.

    >>> grouped_sums(np.array([1.0, 2.0, 4.0]), np.array([2, 0, 2]), 3).tolist()
    [2.0, 0.0, 5.0]
    """
    order = np.argsort(groups, kind="stable")
    ends = np.searchsorted(groups[order], np.arange(n_groups), side="right")
    running = np.zeros((*weights.shape[:-1], weights.shape[-1] + 1))
    np.cumsum(weights[..., order], axis=-1, out=running[..., 1:])
    return np.diff(running[..., ends], axis=-1, prepend=0.0)


def checked_weights(weights: FloatArray | None, n: int) -> FloatArray:
    """The weights to use for n rows: ones when None; raises CannotMeasure when there are no rows or too few weights."""
    if n == 0:
        raise CannotMeasure("a measure needs at least one row, got none")
    if weights is None:
        return np.ones(n)
    if weights.shape[-1] != n:
        raise CannotMeasure(f"weights must end in the number of rows, {n}, got shape {weights.shape}")
    return weights


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Numerator / denominator, NaN where the denominator is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.true_divide(numerator, denominator))


def _same_length(**arrays: FloatArray | IntArray | BoolArray) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise CannotMeasure(f"arrays differ in length: {lengths}")
    if 0 in lengths.values():
        raise CannotMeasure("a measure needs at least one row, got none")


def _same_shape(left: FloatArray | BoolArray, right: FloatArray | BoolArray) -> None:
    if left.ndim != 2 or left.shape != right.shape:
        raise CannotMeasure(f"arrays must both be (n, K), got {left.shape} and {right.shape}")
