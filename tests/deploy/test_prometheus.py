"""A real Prometheus scrapes the real service and sidecar with the project's configuration."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.live_system import Asked, Server, alertmanager, prometheus, router, send_traffic, sidecar, until
from tests.deploy.programs import ROOT

DASHBOARDS = sorted((ROOT / "monitoring" / "grafana" / "json").glob("*.json"))
PINNED, FURTHER, LAST = 400, 600, 30
"""Messages that become the reference, and those that are compared with it: every signal then has rows. With the last
ones recent windows hold something, however long the others took."""


class System:
    """What runs: both processes have taken traffic and labels, and Prometheus has seen it."""

    def __init__(self, asked: Asked, monitor: Server) -> None:
        self.asked = asked
        self.monitor = monitor


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Traffic before and after the reference was pinned."""
    folder = tmp_path_factory.mktemp("system")
    with ExitStack() as stack:
        service = stack.enter_context(router(folder))
        small = {"MONITOR_PIN_PREDICTIONS": str(PINNED), "MONITOR_PIN_LABELLED": str(PINNED)}
        monitor = stack.enter_context(sidecar(folder, **small))
        asked = stack.enter_context(prometheus(folder, {"router": service, "monitor": monitor}))
        send_traffic(service.url, 0, PINNED)
        until(lambda: _sum(asked, 'monitor_reference_info{origin="production"}') == 1, "a pinned reference")
        send_traffic(service.url, PINNED, FURTHER)
        until(lambda: bool(asked.query('monitor_signal_value{signal="embedding_mmd"}')), "the rarest signal measured")
        send_traffic(service.url, PINNED + FURTHER, LAST)
        everything = PINNED + FURTHER + LAST
        until(lambda: _sum(asked, "sum(monitor_labelled_total)") == everything, "every label in Prometheus")
        until(lambda: not _missing(asked), "every recorded figure")
        yield System(asked, monitor)


@pytest.mark.slow
def test_both_processes_are_scraped(system: System) -> None:
    """By the jobs that the alerts name."""
    assert system.asked.targets() == {"router": "up", "monitor": "up"}


@pytest.mark.slow
def test_every_rule_is_evaluated(system: System) -> None:
    """Without an error, alerts included."""
    assert [rule["name"] for rule in system.asked.rules() if rule["health"] != "ok"] == []


@pytest.mark.slow
def test_a_system_that_runs_fires_no_alert_on_itself(system: System) -> None:
    """Both are up, ready, reading and assessing; latency and quality depend on the machine and the messages."""
    on_itself = {"RouterDown", "RouterNotReady", "RouterEventsLost", "RouterModelRefused"}
    assert {name for name in system.asked.firing() if name.startswith("Monitor") or name in on_itself} == set()


@pytest.mark.slow
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_shows_data(system: System, path: Path) -> None:
    """Each query of each panel, its variables filled in as Grafana would."""
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    queries = [(panel["title"], each["expr"]) for panel in dashboard["panels"] for each in panel.get("targets", [])]
    assert queries
    assert [query for query in queries if not system.asked.query(filled_in(query[1]))] == []


@pytest.mark.slow
def test_recorded_ece_is_that_of_the_bins(system: System) -> None:
    """Computed here from the sidecar's own exposition, and not zero."""
    families = {
        one.name: one for one in text_string_to_metric_families(httpx.get(system.monitor.url + "/metrics").text)
    }
    bins: dict[str, dict[str, float]] = {}
    for part in ("labelled", "correct", "confidence"):
        for sample in families[f"monitor_calibration_bin_{part}"].samples:
            bins.setdefault(sample.labels["bin"], {})[part] = sample.value
    labelled = sum(bin_["labelled"] for bin_ in bins.values())
    ece = sum(abs(bin_["correct"] - bin_["confidence"]) for bin_ in bins.values()) / labelled
    assert len(bins) == 15
    assert 0.0 < ece < 1.0
    until(lambda: _sum(system.asked, "monitor:ece:ratio") == pytest.approx(ece, abs=1e-9), f"ECE of {ece} recorded")


@pytest.mark.slow
def test_a_killed_sidecar_is_told_to_people(tmp_path: Path) -> None:
    """MonitorDown fires and reaches Alertmanager with its link; the wait before it is shortened here."""
    with ExitStack() as stack:
        # The log of a service that has not started yet: the sidecar is alive, and not ready.
        monitor = stack.enter_context(sidecar(tmp_path, ready_path="/health/live"))
        receiver = stack.enter_context(alertmanager(tmp_path))
        targets = {"router": monitor, "monitor": monitor}
        asked = stack.enter_context(prometheus(tmp_path, targets, receiver, waits="2s"))
        until(lambda: _sum(asked, 'up{job="monitor"}') == 1, "the sidecar up")
        # Before its first scrape it was absent, which this wait is too short to bear.
        until(lambda: "MonitorDown" not in asked.firing(), "the alert over")
        monitor.kill()
        until(lambda: "MonitorDown" in asked.firing(), "MonitorDown firing")
        until(lambda: "MonitorDown" in _received(receiver), "MonitorDown at Alertmanager")
        alert = _received(receiver)["MonitorDown"]
    assert alert["labels"].keys() == {"alertname", "severity", "job", "instance"}
    assert alert["annotations"]["runbook_url"] == "docs/runbook.md#monitordown"


def filled_in(expression: str) -> str:
    """
    What Grafana's variables stand for when everything is chosen.

    >>> filled_in('rate(x{policy=~"$policy"}[$__rate_interval])')
    'rate(x{policy=~".*"}[10m])'
    """
    expression = expression.replace("$__rate_interval", "10m")
    expression = re.sub(r"\$\{?policy\}?", ".*", expression)
    assert "$" not in expression, expression
    return expression


def _missing(asked: Asked) -> list[str]:
    """Recorded figures without a sample."""
    recorded = {rule["name"] for rule in asked.rules() if rule["type"] == "recording"}
    return sorted(name for name in recorded if not asked.query(name))


def _sum(asked: Asked, expression: str) -> float | None:
    result = asked.query(expression)
    return float(result[0]["value"][1]) if result else None


def _received(receiver: Server) -> dict[str, Any]:
    return {one["labels"]["alertname"]: one for one in httpx.get(receiver.url + "/api/v2/alerts").json()}
