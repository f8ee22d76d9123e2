"""Metrics say what was counted, measured and decided; docs/monitoring.md names each of them."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from monitoring.settings import MonitorSettings, variable
from monitoring.snapshot import Snapshot
from monitoring.telemetry import Telemetry
from tests.monitoring.snapshots import FULL

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
STREAM = {"version": "3", "policy": "3.1", "role": "champion"}


def sample(name: str, **labels: str) -> float | None:
    """Of a telemetry over the full snapshot."""
    return Telemetry(lambda: FULL).registry.get_sample_value(name, labels)


def test_events_and_labels_are_counted_by_what_became_of_them() -> None:
    """Streams that were forgotten keep their part of what is summed over streams."""
    assert sample("monitor_events_total", kind="prediction") == 100
    assert sample("monitor_events_skipped_total", reason="unknown_version") == 4
    assert sample("monitor_events_missing_total", kind="label") == 3
    fates = ["joined", "early", "too_late", "foreign", "repeated", "corrected", "outranked", "orphaned"]
    assert [sample("monitor_labels_total", fate=fate) for fate in fates] == [530, 1, 2, 3, 5, 6, 8, 9]


def test_each_stream_has_its_own_counters() -> None:
    """Those that were forgotten have none: their sum jumps, and a rate over it would count twice."""
    names = ("predictions", "ood_predictions", "over_budget_predictions", "labelled", "labelled_ood", "correct")
    assert [sample(f"monitor_{name}_total", **STREAM) for name in names] == [90, 10, 2, 30, 4, 20]
    assert sample("monitor_label_join_ratio", **STREAM) == 0.75
    assert sample("monitor_predictions_total", version="retired", policy="retired", role="champion") is None


def test_delays_are_a_histogram() -> None:
    """Cumulative, its last bucket is the count."""
    buckets = [
        found.value
        for family in Telemetry(lambda: FULL).registry.collect()
        for found in family.samples
        if found.name == "monitor_label_delay_seconds_bucket"
    ]
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[-1], sample("monitor_label_delay_seconds_count", **STREAM)) == (28, 30, 30)


def test_calibration_is_counted_by_bin() -> None:
    """So that the bins of a fleet can be summed."""
    names = ("labelled", "correct", "confidence")
    values = [sample(f"monitor_calibration_bin_{name}_total", bin="00", **STREAM) for name in names]
    assert values == [26, 13, 6.5]
    assert sample("monitor_calibration_bin_labelled_total", bin="14", **STREAM) == 0


def test_signals_have_value_interval_reference_and_verdict() -> None:
    """What could not be measured has no value, and is inconclusive."""
    accuracy = {"signal": "accuracy", **STREAM}
    parts = ("value", "low", "high", "reference", "rows", "breached", "inconclusive")
    assert [sample(f"monitor_signal_{part}", **accuracy) for part in parts] == [0.88, 0.86, 0.9, 0.92, 1000, 1, 0]
    unknown = {"signal": "ood_recall", **STREAM}
    assert sample("monitor_signal_value", **unknown) is None
    assert [sample(f"monitor_signal_{part}", **unknown) for part in ("rows", "breached", "inconclusive")] == [0, 0, 1]
    assert sample("monitor_segment_accuracy_ratio", segment="lang=ja", **STREAM) == 0.7
    assert sample("monitor_reference_info", version="3", origin="production") == 1


def test_incidents_and_outbox_are_there() -> None:
    """Those that are open, and what waits."""
    assert sample("monitor_incidents_open", branch="accuracy_down", diagnosis="accuracy_down/retrain") == 1
    names = ("monitor_outbox_waiting", "monitor_outbox_dead", "monitor_outbox_oldest_seconds")
    assert [sample(name) for name in names] == [1, 2, 99]


def test_what_is_rendered_can_be_read() -> None:
    """Before anything happened, and after everything did."""
    for snapshot in (Snapshot(at=0.0), FULL):
        text = Telemetry(lambda held=snapshot: held).render().decode()  # type: ignore[misc]
        families = list(text_string_to_metric_families(text))
        assert {family.name for family in families} >= {
            "monitor_events",
            "monitor_signal_value",
            "monitor_step_seconds",
        }


def setting_rows() -> list[str]:
    """Variable, default and the text at the field."""
    return [
        f"| `{variable(name)}` | {_shown(field.default)} | {_one_line(field.description)} |"
        for name, field in MonitorSettings.model_fields.items()
    ]


def metric_rows() -> list[str]:
    """Name as it is exposed, type and help."""
    rows = []
    for family in Telemetry(lambda: Snapshot(at=0.0)).registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        rows.append(f"| `{name}` | {family.type} | {family.documentation} |")
    return rows


def _shown(default: object) -> str:
    if isinstance(default, Path):
        return f"`{default.relative_to(ROOT) if default.is_absolute() else default}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return "" if default == "" else f"`{default}`"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def test_every_setting_has_its_row() -> None:
    """With its default and what turning it does."""
    assert [row for row in setting_rows() if row not in DOCUMENT.splitlines()] == []


def test_every_metric_has_its_row() -> None:
    """With its type."""
    assert [row for row in metric_rows() if row not in DOCUMENT.splitlines()] == []


def test_no_row_describes_what_is_gone() -> None:
    """Tables hold nothing but what the code has."""
    rows = [line for line in DOCUMENT.splitlines() if line.startswith(("| `MONITOR_", "| `monitor_"))]
    assert [row for row in rows if row not in {*setting_rows(), *metric_rows()}] == []
