"""
Every metric of the sidecar. What is counted from events, measured or decided is read off a snapshot when asked for
(``exposition``); what happens in this process alone is recorded through the named functions here.
"""

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from monitoring.exposition import families
from monitoring.snapshot import Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
EDGES = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Telemetry:
    """The metric objects of one process, on a registry of their own."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        """``snapshot`` gives the one that holds now; called at every scrape, from any thread."""
        self.registry = registry = CollectorRegistry()
        self._step_seconds = Histogram(
            "monitor_step_seconds",
            "A look at the event log, and taking in what was there: a chunk at most.",
            buckets=EDGES,
            registry=registry,
        )
        self._assessment_seconds = Histogram(
            "monitor_assessment_seconds",
            "Measuring the signals of one stream and walking the tree.",
            buckets=EDGES,
            registry=registry,
        )
        self._log_failures = Counter(
            "monitor_log_failures", "Looks at the event log that could not read it.", registry=registry
        )
        self._incidents = Counter(
            "monitor_incidents",
            "What happened to incidents: begun, recovered, superseded by another diagnosis, or left to people.",
            ("branch", "diagnosis", "event"),
            registry=registry,
        )
        self._remedies = Counter(
            "monitor_remedies",
            "What came of actions: done, failed, nothing_to_do, dead (given up), or retried.",
            ("action", "outcome"),
            registry=registry,
        )
        build = Gauge("monitor_build_info", "1 for the release that runs.", ("version",), registry=registry)
        build.labels(_release()).set(1)
        registry.register(_SnapshotCollector(snapshot))

    def record_step(self, seconds: float) -> None:
        """A chunk was taken in."""
        self._step_seconds.observe(seconds)

    def record_assessment(self, seconds: float) -> None:
        """The signals were measured."""
        self._assessment_seconds.observe(seconds)

    def record_log_failure(self) -> None:
        """The log could not be read."""
        self._log_failures.inc()

    def record_incident(self, branch: str, diagnosis: str, event: str) -> None:
        """An incident has begun, recovered, been superseded or been left to people."""
        self._incidents.labels(branch, diagnosis, event).inc()

    def record_remedy(self, action: str, outcome: str) -> None:
        """A try of an action has come to an end."""
        self._remedies.labels(action, outcome).inc()

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """See the registry."""
        return families(self._snapshot())


def _release() -> str:
    try:
        return version("manga-assist-router")
    except PackageNotFoundError:
        # Run from the folder, not installed.
        return "unknown"
