"""What a benchmark found, as values and as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtest.contest import Overload
from loadtest.latency import LatencySummary


@dataclass(frozen=True)
class Figures:
    """Of one server."""

    name: str
    limits: Mapping[float, float]
    """Latency budget in ms -> highest rate that holds."""
    alone: LatencySummary
    at_rates: Mapping[float, LatencySummary]
    errors_at_rates: Mapping[float, int]
    overload: Overload | None
    """None when no rate holds, so that there is no twice of it."""
    peak_memory_mib: float | None
    """None for a server that was not started here."""


@dataclass(frozen=True)
class BenchResult:
    """Of all servers; ours first."""

    servers: tuple[Figures, ...]


def tables(result: BenchResult) -> str:
    """The tables of a result, in Markdown."""
    return "\n\n".join([_limits(result), _latencies(result), _overloads(result)])


def _limits(result: BenchResult) -> str:
    first = result.servers[0]
    names = [figures.name for figures in result.servers]
    rows = []
    for slo_ms, limit in first.limits.items():
        others = [figures.limits[slo_ms] for figures in result.servers[1:]]
        ratios = [f"{limit / other:.2f}x" if other else "n/a" for other in others]
        rows.append([f"{slo_ms:g} ms", f"{limit:.0f}", *(f"{other:.0f}" for other in others), *ratios])
    header = ["P95 below", *(f"{name}, requests/s" for name in names), *(f"ratio to {name}" for name in names[1:])]
    return markdown(header, rows)


def _latencies(result: BenchResult) -> str:
    rows = []
    for figures in result.servers:
        rows.append([figures.name, "one client", *_percentiles(figures.alone), "0"])
        for rate, latency in figures.at_rates.items():
            rows.append([figures.name, f"{rate:g}/s", *_percentiles(latency), str(figures.errors_at_rates[rate])])
    return markdown(["server", "load", "answered", "P50 ms", "P95 ms", "P99 ms", "max ms", "errors"], rows)


def _percentiles(latency: LatencySummary) -> list[str]:
    values = (latency.p50, latency.p95, latency.p99, latency.maximum)
    return [str(latency.answered), *(f"{value:.1f}" for value in values)]


def _overloads(result: BenchResult) -> str:
    rows = []
    for figures in result.servers:
        memory = "n/a" if figures.peak_memory_mib is None else f"{figures.peak_memory_mib:.0f}"
        found = figures.overload
        if found is None:
            rows.append([figures.name, "no rate holds", "n/a", "n/a", "n/a", "n/a", memory])
            continue
        shares = (f"{found.refused_share:.1%}", f"{found.failed_share:.1%}")
        rows.append(
            [
                figures.name,
                f"{found.rate:.0f}/s",
                f"{found.admitted.p95:.1f}",
                *shares,
                f"{found.recovery_s:.1f}",
                memory,
            ]
        )
    header = ["server", "twice the limit", "admitted P95 ms", "refused", "failed", "recovery s", "peak memory MiB"]
    return markdown(header, rows)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    A table.

    >>> print(markdown(["a"], [["1"], ["2"]]))
    | a |
    |---|
    | 1 |
    | 2 |
    """
    lines = [header, *rows]
    rendered = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([rendered[0], "|" + "---|" * len(header), *rendered[1:]])
