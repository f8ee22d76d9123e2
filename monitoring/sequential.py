"""
Evidence that may be looked at after every row: betting e-detectors, e-values and confidence sequences.

Everything rests on one bet. Where the mean of ``x`` in [0, 1] is at most ``m``, whatever came before,
``1 + stake (x - m)`` with ``0 <= stake < 1 / m`` has an expectation of at most one, so wealth gained by betting is
evidence against the claim (Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting").
A quantile is a mean too, of the rows that exceed it (Howard & Ramdas 2022); a lower bound is one on ``1 - x``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import betaln

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import BoolArray, FloatArray

STAKES = np.array([0.01, 0.025, 0.06, 0.15, 0.35, 0.8])
"""Shares of the largest stake, 1 / m. Their mixture costs at most log 6 = 1.8 nats against the best of them."""
MOST_LOG_GROWTH = 500.0
"""Rows are taken in blocks in which no wealth can grow, or shrink, by more than this many nats: no overflow."""
MOST_WEALTH = np.exp(150.0)
"""No wealth is counted above this, which is beyond any alarm."""
BISECTIONS = 60
"""Halvings of [0, 1]: the ends of an interval are exact to 1e-15 or so."""


@dataclass(frozen=True)
class Claim:
    """What is taken to hold until the evidence says otherwise: the mean of each of S streams is at most its bound."""

    bounds: FloatArray
    """(S,), each in (0, 1): the reference's mean plus what is tolerated, its own uncertainty included."""
    rows_per_false_alarm: float
    """
    While the claim holds, a false alarm comes after this many rows on average, or later; within n rows its
    probability is at most n over this. Streams well inside their bounds give far fewer. Higher detects later.
    """
    weights: FloatArray | None = None
    """(S,), how much of the wealth is bet on each stream; they sum to 1. None is the same on all."""

    def __post_init__(self) -> None:
        bounds = np.asarray(self.bounds)
        if bounds.ndim != 1 or not len(bounds) or not bool(np.all((bounds > 0.0) & (bounds < 1.0))):
            raise CannotMeasure(f"bounds must be numbers in (0, 1), one a stream, got {self.bounds!r}")
        if not 1.0 < self.rows_per_false_alarm < 1e60:
            raise CannotMeasure(f"rows_per_false_alarm must be above 1 and finite, got {self.rows_per_false_alarm}")
        shares = self.shares
        if shares.shape != bounds.shape or not bool(np.all(shares > 0.0)) or not np.isclose(shares.sum(), 1.0):
            raise CannotMeasure(f"weights must be above 0, one a stream, and sum to 1, got {self.weights!r}")

    @property
    def shares(self) -> FloatArray:
        """(S,), the weights."""
        n = len(self.bounds)
        return np.full(n, 1.0 / n) if self.weights is None else np.asarray(self.weights)


@dataclass(frozen=True)
class Evidence:
    """How much speaks against a claim after ``rows`` rows; a value, so that it can be stored and resumed."""

    log_wealth: FloatArray
    """(S, stakes), log of each Shiryaev-Roberts sum; 150 at most."""
    rows: int
    detected_at: int | None
    """The row, counted from 1, at which the claim fell; kept until the owner starts anew, say after a remedy."""

    @property
    def has_detected(self) -> bool:
        """Whether the claim has fallen."""
        return self.detected_at is not None


def start(claim: Claim) -> Evidence:
    """No evidence yet."""
    return Evidence(np.full((len(claim.bounds), len(STAKES)), -np.inf), rows=0, detected_at=None)


def update(evidence: Evidence, claim: Claim, values: FloatArray, row_bounds: FloatArray | None = None) -> Evidence:
    """
    Evidence after ``values`` (n, S) in [0, 1], in the order of arrival; NaN where a row is not about a stream.

    ``row_bounds`` (n, S) in (0, 1) replaces the claim's bounds where more was known of a row before its value was.

    An e-detector of the Shiryaev-Roberts kind (Shin, Ramdas & Rinaldo 2023), averaged over stakes, and by weight over
    streams:

        R_t = (R_{t-1} + 1) (1 + stake (x_t - m)),  alarm when the average reaches rows_per_false_alarm

    so a change is met with fresh wealth however long the quiet before it. How rows are split into batches makes no
    difference. Costs and holds n times S times the number of stakes.

    >>> claim = Claim(np.array([0.1]), rows_per_false_alarm=10_000)
    >>> update(start(claim), claim, np.ones((20, 1))).detected_at
    6
    """
    if values.ndim != 2 or values.shape[1] != len(claim.bounds):
        raise CannotMeasure(f"values must be (n, {len(claim.bounds)}), got {values.shape}")
    if len(values) == 0:
        return evidence
    bounds = np.asarray(claim.bounds if row_bounds is None else row_bounds)
    takes_part, gains = _gains(values, bounds)
    wealth = np.exp(evidence.log_wealth)
    detected_at = evidence.detected_at
    rows_at_once = int(MOST_LOG_GROWTH / np.log(1.0 / bounds.min() + 4.0))
    for begin in range(0, len(values), rows_at_once):
        block = slice(begin, begin + rows_at_once)
        wealths = _wealths(wealth, takes_part[block], gains[block])
        crossed = np.flatnonzero(wealths.mean(axis=2) @ claim.shares >= claim.rows_per_false_alarm)
        if detected_at is None and len(crossed):
            detected_at = evidence.rows + begin + int(crossed[0]) + 1
        wealth = np.minimum(wealths[-1], MOST_WEALTH)
    with np.errstate(divide="ignore"):  # A stream that no row was about has no wealth yet.
        log_wealth = np.log(wealth)
    return replace(evidence, log_wealth=log_wealth, rows=evidence.rows + len(values), detected_at=detected_at)


