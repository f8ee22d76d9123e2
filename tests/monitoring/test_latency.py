"""Signals of latency: quantiles with intervals that bear every look, and the stage a delay comes from."""

import numpy as np
import pytest

from monitoring.latency import (
    LATENCY_SIGNALS,
    STAGES,
    exceedances,
    latency_signals,
    quantile_claim,
    quantile_signal,
    tail_means,
)
from monitoring.sequential import start, update
from monitoring.signals import Verdict
from tests.monitoring.watches import WATCHES

WATCH = WATCHES["total_p95_ms"]


def stage_times(n: int, seed: int, queue_ms: float = 0.0) -> np.ndarray:
    """(n, 3) milliseconds of each stage, the queue longer by so much for half of the requests."""
    rng = np.random.default_rng(seed)
    times = rng.gamma(2.0, [0.05, 0.4, 1.0], (n, 3))
    times[:, 1] += queue_ms * (rng.random(n) < 0.5)
    return np.asarray(times)


def measured(times: np.ndarray, reference: np.ndarray) -> dict[str, tuple[float, Verdict]]:
    """Value and verdict of every latency signal."""
    total, before = times.sum(axis=1), reference.sum(axis=1)
    columns = dict(zip(("total", *STAGES), (before, *reference.T), strict=True))
    levels = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    references = {f"{s}_{q}_ms": float(np.quantile(columns[s], level)) for s in columns for q, level in levels.items()}
    references |= {f"{stage}_share_of_delay": 0.0 for stage in STAGES} | {"over_15_ms_share": 0.0}
    signals = latency_signals(
        times, total, WATCHES, references, tail_means(reference, before), {}, np.random.default_rng(0)
    )
    assert tuple(signal.name for signal in signals) == LATENCY_SIGNALS
    return {signal.name: (signal.value, signal.verdict) for signal in signals}


class TestSignals:
    def test_delay_in_the_queue_is_found_and_laid_to_batching(self) -> None:
        """Half of the requests 6 ms longer in the queue: P95 breached, and the queue has the share of the delay."""
        got = measured(stage_times(1500, 1, queue_ms=6.0), stage_times(3000, 2))
        assert got["total_p95_ms"][1] is Verdict.BREACHED
        assert got["queue_share_of_delay"][1] is Verdict.BREACHED
        assert got["queue_share_of_delay"][0] > 0.8
        assert got["inference_share_of_delay"][1] is Verdict.OK

    def test_quiet_window_breaches_nothing(self) -> None:
        """Other requests of the same kind breach no quantile, of no stage."""
        got = measured(stage_times(1500, 3), stage_times(3000, 4))
        assert [name for name, (_, verdict) in got.items() if "_ms" in name and verdict is Verdict.BREACHED] == []

    def test_no_delay_has_no_share(self) -> None:
        """Requests that all became quicker leave the shares unmeasured rather than at a number."""
        got = measured(stage_times(500, 5) / 2, stage_times(500, 6))
        assert all(np.isnan(got[f"{stage}_share_of_delay"][0]) for stage in STAGES)


class TestQuantiles:
    def test_interval_holds_the_true_quantile_at_every_look(self) -> None:
        """Of 60 streams looked at ten times each, at most a few leave the interval of P95 at any look."""
        outside = 0
        for seed in range(60):
            values = np.random.default_rng(seed).random(1000)
            looks = [quantile_signal("total_p95_ms", values[:n], 0.95, WATCH, 0.95) for n in range(100, 1001, 100)]
            outside += not all(look.low <= 0.95 <= look.high for look in looks)
        assert outside <= 3 + 3

    @pytest.mark.parametrize("seed", range(5))
    def test_p95_four_ms_up_is_found_within_2000_requests_and_not_before(self, seed: int) -> None:
        """A quiet stream of 4,000 requests is silent; the shift after it is found in time."""
        reference = float(np.quantile(stage_times(3000, 99).sum(axis=1), 0.95))
        claim = quantile_claim(WATCH, 0.95)
        evidence = start(claim)
        quiet = exceedances(stage_times(4000, seed).sum(axis=1), WATCH, reference)
        evidence = update(evidence, claim, quiet[:, None].astype(float))
        assert not evidence.has_detected
        slow = exceedances(stage_times(2000, seed + 50).sum(axis=1) + 4.0, WATCH, reference)
        evidence = update(evidence, claim, slow[:, None].astype(float))
        assert evidence.detected_at is not None
        assert 4000 < evidence.detected_at <= 6000

    def test_few_rows_leave_the_upper_end_open(self) -> None:
        """Ten requests say nothing of how high P95 may be."""
        assert quantile_signal("total_p95_ms", np.arange(10.0), 0.95, WATCH, 5.0).high == float("inf")
