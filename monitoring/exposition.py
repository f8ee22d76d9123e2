"""A snapshot as metric families. Every family is there from the start, with no sample while nothing is known."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from monitoring.assessment import Assessment
from monitoring.counters import DELAY_EDGES_S, RETIRED, Counters, StreamCounters
from monitoring.observations import StreamKey
from monitoring.signals import Signal, Verdict
from monitoring.snapshot import Snapshot

STREAM = ("version", "policy", "role")
DELAY_EDGES = tuple(range(0, len(DELAY_EDGES_S), 8))
"""Of the edges that delays are counted by, those that are exposed."""
_STREAM_COUNTERS = (
    ("predictions", "predictions", "Predictions read."),
    ("ood_predictions", "ood", "Of them, decided out of distribution."),
    ("over_budget_predictions", "over_15_ms", "Of them, answered in more than 15 ms."),
    ("labelled", "labelled", "Predictions that got a label; each counts once, with its first."),
    ("labelled_ood", "labelled_ood", "Of them, out of distribution by their label."),
    ("correct", "correct", "Of the others, those whose top intent is in the label."),
)
_FATES = {
    "joined": "labelled",
    "early": "early",
    "too_late": "too_late",
    "foreign": "foreign",
}

_SIGNAL_GAUGES: tuple[tuple[str, str, Callable[[Signal], float]], ...] = (
    ("value", "A signal over the current window; its unit is the signal's.", lambda signal: signal.value),
    ("low", "Lower end of its interval.", lambda signal: signal.low),
    ("high", "Upper end of its interval.", lambda signal: signal.high),
    ("reference", "The same over the reference.", lambda signal: signal.reference),
    ("rows", "Rows that it is about.", lambda signal: signal.n),
    ("breached", "1 when it is breached.", lambda signal: signal.verdict is Verdict.BREACHED),
    ("inconclusive", "1 when its rows are too few to tell.", lambda signal: signal.verdict is Verdict.INCONCLUSIVE),
)


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """All of them, in the order of docs/monitoring.md."""
    yield from _journey(snapshot)
    # Forgotten streams are summed under one name, which then jumps: a rate over it would count them twice.
    streams = {key: counts for key, counts in snapshot.counters.streams.items() if key != RETIRED}
    yield from _streams(streams)
    yield from _calibration(streams)
    yield from _signals(snapshot.assessments)
    yield from _incidents(snapshot)


def _journey(snapshot: Snapshot) -> Iterator[Metric]:
    counters = snapshot.counters
    yield _counter(
        "monitor_events",
        "Rows of the event log that were read.",
        "kind",
        {"prediction": counters.predictions_read, "label": counters.labels_read},
    )
    yield _counter(
        "monitor_events_skipped",
        "Rows that could not be counted: malformed, of a newer schema, or of a version that the repository lacks.",
        "reason",
        {
            "malformed": counters.malformed,
            "future_schema": counters.future_schema,
            "unknown_version": counters.unknown_version,
        },
    )
    yield _counter(
        "monitor_events_missing",
        "Rows that retention deleted before they were read; of labels an upper bound.",
        "kind",
        {"prediction": counters.missing_predictions, "label": counters.missing_labels_at_most},
    )
    yield _gauge(
        "monitor_behind_seconds",
        "Age of the last event read while more is waiting; 0 when all was read.",
        snapshot.behind_s,
    )
    yield _gauge(
        "monitor_log_available",
        "1 when the event log could be read at the last look.",
        snapshot.health.log == "available",
    )
    yield _counter("monitor_labels", "Labels read, by what became of them.", "fate", _fates(counters))
    yield _gauge(
        "monitor_last_step_timestamp_seconds", "When the event log was last read, Unix time.", snapshot.last_step_at
    )
    yield _gauge(
        "monitor_last_assessment_timestamp_seconds",
        "When the signals were last measured, Unix time.",
        snapshot.last_assessment_at,
    )


def _fates(counters: Counters) -> dict[str, float]:
    by_stream = {
        fate: sum(getattr(counts, field) for counts in counters.streams.values()) for fate, field in _FATES.items()
    }
    return by_stream | {
        "repeated": counters.labels_repeated,
        "corrected": counters.labels_corrected,
        "outranked": counters.labels_outranked,
        "orphaned": counters.labels_orphaned,
    }


def _streams(streams: Mapping[StreamKey, StreamCounters]) -> Iterator[Metric]:
    for name, field, words in _STREAM_COUNTERS:
        family = CounterMetricFamily(f"monitor_{name}", words, labels=STREAM)
        for key, counts in streams.items():
            family.add_metric(_labels(key), getattr(counts, field))
        yield family
    ratio = GaugeMetricFamily(
        "monitor_label_join_ratio",
        "Of the predictions whose time for a label is up, the share that got one.",
        labels=STREAM,
    )
    delays = HistogramMetricFamily(
        "monitor_label_delay_seconds", "From the prediction to its label; without a sum.", labels=STREAM
    )
    for key, counts in streams.items():
        if counts.join_ratio is not None:
            ratio.add_metric(_labels(key), counts.join_ratio)
        delays.add_metric(_labels(key), list(_delay_buckets(counts)), sum_value=None)
        delays.add_sample(
            "monitor_label_delay_seconds_count", dict(zip(STREAM, _labels(key), strict=True)), counts.labelled
        )
    yield ratio
    yield delays


def _delay_buckets(counts: StreamCounters) -> Iterator[tuple[str, float]]:
    """Cumulative. A delay on an edge counts above it, which no rate over buckets can tell."""
    for edge in DELAY_EDGES[1:]:
        yield repr(round(float(DELAY_EDGES_S[edge]), 3)), float(counts.delays[:edge].sum())
    yield "+Inf", float(counts.delays.sum())


def _calibration(streams: Mapping[StreamKey, StreamCounters]) -> Iterator[Metric]:
    """Additive over processes, so that a fleet's calibration error is exact."""
    for name, field, words in (
        ("labelled", "count", "Labelled in-scope predictions, by bin of confidence; 15 of equal width."),
        ("correct", "correct", "Of them, those whose top intent is in the label."),
        ("confidence", "confidence", "Sum of their confidence."),
    ):
        family = CounterMetricFamily(f"monitor_calibration_bin_{name}", words, labels=(*STREAM, "bin"))
        for key, counts in streams.items():
            for bin_, value in enumerate(getattr(counts.calibration, field).tolist()):
                family.add_metric((*_labels(key), f"{bin_:02d}"), value)
        yield family


