"""Signals of latency: quantiles by stage, the share over the budget, and which stage a delay comes from."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import betaln

from model_repo.contract.bootstrap import Measure
from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray
from monitoring.sequential import Claim, Evidence
from monitoring.signals import (
    LEVEL,
    Signal,
    Watch,
    judge,
    lies_beyond,
    look_error,
    mean_signal,
    measured_signal,
    unmeasured,
)

STAGES = ("tokenize", "queue", "inference")
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
BUDGET_MS = 15.0
"""What the caller gives the router (design section 1)."""
TAIL = 0.05
"""The slowest share of requests, whose stages explain a P95."""

LATENCY_SIGNALS = (
    *(f"{stage}_{quantile}_ms" for stage in ("total", *STAGES) for quantile in QUANTILES),
    "over_15_ms_share",
    *(f"{stage}_share_of_delay" for stage in STAGES),
)


def latency_signals(
    stages_ms: FloatArray,
    total_ms: FloatArray,
    watches: Mapping[str, Watch],
    references: Mapping[str, float],
    reference_tail_ms: FloatArray,
    evidence: Mapping[str, Evidence],
    rng: np.random.Generator,
) -> list[Signal]:
    """
    LATENCY_SIGNALS over a window: ``stages_ms`` (n, 3) in the order of STAGES, ``total_ms`` (n,).

    ``reference_tail_ms`` (3,) is what ``tail_means`` gave over the reference.
    """
    signals = []
    for stage, values in (("total", total_ms), *zip(STAGES, stages_ms.T, strict=True)):
        for label, quantile in QUANTILES.items():
            name = f"{stage}_{label}_ms"
            signals.append(quantile_signal(name, values, quantile, watches[name], references[name], evidence.get(name)))
    name = "over_15_ms_share"
    over = total_ms > BUDGET_MS
    signals.append(mean_signal(name, over, watches[name], references[name], evidence.get(name)))
    slowest = _slowest(total_ms)
    for column, stage in enumerate(STAGES):
        name = f"{stage}_share_of_delay"
        measure = Measure(_share_of_delay(stages_ms[slowest], reference_tail_ms, column), len(slowest))
        signals.append(measured_signal(name, measure, len(slowest), watches[name], references[name], rng))
    return signals


def exceedances(latency_ms: FloatArray, watch: Watch, reference_ms: float) -> BoolArray:
    """Which rows are slower than the reference's quantile plus what is tolerated: their share is what is bet on."""
    return np.asarray(np.asarray(latency_ms) > reference_ms + watch.tolerated)


def quantile_claim(watch: Watch, quantile: float) -> Claim:
    """
    "The quantile is at most the reference's plus what is tolerated", that is: at most a share ``1 - quantile`` of the
    rows are ``exceedances``. Rows are taken as they come; a claim about independent rows this is not, about the chance
    of each given the past it is, so that a burst of slow requests is a breach while it lasts.
    """
    return Claim(np.array([1.0 - quantile]), watch.rows_per_false_alarm)


def quantile_signal(
    name: str, latency_ms: FloatArray, quantile: float, watch: Watch, reference: float, evidence: Evidence | None = None
) -> Signal:
    """
    A quantile, in milliseconds, with an interval that holds at every look at once.

    The interval is between two of the ordered values: those ranks that a beta-binomial mixture does not refute
    as the rank of the true quantile (Howard & Ramdas 2022).
    """
    n = len(latency_ms)
    if n == 0:
        return unmeasured(name, watch, reference)
    ordered = np.sort(np.asarray(latency_ms, dtype=np.float64))
    low, high = _quantile_interval(ordered, quantile, LEVEL)
    if evidence is None:
        strict = _quantile_interval(ordered, quantile, 1.0 - look_error(watch))
        has_detected = lies_beyond(watch, reference, *strict)
    else:
        has_detected = evidence.has_detected
    value = float(np.quantile(ordered, quantile))
    return Signal(
        name, value, low, high, n, judge(watch, value, reference, n, has_detected), reference, watch.threshold
    )


def tail_means(stages_ms: FloatArray, total_ms: FloatArray) -> FloatArray:
    """
    Mean of each stage (n, stages) over the slowest ``TAIL`` of the requests, one request at least.

    >>> tail_means(np.array([[1.0, 5.0, 2.0], [1.0, 1.0, 1.0]]), np.array([8.0, 3.0])).tolist()
    [1.0, 5.0, 2.0]
    """
    if len(total_ms) == 0:
        raise CannotMeasure("the slowest requests need at least one row, got none")
    return np.asarray(stages_ms[_slowest(total_ms)].mean(axis=0))


def _slowest(total_ms: FloatArray) -> IntArray:
    """Positions of the slowest requests."""
    return np.argsort(total_ms, kind="stable")[-max(1, round(TAIL * len(total_ms))) :]


def _share_of_delay(stages_ms: FloatArray, reference_ms: FloatArray, column: int) -> Callable[[FloatArray], FloatArray]:
    """
    Which share of a delay one stage accounts for: what its mean gained over the slowest requests, of what all gained.

    NaN where nothing was gained: without a delay there is no share.
    """

    def share(weights: FloatArray) -> FloatArray:
        means = weights @ np.asarray(stages_ms, dtype=np.float64) / weights.sum(axis=-1, keepdims=True)
        gained = np.maximum(means - reference_ms, 0.0)
        total = gained.sum(axis=-1)
        return np.asarray(gained[..., column] / np.where(total > 0, total, np.nan))

    return share


def _quantile_interval(ordered: FloatArray, quantile: float, level: float) -> tuple[float, float]:
    """Values at the lowest and highest rank that is not refuted; open ends reach to 0 and infinity."""
    n = len(ordered)
    below = np.arange(n + 1)
    against = below * np.log(quantile) + (n - below) * np.log1p(-quantile)
    held = np.flatnonzero(betaln(below + 1, n - below + 1) - against < -np.log1p(-level))
    fewest, most = int(held[0]), int(held[-1])
    return (float(ordered[fewest - 1]) if fewest else 0.0), (float(ordered[most]) if most < n else float("inf"))
