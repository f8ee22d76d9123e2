"""Metrics follow the conventions, and are recorded by name."""

from prometheus_client.parser import text_string_to_metric_families

from service.telemetry import BUDGET_SECONDS, STAGES, Telemetry


def families() -> dict[str, object]:
    """Families of a fresh process, by name."""
    return {family.name: family for family in text_string_to_metric_families(Telemetry().render().decode())}


def test_names_carry_the_prefix_and_a_base_unit() -> None:
    """Seconds, bytes, utterances; never milliseconds."""
    names = set(families())
    assert all(name.startswith("router_") for name in names)
    assert [name for name in names if name.endswith(("_ms", "_milliseconds", "_kib", "_mib", "_percent"))] == []


def test_latency_histograms_have_an_edge_at_the_budget() -> None:
    """The share inside 15 ms is read off, not interpolated."""
    telemetry = Telemetry()
    telemetry.record_request("/route", 200, 0.0150)
    telemetry.record_request("/route", 200, 0.0151)
    text = telemetry.render().decode()
    assert BUDGET_SECONDS == 0.015
    assert 'router_request_seconds_bucket{endpoint="/route",le="0.015"} 1.0' in text
    assert 'router_stage_seconds_bucket{le="0.015",stage="inference"} 0.0' in text


def test_every_stage_is_there_from_the_start() -> None:
    """A stage that was never entered is 0, not missing."""
    text = Telemetry().render().decode()
    assert [stage for stage in STAGES if f'router_stage_seconds_count{{stage="{stage}"}} 0.0' not in text] == []


def test_a_batch_is_counted_in_full() -> None:
    """Two utterances, one of them with two intents."""
    telemetry = Telemetry()
    telemetry.record_batch(2, inference_s=0.004, decide_s=0.0002, log_s=0.0003)
    telemetry.record_waits([0.0001, 0.0001], [0.001, 0.002])
    telemetry.record_decisions(["multi", "ood"], ["refund", "greeting"])
    text = telemetry.render().decode()
    assert "router_batch_utterances_sum 2.0" in text
    assert 'router_stage_seconds_count{stage="queue"} 2.0' in text
    assert 'router_decisions_total{decision="ood"} 1.0' in text
    assert 'router_intents_total{intent="greeting"} 1.0' in text


def test_two_objects_do_not_share_counts() -> None:
    """Each has a registry of its own, so tests and processes cannot mix."""
    one, other = Telemetry(), Telemetry()
    one.record_departure()
    assert "router_departed_total 0.0" in other.render().decode()
