"""
How well a score tells ood from in-scope utterances, before any cut is chosen.

``score`` is higher for what is less familiar, as an energy is. Rows are sorted once; resamples come as
``weights`` of shape (B, n) (see ``metrics``). A resample without one of the two kinds gives NaN.
"""

import numpy as np

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.metrics import checked_weights
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray


def auroc(score: FloatArray, is_ood: BoolArray, weights: FloatArray | None = None) -> FloatArray:
    """
    Chance that an ood utterance scores above an in-scope one, ties counting half.

    >>> float(auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])))
    0.75
    """
    order, first, last = _sorted(score, is_ood)
    counts = checked_weights(weights, len(score))[..., order]
    ood = is_ood[order]
    below = _running(np.where(ood, 0.0, counts))
    beaten = (below[..., first[ood]] + below[..., last[ood]]) / 2.0
    outside = counts[..., ood]
    return _ratio((outside * beaten).sum(axis=-1), outside.sum(axis=-1) * below[..., -1])


def fpr_at_tpr(
    score: FloatArray, is_ood: BoolArray, weights: FloatArray | None = None, tpr: float = 0.95
) -> FloatArray:
    """
    FPR95: the share of ood utterances let through by the cut that keeps 95% of the in-scope ones.

    In-scope is positive here, as in Liang et al. 2018 and Liu et al. 2020: TPR is in-scope retention.
    The cut is the lowest score that keeps at least ``tpr``; lower FPR is better.

    >>> float(fpr_at_tpr(np.array([1.0, 2.0, 3.0, 2.5]), np.array([False, False, True, True])))
    0.0
    """
    order, _, last = _sorted(score, is_ood)
    counts = checked_weights(weights, len(score))[..., order]
    ends = np.unique(last)
    kept = _running(np.where(is_ood[order], 0.0, counts))[..., ends]
    passed = _running(np.where(is_ood[order], counts, 0.0))[..., ends]
    # Counts are whole, so the slack only forgives the rounding of tpr times a count.
    cut = (kept >= tpr * kept[..., -1:] - 1e-9).argmax(axis=-1)
    let_through = np.take_along_axis(passed, cut[..., None], axis=-1)[..., 0]
    return np.where(kept[..., -1] > 0, _ratio(let_through, passed[..., -1]), np.nan)


def aupr(score: FloatArray, is_ood: BoolArray, weights: FloatArray | None = None) -> FloatArray:
    """
    Average precision with ood as the positive: sum over cuts of the recall gained times the precision there.

    >>> round(float(aupr(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))), 4)
    0.8333
    """
    order, _, last = _sorted(-np.asarray(score), is_ood)
    counts = checked_weights(weights, len(score))[..., order]
    ends = np.unique(last)
    found = _running(np.where(is_ood[order], counts, 0.0))[..., ends]
    flagged = _running(counts)[..., ends]
    precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
    gained = np.diff(found, axis=-1, prepend=0.0)
    return _ratio((gained * precision).sum(axis=-1), found[..., -1])


def _sorted(score: FloatArray, is_ood: BoolArray) -> tuple[IntArray, IntArray, IntArray]:
    """The ascending order, and for each sorted row how many rows precede its tie and end with it."""
    if len(score) != len(is_ood):
        raise CannotMeasure(f"score has {len(score)} rows and is_ood {len(is_ood)}")
    outside = int(np.count_nonzero(is_ood))
    if outside in (0, len(is_ood)):
        raise CannotMeasure(
            f"a ranking needs ood and in-scope utterances, got {outside} ood and {len(is_ood) - outside} in-scope"
        )
    if np.isnan(score).any():
        raise CannotMeasure(f"score must be a number, got NaN in {int(np.isnan(score).sum())} rows")
    order = np.argsort(score, kind="stable")
    ordered = np.asarray(score)[order]
    return order, np.searchsorted(ordered, ordered, "left"), np.searchsorted(ordered, ordered, "right")


def _running(weights: FloatArray) -> FloatArray:
    """(..., n + 1) running sums, from 0."""
    running = np.zeros((*weights.shape[:-1], weights.shape[-1] + 1))
    np.cumsum(weights, axis=-1, out=running[..., 1:])
    return running


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.true_divide(numerator, denominator))
