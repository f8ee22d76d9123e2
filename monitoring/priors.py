"""
How often each label is asked for now, told from decisions alone: label shift by BBSE or by EM.

Both take it that only the mix of labels has changed, and not how each label's utterances look. Labels are the
intents in the order of the taxonomy, ood last.
"""

import numpy as np
from scipy.optimize import nnls

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import FloatArray, IntArray
from monitoring.drift import total_variation
from monitoring.sequential import Evidence
from monitoring.signals import LEVEL, RESAMPLES, Signal, Watch, judge, unmeasured

EM_STEPS = 200
EM_TOLERANCE = 1e-8


def bbse(confusion: IntArray, decided_counts: IntArray | FloatArray) -> FloatArray:
    """
    (K,) current priors from the confusion (K, K), true by decided, and the decisions of a window, (K,) counts.

    Lipton et al. 2018: the decided shares are the confusion's joint shares times the ratios of the priors; solved
    for ratios >= 0, so that a nearly singular confusion gives no negative priors. A label that the confusion has no
    row of stays at zero.

    >>> bbse(np.array([[90, 10], [20, 80]]), np.array([55, 45])).round(3).tolist()
    [0.5, 0.5]
    """
    joint, decided = _joint(confusion), np.asarray(decided_counts, dtype=np.float64)
    if decided.shape != (len(joint),) or decided.sum() <= 0:
        raise CannotMeasure(f"decided_counts must be {len(joint)} counts of at least one row, got {decided.tolist()}")
    ratios, _ = nnls(joint.T, decided / decided.sum())
    priors = ratios * joint.sum(axis=1)
    return np.asarray(priors / priors.sum())


def em_priors(probabilities: FloatArray, reference_priors: FloatArray) -> FloatArray:
    """
    (K,) current priors from calibrated probabilities (n, K) under the reference's priors (Saerens et al. 2002).

    >>> rows = np.repeat([[0.9, 0.1], [0.1, 0.9]], [80, 20], axis=0)
    >>> em_priors(rows, np.array([0.5, 0.5])).round(3).tolist()
    [0.875, 0.125]
    """
    if probabilities.ndim != 2 or len(probabilities) == 0 or probabilities.shape[1:] != reference_priors.shape:
        raise CannotMeasure(f"probabilities must be (n, {len(reference_priors)}), got {probabilities.shape}")
    if not bool(np.all(reference_priors > 0)):
        raise CannotMeasure("every reference prior must be above 0")
    priors = np.asarray(reference_priors, dtype=np.float64)
    for _ in range(EM_STEPS):
        weighted = probabilities * (priors / reference_priors)
        step = (weighted / weighted.sum(axis=1, keepdims=True)).mean(axis=0)
        if float(np.abs(step - priors).max()) < EM_TOLERANCE:
            return np.asarray(step)
        priors = step
    return priors


def prior_shift_signal(
    name: str,
    confusion: IntArray,
    decided: IntArray,
    watch: Watch,
    evidence: Evidence,
    rng: np.random.Generator,
) -> Signal:
    """
    Total variation between the priors that BBSE finds in ``decided`` (n,) and the reference's, with its bootstrap
    interval. ``evidence`` is that of ``drift.mix_claim`` over the decided labels: priors cannot move alone.
    """
    n, kinds = len(decided), len(confusion)
    if n == 0:
        return unmeasured(name, watch, 0.0)
    reference = _joint(confusion).sum(axis=1)
    counts = np.bincount(decided, minlength=kinds)
    value = total_variation(bbse(confusion, counts), reference)
    resampled = np.array(
        [total_variation(bbse(confusion, row), reference) for row in rng.multinomial(n, counts / n, RESAMPLES)]
    )
    tail = (1.0 - LEVEL) / 2.0
    low, high = (float(end) for end in np.quantile(resampled, [tail, 1.0 - tail]))
    verdict = judge(watch, value, 0.0, n, evidence.has_detected)
    return Signal(name, value, min(low, value), max(high, value), n, verdict, 0.0, watch.threshold)


def _joint(confusion: IntArray) -> FloatArray:
    """Shares of all rows, true by decided."""
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1] or int(confusion.sum()) < 1:
        raise CannotMeasure(f"a confusion must be square and hold a row, got {confusion.shape}")
    return np.asarray(confusion / confusion.sum())
