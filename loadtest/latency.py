"""What a load run measured, and its summary. Latencies are in milliseconds, by nearest rank."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Sample(NamedTuple):
    """One request of a run."""

    due_s: float
    """When it had to leave, from the start of the run."""
    latency_ms: float
    """From when it was *due* to its last byte: a late sender does not hide a slow server."""
    status: int
    """HTTP status; 0 when no answer came."""
    error: str
    """Empty, or what went wrong: ``http_503``, ``wrong_answer``, ``timeout``, ``connection``."""


def percentile(ordered: Sequence[float], q: float) -> float:
    """
    Nearest-rank percentile of ascending values, q in 0..100; NaN of nothing.

    >>> [percentile([1.0, 2.0, 3.0, 4.0], q) for q in (0, 50, 75, 95, 100)]
    [1.0, 2.0, 3.0, 4.0, 4.0]
    """
    if not ordered:
        return math.nan
    return ordered[min(len(ordered), max(1, math.ceil(len(ordered) * q / 100))) - 1]


@dataclass(frozen=True)
class LatencySummary:
    """Percentiles of the answered requests, in milliseconds; NaN when none was answered."""

    answered: int
    p50: float
    p90: float
    p95: float
    p99: float
    maximum: float


def summarise(latencies_ms: Sequence[float]) -> LatencySummary:
    """
    Percentiles of latencies in any order.

    >>> summarise([3.0, 1.0, 2.0])
    LatencySummary(answered=3, p50=2.0, p90=3.0, p95=3.0, p99=3.0, maximum=3.0)
    """
    ordered = sorted(latencies_ms)
    p50, p90, p95, p99, maximum = (percentile(ordered, q) for q in (50, 90, 95, 99, 100))
    return LatencySummary(len(ordered), p50, p90, p95, p99, maximum)


def recovery_s(samples: Sequence[Sample], overload_ends_s: float, slo_ms: float, bucket_s: float = 0.1) -> float:
    """
    Seconds after an overload until everything is answered inside the budget for good.

    Requests due after the overload are put in buckets; the last bucket with an error, or with a 95th percentile at or
    over the budget, has to end first. 0 when there is none; infinite when the last bucket of the run is still bad.

    >>> bad, good = Sample(10.05, 90.0, 200, ""), Sample(10.95, 3.0, 200, "")
    >>> recovery_s([bad, good], 10.0, 15.0), recovery_s([good], 10.0, 15.0), recovery_s([bad], 10.0, 15.0)
    (0.1, 0.0, inf)
    """
    buckets: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample.due_s >= overload_ends_s:
            buckets.setdefault(int((sample.due_s - overload_ends_s) / bucket_s), []).append(sample)
    bad = [number for number, held in buckets.items() if not _is_healthy(held, slo_ms)]
    if not bad:
        return 0.0
    return math.inf if max(bad) == max(buckets) else round((max(bad) + 1) * bucket_s, 6)


def _is_healthy(samples: Sequence[Sample], slo_ms: float) -> bool:
    if any(sample.error for sample in samples):
        return False
    return percentile(sorted(sample.latency_ms for sample in samples), 95) < slo_ms
