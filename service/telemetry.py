"""
Every metric of the service; call sites record through the named functions here.

With several workers, ``PROMETHEUS_MULTIPROC_DIR`` must be set before this module is imported: the values then live
in files of that folder, and any worker renders them all.
"""

import os
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

BUDGET_SECONDS = 0.015
"""An edge of every latency histogram, so that the share inside the budget is read off exactly."""
REQUEST_EDGES = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, BUDGET_SECONDS, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)
STAGE_EDGES = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, BUDGET_SECONDS, 0.03, 0.1, 1.0)
BATCH_EDGES = (1, 2, 4, 8, 16, 32, 64)
STAGES = ("parse", "tokenize", "queue", "inference", "decide", "log", "serialize")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Telemetry:
    """The metric objects of one process, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "router_requests",
            "Requests answered, by endpoint and HTTP status.",
            ("endpoint", "status"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "router_request_seconds",
            "From the first byte of the body read to the answer handed to the socket.",
            ("endpoint",),
            buckets=REQUEST_EDGES,
            registry=registry,
        )
        self._stage_seconds = Histogram(
            "router_stage_seconds",
            "Where the time goes: parse, tokenize, queue and serialize for each request; inference, decide and log "
            "for each micro-batch.",
            ("stage",),
            buckets=STAGE_EDGES,
            registry=registry,
        )
        self._batch_utterances = Histogram(
            "router_batch_utterances", "Utterances in a micro-batch.", buckets=BATCH_EDGES, registry=registry
        )
        self._decisions = Counter(
            "router_decisions",
            "Utterances decided, by verdict: single, multi or ood.",
            ("decision",),
            registry=registry,
        )
        self._intents = Counter(
            "router_intents",
            "Accepted intents; a multi-intent utterance counts for each.",
            ("intent",),
            registry=registry,
        )
        self._refused = Counter(
            "router_refused", "Requests that got a problem document, by error type.", ("error_type",), registry=registry
        )
        self._in_flight = Gauge(
            "router_in_flight_utterances", "Utterances inside now.", multiprocess_mode="livesum", registry=registry
        )
        self._limit = Gauge(
            "router_admission_limit_utterances",
            "Utterances admitted at once as of now; beyond it requests get 503.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._departed = Counter(
            "router_departed", "Requests whose client went away before the answer.", registry=registry
        )
        self._events_written = Counter("router_events_written", "Events that the log holds.", registry=registry)
        self._events_lost = Counter("router_events_lost", "Events that the log will never hold.", registry=registry)
        self._events_waiting = Gauge(
            "router_events_waiting",
            "Events kept in memory because the log cannot be written.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._events_deleted = Counter(
            "router_events_deleted", "Events and labels that retention deleted.", registry=registry
        )
        self._event_log_bytes = Gauge(
            "router_event_log_bytes",
            "Size of the event log with its write-ahead log.",
            multiprocess_mode="mostrecent",
            registry=registry,
        )
        self._labels = Counter(
            "router_labels", "Labels received, by source; a repeated one counts again.", ("source",), registry=registry
        )
        self._model = Gauge(
            "router_model_info",
            "1 for what serves now, 0 for what served before.",
            ("version", "policy", "backend", "precision"),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._swaps = Counter(
            "router_model_swaps",
            "Changes of the deployment noticed, by outcome: version, reload, policy, tuning or refused.",
            ("outcome",),
            registry=registry,
        )
        self._bind_children()

    def _bind_children(self) -> None:
        """Looking a child up by its labels takes a lock; the hot path keeps its own."""
        self._stage = {stage: self._stage_seconds.labels(stage) for stage in STAGES}
        self._verdict = {verdict: self._decisions.labels(verdict) for verdict in ("single", "multi", "ood")}
        self._by_intent: dict[str, Counter] = {}
        self._serving: tuple[str, str, str, str] | None = None
        self._by_answer: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def record_request(self, endpoint: str, status: int, total_s: float) -> None:
        """An answer; ``endpoint`` is a path that the service knows, or ``other``."""
        children = self._by_answer.get((endpoint, status))
        if children is None:
            children = self._requests.labels(endpoint, str(status)), self._request_seconds.labels(endpoint)
            self._by_answer[endpoint, status] = children
        count, seconds = children
        count.inc()
        seconds.observe(total_s)

    def record_translation(self, parse_s: float, serialize_s: float) -> None:
        """What HTTP and JSON cost an answered ``POST /route``."""
        self._stage["parse"].observe(parse_s)
        self._stage["serialize"].observe(serialize_s)

    def record_refusal(self, error_type: str) -> None:
        """A problem document was sent."""
        self._refused.labels(error_type).inc()

    def record_departure(self) -> None:
        """A client went away before its answer."""
        self._departed.inc()

    def record_waits(self, tokenize_s: Iterable[float], queue_s: Iterable[float]) -> None:
        """What the utterances of a micro-batch went through before it."""
        tokenize, queue = self._stage["tokenize"], self._stage["queue"]
        for seconds in tokenize_s:
            tokenize.observe(seconds)
        for seconds in queue_s:
            queue.observe(seconds)

    def record_batch(self, utterances: int, inference_s: float, decide_s: float, log_s: float) -> None:
        """A micro-batch."""
        self._batch_utterances.observe(utterances)
        self._stage["inference"].observe(inference_s)
        self._stage["decide"].observe(decide_s)
        self._stage["log"].observe(log_s)

    def record_decisions(self, verdicts: Sequence[str], intents: Iterable[str]) -> None:
        """Verdicts of a micro-batch, and every intent accepted in it."""
        for verdict in verdicts:
            self._verdict[verdict].inc()
        for intent in intents:
            child = self._by_intent.get(intent)
            if child is None:
                child = self._by_intent[intent] = self._intents.labels(intent)
            child.inc()

    def record_admission(self, in_flight: int, limit: int) -> None:
        """How full the service is."""
        self._in_flight.set(in_flight)
        self._limit.set(limit)

    def record_events(self, written: int, lost: int, waiting: int) -> None:
        """What became of events: counts since the last call, and how many wait now."""
        if written:
            self._events_written.inc(written)
        if lost:
            self._events_lost.inc(lost)
        self._events_waiting.set(waiting)

    def record_retention(self, deleted: int, log_bytes: int) -> None:
        """What retention deleted, and the size of the log after it."""
        self._events_deleted.inc(deleted)
        self._event_log_bytes.set(log_bytes)

    def record_label(self, source: str) -> None:
        """A label arrived."""
        self._labels.labels(source).inc()

    def record_model(self, version: str, policy: str, backend: str, precision: str) -> None:
        """What serves from now on; what served before goes to 0."""
        if self._serving is not None:
            self._model.labels(*self._serving).set(0)
        self._serving = version, policy, backend, precision
        self._model.labels(*self._serving).set(1)

    def record_swap(self, outcome: str) -> None:
        """``version``, ``reload``, ``policy`` or ``tuning`` was taken over, or the deployment was ``refused``."""
        self._swaps.labels(outcome).inc()

    def render(self) -> bytes:
        """The exposition text, over all workers."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        merged = CollectorRegistry()
        multiprocess.MultiProcessCollector(merged)
        return generate_latest(merged)