def _signals(assessments: Sequence[Assessment]) -> Iterator[Metric]:
    """A number that could not be measured is left out."""
    for name, words, of in _SIGNAL_GAUGES:
        family = GaugeMetricFamily(f"monitor_signal_{name}", words, labels=("signal", *STREAM))
        for assessment in assessments:
            for signal in assessment.signals.values():
                value = float(of(signal))
                if math.isfinite(value):
                    family.add_metric((signal.name, *_labels(assessment.key)), value)
        yield family
    accuracy = GaugeMetricFamily(
        "monitor_segment_accuracy_ratio",
        "Accuracy of a segment of the labelled window, while the accuracy is breached.",
        labels=("segment", *STREAM),
    )
    rows = GaugeMetricFamily(
        "monitor_segment_rows", "Labelled predictions that are in scope of that segment.", labels=("segment", *STREAM)
    )
    reference = GaugeMetricFamily(
        "monitor_reference_info",
        "1 for what the windows of a version are compared with: none, version or production.",
        labels=("version", "origin"),
    )
    for version, origin in sorted({(assessment.key.version, assessment.reference) for assessment in assessments}):
        reference.add_metric((version, origin), 1.0)
    for assessment in assessments:
        for finding in assessment.segments:
            if finding.accuracy.n > 0:
                labels = (finding.name, *_labels(assessment.key))
                accuracy.add_metric(labels, finding.accuracy.value)
                rows.add_metric(labels, finding.accuracy.n)
    yield accuracy
    yield rows
    yield reference


def _incidents(snapshot: Snapshot) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "monitor_incidents_open", "Incidents that have not ended.", labels=("branch", "diagnosis")
    )
    for (branch, diagnosis), count in Counter((one.branch, one.diagnosis) for one in snapshot.open_incidents).items():
        family.add_metric((branch, diagnosis), count)
    yield family
    yield _gauge("monitor_outbox_waiting", "Requests to actions without a result yet.", snapshot.outbox_waiting)
    yield _gauge("monitor_outbox_dead", "Requests that were given up.", snapshot.outbox_dead)
    yield _gauge("monitor_outbox_oldest_seconds", "Age of the oldest request that waits.", snapshot.outbox_oldest_s)


def _labels(key: StreamKey) -> tuple[str, str, str]:
    return key.version, key.policy, key.role


def _counter(name: str, words: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, words, labels=(label,))
    for value_label, value in values.items():
        family.add_metric((value_label,), value)
    return family


def _gauge(name: str, words: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(name, words)
    if value is not None:
        family.add_metric((), float(value))
    return family
