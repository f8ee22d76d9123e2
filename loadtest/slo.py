"""The verdict on a run: latency and errors against what was promised."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.latency import LatencySummary, summarise


@dataclass(frozen=True)
class Slo:
    """What was promised."""

    p95_ms: float = 15.0
    """The 95th percentile of the answered requests stays below this."""
    error_share: float = 0.001
    """At most this share of requests has no right answer; 0 allows none."""
    fewest_requests: int = 100
    """Fewer than this prove nothing, and the run fails."""


@dataclass(frozen=True)
class Verdict:
    """What came of it; ``breaches`` is empty when everything was kept."""

    latency: LatencySummary
    errors: int
    error_share: float
    breaches: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 when everything was kept, 1 otherwise."""
        return 1 if self.breaches else 0

    def line(self) -> str:
        """One line for a person."""
        latency = self.latency
        figures = (
            f"{latency.answered} answered, {self.errors} errors ({self.error_share:.2%}), "
            f"P50 {latency.p50:.1f} P95 {latency.p95:.1f} P99 {latency.p99:.1f} max {latency.maximum:.1f} ms"
        )
        return f"{'FAILED' if self.breaches else 'PASSED'}: {figures}" + "".join(f"\n  {why}" for why in self.breaches)


def judge(latencies_ms: Sequence[float], errors: int, slo: Slo) -> Verdict:
    """
    The verdict on the latencies of answered requests and the number of the others.

    >>> judge([1.0] * 200, 0, Slo()).breaches
    ()
    >>> judge([15.0] * 200, 0, Slo()).breaches
    ('P95 15.0 ms, promised below 15.0 ms',)
    """
    latency = summarise(latencies_ms)
    requests = latency.answered + errors
    share = errors / requests if requests else 1.0
    breaches = []
    if requests < slo.fewest_requests:
        breaches.append(f"{requests} requests, at least {slo.fewest_requests} are needed for a verdict")
    if latency.answered and latency.p95 >= slo.p95_ms:
        breaches.append(f"P95 {latency.p95:.1f} ms, promised below {slo.p95_ms:.1f} ms")
    if share > slo.error_share:
        breaches.append(f"{share:.2%} errors, promised at most {slo.error_share:.2%}")
    return Verdict(latency, errors, share, tuple(breaches))
