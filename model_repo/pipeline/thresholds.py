"""Per-intent thresholds that maximise multi-intent micro-F1, shrunk towards one global threshold where data are few."""

import numpy as np

from model_repo.contract.decision import accept
from model_repo.contract.errors import CannotMeasure
from model_repo.contract.metrics import micro_f1
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray

SHRINKAGES = (0.0, 5.0, 20.0, 80.0, 320.0, float("inf"))
"""Candidates, in second intents: an intent with that many of its own weighs as much as the global threshold."""
FOLDS = 5
REPEATS = 4
"""Cross-validations with other folds; one alone chooses the shrinkage by luck."""
LOWEST = 0.01
"""No threshold goes below it: an intent at 1% is noise whatever a small split says."""


def fit_thresholds(
    probabilities: FloatArray, targets: BoolArray, high_risk: BoolArray, rng: np.random.Generator
) -> FloatArray:
    """
    (K,) thresholds for in-scope utterances. Both arrays (n, K), probabilities as served; ``high_risk`` (K,).

    The top intent is accepted whatever the thresholds say, so they are fitted on the others. The shrinkage is the
    strongest one whose cross-validated micro-F1 is within one standard error of the best (Breiman et al. 1984): an
    intent's own threshold follows single utterances where errors are rare. That of a high-risk intent is at most the
    global one: micro-F1 weighs a return that is missed as much as one that nobody asked for, a shop does not.
    """
    if probabilities.shape != targets.shape or not targets.any(axis=-1).all():
        raise CannotMeasure("thresholds are fitted on in-scope utterances: each row of targets needs an intent")
    folds = [rng.permutation(len(targets)) % FOLDS for _ in range(REPEATS)]
    scores = np.array([_cross_validated(probabilities, targets, shrinkage, folds) for shrinkage in SHRINKAGES])
    thresholds = shrunk_thresholds(probabilities, targets, SHRINKAGES[strongest_within_error(scores)])
    shared = global_threshold(probabilities, targets)
    return np.where(high_risk, np.minimum(thresholds, shared), thresholds)


def strongest_within_error(scores: FloatArray) -> int:
    """
    The last row of ``scores`` (candidates, folds) that falls short of the best one by a standard error or less.

    The error is that of the shortfall itself, fold by fold, which the luck of a fold does not enter.

    >>> strongest_within_error(np.array([[0.90, 0.80, 0.85], [0.89, 0.81, 0.84], [0.80, 0.70, 0.75]]))
    1
    """
    short = scores[scores.mean(axis=1).argmax()] - scores
    error = short.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])
    return int(np.flatnonzero(short.mean(axis=1) <= error)[-1])


def shrunk_thresholds(probabilities: FloatArray, targets: BoolArray, shrinkage: float) -> FloatArray:
    """
    Each intent's own best threshold and the best global one, mixed in log-odds: m / (m + shrinkage) its own.

    ``m`` counts the utterances that carry the intent behind another top one.
    """
    second = _behind_the_top(probabilities)
    shared = global_threshold(probabilities, targets)
    if np.isinf(shrinkage):
        return np.full(probabilities.shape[1], shared)
    own = separate_thresholds(probabilities, targets)
    carried = (targets & second).sum(axis=0)
    weight = carried / np.maximum(carried + shrinkage, 1.0)
    mixed = weight * _log_odds(own) + (1.0 - weight) * _log_odds(np.full_like(own, shared))
    return np.asarray(1.0 / (1.0 + np.exp(-mixed)))


def separate_thresholds(probabilities: FloatArray, targets: BoolArray) -> FloatArray:
    """
    (K,) thresholds with the highest micro-F1 on these rows, every intent free (the limit of three apart).

    Micro-F1 = 2 TP / (accepted + carried) is a ratio of sums over intents, so the best thresholds are those that
    maximise 2 TP - F accepted for each intent alone, with F the best F1 itself: repeat until F stays (Dinkelbach 1967).
    """
    second, intents = _behind_the_top(probabilities), range(probabilities.shape[1])
    return _dinkelbach(probabilities, targets, [(second[:, [k]], [k]) for k in intents])


def global_threshold(probabilities: FloatArray, targets: BoolArray) -> float:
    """The one threshold, the same for every intent, with the highest micro-F1 on these rows."""
    second = _behind_the_top(probabilities)
    return float(_dinkelbach(probabilities, targets, [(second, list(range(probabilities.shape[1])))])[0])


def _dinkelbach(probabilities: FloatArray, targets: BoolArray, groups: list[tuple[BoolArray, list[int]]]) -> FloatArray:
    """One threshold for each group of intents, given with the cells that the threshold decides about."""
    ordered = [_candidates(probabilities[:, columns][cells], targets[:, columns][cells]) for cells, columns in groups]
    thresholds = np.ones(probabilities.shape[1])
    best = -1.0
    while (score := float(micro_f1(accept(probabilities, thresholds), targets))) > best:
        best, kept = score, thresholds.copy()
        for (cuts, hits, accepted), (_, columns) in zip(ordered, groups, strict=True):
            thresholds[columns] = cuts[(2.0 * hits - best * accepted).argmax()]
    return kept


def _candidates(values: FloatArray, is_hit: BoolArray) -> tuple[FloatArray, IntArray, IntArray]:
    """Cuts from 1 downwards, midway between neighbours, with how many cells each accepts and how many are hits."""
    usable = values >= LOWEST
    values, is_hit = values[usable], is_hit[usable]
    order = np.argsort(-values, kind="stable")
    falling = values[order]
    below = np.append(falling[1:], LOWEST)
    ends = np.flatnonzero(falling > below)
    first = (1.0 + falling[0]) / 2.0 if len(falling) else 1.0
    cuts = np.concatenate([[first], (falling[ends] + below[ends]) / 2.0])
    hits = np.concatenate([[0], np.cumsum(is_hit[order])[ends]])
    return cuts, hits, np.concatenate([[0], ends + 1])


def _cross_validated(
    probabilities: FloatArray, targets: BoolArray, shrinkage: float, repeats: list[IntArray]
) -> FloatArray:
    """(FOLDS,) micro-F1 of the held-out decisions, averaged over the repeats."""
    scores = np.zeros((len(repeats), FOLDS))
    for row, folds in enumerate(repeats):
        for fold in range(FOLDS):
            held_out = folds == fold
            if held_out.any() and not held_out.all():
                thresholds = shrunk_thresholds(probabilities[~held_out], targets[~held_out], shrinkage)
                scores[row, fold] = micro_f1(accept(probabilities[held_out], thresholds), targets[held_out])
    return np.asarray(scores.mean(axis=0))


def _behind_the_top(probabilities: FloatArray) -> BoolArray:
    second = np.ones(probabilities.shape, dtype=np.bool_)
    second[np.arange(len(second)), probabilities.argmax(axis=-1)] = False
    return second


def _log_odds(probabilities: FloatArray) -> FloatArray:
    inside = np.clip(probabilities, LOWEST / 2.0, 1.0 - 1e-6)
    return np.asarray(np.log(inside) - np.log1p(-inside))