def log_e_values(values: FloatArray, bounds: FloatArray) -> FloatArray:
    """
    (S,) log e-values against "the mean of stream s is at most bounds[s]", from ``values`` (n, S), NaN as in ``update``.

    An e-value of 1 / alpha or more refutes at level alpha, also when the number of rows was chosen by looking.

    >>> log_e_values(np.ones((10, 1)), np.array([0.5])).round(2).tolist()
    [4.16]
    """
    _, gains = _gains(values, np.asarray(bounds))
    return np.asarray(np.logaddexp.reduce(np.log(gains).sum(axis=0), axis=-1) - np.log(len(STAKES)))


def e_bh(log_e: FloatArray, alpha: float) -> BoolArray:
    """
    Which of the hypotheses fall when at most a share ``alpha`` may fall wrongly, under any dependence between them.

    The k largest e-values fall when the k-th is at least K / (alpha k) (Wang & Ramdas 2022, "False discovery rate
    control with e-values").

    >>> e_bh(np.log([100.0, 30.0, 1.0]), 0.1).tolist()
    [True, True, False]
    """
    order = np.argsort(-log_e, kind="stable")
    ranks = np.arange(1, len(log_e) + 1)
    passing = np.flatnonzero(log_e[order] >= np.log(len(log_e) / (alpha * ranks)))
    falls = np.zeros(len(log_e), dtype=bool)
    if len(passing):
        falls[order[: passing[-1] + 1]] = True
    return falls


def confidence_sequence(total: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """
    Interval for the mean of values in [0, 1] from their sum alone, right at every n at once with probability ``level``.

    The beta-binomial mixture with a uniform prior (Robbins 1970). For values between 0 and 1 it is wider than it need
    be, but still right, since ``(q/m)^x ((1-q)/(1-m))^(1-x) <= x q/m + (1-x) (1-q)/(1-m)``. Sums of several
    replicas may be added up first.

    >>> [round(end, 3) for end in confidence_sequence(90, 100)]
    [0.772, 0.971]
    >>> confidence_sequence(0, 0)
    (0.0, 1.0)
    """
    if n < 0 or not -1e-9 <= total <= n + 1e-9:
        raise CannotMeasure(f"a sum of {n} values in [0, 1] must be in [0, {n}], got {total}")
    if n == 0:
        return 0.0, 1.0
    hits = min(max(float(total), 0.0), float(n))
    misses = n - hits
    mixture = float(betaln(hits + 1.0, misses + 1.0))
    limit = -np.log1p(-level)

    def is_refuted(mean: float) -> bool:
        # 0 log 0 is 0 here: no hits say nothing against a mean of zero.
        # A mean that rounds to one is refuted by any miss, however small.
        against = hits * np.log(mean) if hits else 0.0
        with np.errstate(divide="ignore"):
            against += misses * np.log1p(-mean) if misses else 0.0
        return bool(mixture - against >= limit)

    centre = hits / n
    low = 0.0 if hits == 0 else _boundary(0.0, centre, is_refuted)
    high = 1.0 if misses == 0 else 1.0 - _boundary(0.0, 1.0 - centre, lambda share: is_refuted(1.0 - share))
    return low, high


def _gains(values: FloatArray, bounds: FloatArray) -> tuple[BoolArray, FloatArray]:
    """Which rows are about which stream, and (n, S, stakes) the gain of each bet; one where a row is not."""
    if not bool(np.all((bounds > 0.0) & (bounds < 1.0))):
        raise CannotMeasure(f"bounds must be in (0, 1), got {np.min(bounds)} to {np.max(bounds)}")
    takes_part = ~np.isnan(values)
    known = np.where(takes_part, values, bounds)
    if known.size and not (known.min() >= 0.0 and known.max() <= 1.0):
        raise CannotMeasure(f"values must be in [0, 1], got {known.min()} to {known.max()}")
    relative = (known - bounds) / bounds
    return takes_part, 1.0 + relative[..., None] * STAKES


def _wealths(wealth: FloatArray, takes_part: BoolArray, gains: FloatArray) -> FloatArray:
    """(n, S, stakes) wealth after each row: the recursion of ``update``, solved for all rows at once."""
    growth = np.cumprod(gains, axis=0)
    # Every row a stream takes part in starts one more bettor, with a wealth of one before that row.
    entries = np.cumsum(np.where(takes_part[..., None], gains / growth, 0.0), axis=0)
    return np.asarray(growth * (wealth + entries))


def _boundary(refuted: float, held: float, is_refuted: Callable[[float], bool]) -> float:
    """The point between the two at which the answer changes, from the side that is refuted."""
    for _ in range(BISECTIONS):
        middle = (refuted + held) / 2.0
        if is_refuted(middle):
            refuted = middle
        else:
            held = middle
    return refuted
