"""
Drift that needs no labels: distances between the reference and a window, and evidence that they are above zero.

The reference is itself a sample, of a few hundred or thousand rows. What is ``tolerated`` must cover its error, or a
long enough stream refutes it: about ``1 / sqrt(rows of the reference)`` for a distance of distributions.
"""

import math

import numpy as np
from scipy.spatial.distance import cdist, pdist
from scipy.stats import ks_2samp

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import FloatArray, IntArray
from monitoring.sequential import Claim, Evidence
from monitoring.signals import LEVEL, Signal, Watch, judge, lies_beyond, look_error, unmeasured

CUT_LEVELS = np.array([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
"""Reference quantiles at which a distribution is bet on: the KS distance is the largest gap at any point."""
MOST_PERMUTATIONS = 20_000


def ks_distance(values: FloatArray, quantiles: FloatArray) -> float:
    """
    Largest gap between the distribution of ``values`` and that of the reference, given as its equally spaced
    ``quantiles`` (see ``reference.ReferenceProfile``): right to one step between two of them, 0.4 points for 257.

    >>> ks_distance(np.array([0.0, 1.0]), np.array([2.0, 3.0, 4.0]))
    1.0
    """
    return float(ks_2samp(values, quantiles, method="asymp").statistic)


def ks_signal(
    name: str, values: FloatArray, quantiles: FloatArray, watch: Watch, evidence: Evidence | None = None
) -> Signal:
    """The KS distance from the reference; interval by Dvoretzky, Kiefer, Wolfowitz and Massart, of the window alone."""
    n = len(values)
    if n == 0:
        return unmeasured(name, watch, 0.0)
    return _distance_signal(name, ks_distance(values, quantiles), n, math.log(2.0), watch, evidence)


def ks_claim(quantiles: FloatArray, watch: Watch) -> tuple[FloatArray, Claim]:
    """
    Cuts, and "at no cut is the share above, or below, larger than in the reference by more than is tolerated".

    Without cuts on a constant: its shares there are counted, not assumed.
    """
    cuts = np.unique(np.quantile(quantiles, CUT_LEVELS))
    below = np.searchsorted(np.sort(quantiles), cuts, side="right") / len(quantiles)
    bounds = np.concatenate([1.0 - below, below]) + watch.tolerated
    return cuts, Claim(np.clip(bounds, 1e-4, 1.0 - 1e-4), watch.rows_per_false_alarm)


def ks_values(values: FloatArray, cuts: FloatArray) -> FloatArray:
    """
    The rows to update the evidence of ``ks_claim`` with, (n, 2 cuts).

    >>> ks_values(np.array([0.7]), np.array([0.5, 0.9])).tolist()
    [[1.0, 0.0, 0.0, 1.0]]
    """
    is_above = np.asarray(values)[:, None] > cuts
    return np.concatenate([is_above, ~is_above], axis=1).astype(np.float64)


def total_variation(shares: FloatArray, reference_shares: FloatArray) -> float:
    """
    Half the sum of absolute differences: the share of rows that would have to change category.

    >>> total_variation(np.array([0.6, 0.4]), np.array([0.5, 0.5])).__round__(6)
    0.1
    """
    return float(np.abs(np.asarray(shares) - reference_shares).sum() / 2.0)


def mix_signal(
    name: str, codes: IntArray, reference_counts: IntArray, watch: Watch, evidence: Evidence | None = None
) -> Signal:
    """
    How far a mix of categories (languages, decided intents) is from the reference's, in total variation.

    ``codes`` (n,) are positions in ``reference_counts``. Interval by Weissman et al. 2003, of the window alone.
    """
    n, kinds = len(codes), len(reference_counts)
    if n == 0:
        return unmeasured(name, watch, 0.0)
    value = total_variation(np.bincount(codes, minlength=kinds) / n, _shares(reference_counts))
    return _distance_signal(name, value, n, kinds * math.log(2.0), watch, evidence)


def mix_claim(reference_counts: IntArray, watch: Watch) -> Claim:
    """ "No category's share is further from its reference, up or down, than is tolerated": two streams a category."""
    shares = _shares(reference_counts)
    bounds = np.concatenate([shares, 1.0 - shares]) + watch.tolerated
    return Claim(np.clip(bounds, 1e-4, 1.0 - 1e-4), watch.rows_per_false_alarm)


def mix_values(codes: IntArray, kinds: int) -> FloatArray:
    """
    The rows to update the evidence of ``mix_claim`` with, (n, 2 kinds).

    >>> mix_values(np.array([1]), 2).tolist()
    [[0.0, 1.0, 1.0, 0.0]]
    """
    is_kind = np.asarray(codes)[:, None] == np.arange(kinds)
    return np.concatenate([is_kind, ~is_kind], axis=1).astype(np.float64)


def mmd_squared(reference: FloatArray, current: FloatArray, bandwidth: float) -> float:
    """
    Unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, lemma 6), RBF kernel
    ``exp(-|x - y|^2 / (2 bandwidth^2))``; below zero by chance when nothing differs.

        sum_{i != j} k(x_i, x_j) / (m (m-1)) + sum_{i != j} k(y_i, y_j) / (n (n-1)) - 2 sum_{i,j} k(x_i, y_j) / (m n)
    """
    kernel = _kernel(reference, current, bandwidth)
    is_reference = np.zeros((1, len(kernel)))
    is_reference[0, : len(reference)] = 1.0
    return float(_mmd_of_splits(kernel, is_reference)[0])


def median_bandwidth(reference: FloatArray) -> float:
    """
    Median distance between two reference rows, the usual choice; raises CannotMeasure when they are all the same.

    >>> median_bandwidth(np.array([[0.0], [3.0]]))
    3.0
    """
    if len(reference) < 2:
        raise CannotMeasure(f"a bandwidth needs two reference embeddings or more, got {len(reference)}")
    bandwidth = float(np.median(pdist(reference)))
    if bandwidth <= 0.0:
        raise CannotMeasure("more than half of the reference embeddings are the same")
    return bandwidth


def mmd_signal(name: str, reference: FloatArray, current: FloatArray, watch: Watch, rng: np.random.Generator) -> Signal:
    """
    Squared MMD between embeddings, (m, H) and (n, H), with the normal interval of a U-statistic.

    The verdict is a permutation test, exact for one look, at a level that lets the errors of all looks be added up
    (``look_error``); it must be looked at over ``minimum_rows`` new embeddings each time. Costs (m + n)^2 times the
    number of permutations, one over that level.
    """
    n = len(current)
    if n < 2:
        return unmeasured(name, watch, 0.0)
    bandwidth = median_bandwidth(reference)
    kernel = _kernel(reference, current, bandwidth)
    is_reference = np.zeros(len(kernel))
    is_reference[: len(reference)] = 1.0
    value = float(_mmd_of_splits(kernel, is_reference[None])[0])
    spread = 1.96 * _mmd_deviation(kernel, len(reference))
    level = look_error(watch)
    permutations = min(MOST_PERMUTATIONS, math.ceil(1.0 / level))
    shuffled = _mmd_of_splits(kernel, rng.permuted(np.tile(is_reference, (permutations, 1)), axis=1))
    p_value = (1.0 + float((shuffled >= value).sum())) / (1.0 + permutations)
    verdict = judge(watch, value, 0.0, n, p_value <= level)
    return Signal(name, value, value - spread, value + spread, n, verdict, 0.0, watch.threshold)


def _distance_signal(
    name: str, value: float, n: int, log_events: float, watch: Watch, evidence: Evidence | None
) -> Signal:
    """A distance that is off by more than ``radius`` with a chance below ``exp(log_events - 2 n radius^2)``."""

    def radius(error: float) -> float:
        return math.sqrt((log_events - math.log(error)) / (2.0 * n))

    low, high = max(0.0, value - radius(1.0 - LEVEL)), min(1.0, value + radius(1.0 - LEVEL))
    if evidence is None:
        has_detected = lies_beyond(watch, 0.0, value - radius(look_error(watch)), value)
    else:
        has_detected = evidence.has_detected
    return Signal(name, value, low, high, n, judge(watch, value, 0.0, n, has_detected), 0.0, watch.threshold)


def _shares(counts: IntArray) -> FloatArray:
    if int(np.sum(counts)) < 1 or int(np.min(counts)) < 0:
        raise CannotMeasure(f"reference counts must be >= 0 and sum to 1 or more, got {np.asarray(counts).tolist()}")
    return np.asarray(counts / np.sum(counts))


def _kernel(reference: FloatArray, current: FloatArray, bandwidth: float) -> FloatArray:
    """(m + n, m + n), zero on the diagonal: a row is not compared with itself."""
    if min(len(reference), len(current)) < 2:
        raise CannotMeasure(f"MMD needs two embeddings a side or more, got {len(reference)} and {len(current)}")
    rows = np.concatenate([reference, current]).astype(np.float64)
    kernel = np.exp(cdist(rows, rows, "sqeuclidean") / (-2.0 * bandwidth**2))
    np.fill_diagonal(kernel, 0.0)
    return np.asarray(kernel)


def _mmd_of_splits(kernel: FloatArray, is_reference: FloatArray) -> FloatArray:
    """(splits,) from one matrix product: ``is_reference`` (splits, m + n) is 1 for the rows of the one side."""
    m = is_reference.sum(axis=1)
    n = len(kernel) - m
    within = ((is_reference @ kernel) * is_reference).sum(axis=1)
    across = is_reference @ kernel.sum(axis=1) - within
    others = kernel.sum() - within - 2.0 * across
    return np.asarray(within / (m * (m - 1)) + others / (n * (n - 1)) - 2.0 * across / (m * n))


def _mmd_deviation(kernel: FloatArray, m: int) -> float:
    """Standard deviation of the estimate, to first order (Serfling 1980, section 5.2): that of what each row adds."""
    n = len(kernel) - m
    of_reference = kernel[:m, :m].sum(axis=1) / (m - 1) - kernel[:m, m:].mean(axis=1)
    of_current = kernel[m:, m:].sum(axis=1) / (n - 1) - kernel[m:, :m].mean(axis=1)
    return 2.0 * math.sqrt(float(of_reference.var()) / m + float(of_current.var()) / n)
