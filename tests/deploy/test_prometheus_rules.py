"""Rules and alerts of Prometheus: valid, each proven to fire by a test of promtool, and about metrics that exist."""

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from model_repo.contract.calibration_error import bin_counts, equal_width_edges
from monitoring.failure_tree import DEFAULT_TREE, load
from monitoring.snapshot import Snapshot
from monitoring.telemetry import Telemetry as MonitorTelemetry
from service.telemetry import Telemetry as RouterTelemetry
from tests.deploy.programs import PROMETHEUS, ROOT, succeed

RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TEST_FILES = sorted((PROMETHEUS / "tests").glob("*.yml"))
SUFFIXES = re.compile(r"_(bucket|sum|count)$")


def rules() -> list[dict[str, Any]]:
    """Every rule of every file."""
    documents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in RULE_FILES]
    return [rule for document in documents for group in document["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Those that alert."""
    return [rule for rule in rules() if "alert" in rule]


def exposed() -> set[str]:
    """Names that the two processes expose, histograms by their family."""
    families = [*RouterTelemetry().registry.collect(), *MonitorTelemetry(lambda: Snapshot(at=0.0)).registry.collect()]
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}


def test_configurations_are_valid() -> None:
    """By the tools of those who read them."""
    succeed("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    succeed("promtool", "check", "rules", *RULE_FILES)
    succeed("amtool", "check-config", PROMETHEUS / "alertmanager.yml")


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_rules_give_what_is_worked_out_by_hand(path: Path) -> None:
    """Recorded figures, alerts that fire, and a quiet system that does not."""
    succeed("promtool", "test", "rules", path)


def test_every_alert_says_what_people_need() -> None:
    """CamelCase, one of two severities, a summary, a description and a link to its section."""
    for alert in alerts():
        name = alert["alert"]
        assert re.fullmatch(r"([A-Z][a-z]+)+", name), name
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        assert {"summary", "description", "runbook_url"} == alert["annotations"].keys(), name
        assert alert["annotations"]["runbook_url"] == "{{ $externalLabels.runbook }}#" + name.lower()


def test_every_alert_is_seen_to_fire() -> None:
    """By name, and burn rates by their window."""
    fired: set[tuple[str, str]] = set()
    for path in TEST_FILES:
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for case in test.get("alert_rule_test", []):
                fired |= {(case["alertname"], one["exp_labels"].get("window", "")) for one in case["exp_alerts"]}
            for case in test.get("promql_expr_test", []):
                for sample in case["exp_samples"] if 'alertstate="firing"' in case["expr"] else []:
                    labels = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
                    fired.add((labels.get("alertname", ""), labels.get("window", "")))
    assert {(alert["alert"], alert["labels"].get("window", "")) for alert in alerts()} - fired == set()


def test_the_quiet_system_is_held_against_every_rule() -> None:
    """A new file of rules cannot be left out."""
    quiet = yaml.safe_load((PROMETHEUS / "tests" / "quiet.yml").read_text(encoding="utf-8"))
    assert {Path(name).name for name in quiet["rule_files"]} == {path.name for path in RULE_FILES}


def test_burn_rates_can_be_reached() -> None:
    """A factor times its budget is a share, and a share above one is never seen."""
    found = [
        (alert["alert"], float(factor), float(budget))
        for alert in alerts()
        for factor, budget in re.findall(r"> ([\d.]+) \* (0\.\d+)", alert["expr"])
    ]
    assert {name for name, _, _ in found} == {"RouterLatencyBudgetBurn", "RouterErrorBudgetBurn"}
    # With some room: a service that bad would be noticed without an alert.
    assert all(factor * budget <= 0.5 for _, factor, budget in found)


def test_rules_ask_for_metrics_that_exist() -> None:
    """Of the processes, or recorded by another rule."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = exposed()
    for rule in rules():
        for name in set(re.findall(r"\b(?:router|monitor)[:_][a-z0-9_:]+", _without_strings(rule["expr"]))):
            assert name in recorded if ":" in name else SUFFIXES.sub("", name) in known or name in known, name


def test_rules_name_signals_and_branches_of_the_failure_tree() -> None:
    """All branches, and those signals that make them fire."""
    tree = load(DEFAULT_TREE)
    text = "\n".join(alert["expr"] for alert in alerts())
    branches = {branch.node: set(branch.signals) for branch in tree.branches}
    assert set(re.findall(r'branch="(\w+)"', text)) == branches.keys()
    named = {name for names in re.findall(r'signal=~?"([\w|]+)"', text) for name in names.split("|")}
    assert named == set.union(*branches.values())


@pytest.mark.parametrize("spread", ["even", "confident"])
def test_ece_above_the_gate_is_not_chance(spread: str) -> None:
    """A perfectly calibrated model, looked at once for each of 1,000 weeks of as few labels as the alert takes."""
    (alert,) = [alert for alert in alerts() if alert["alert"] == "EceAboveGate"]
    gate, labels = (float(number) for number in re.findall(r"role=\"champion\"} >=? ([\d.]+)", alert["expr"]))
    rng = np.random.default_rng(7)
    above = 0
    for _ in range(1000):
        shape = (1.0, 1.0) if spread == "even" else (6.0, 1.0)
        confidence = rng.beta(*shape, size=int(labels))
        bins = bin_counts(confidence, rng.random(len(confidence)) < confidence, equal_width_edges())
        above += float(np.abs(bins.correct - bins.confidence).sum() / bins.count.sum()) > gate
    assert above <= 1


def test_missing_components_are_named_to_who_is_not_root(tmp_path: Path) -> None:
    """The tests then fail; they are not left out."""
    identity = tmp_path / "id"
    identity.write_text("#!/bin/sh\necho 1000\n")
    identity.chmod(0o755)
    run = subprocess.run(
        ["/bin/sh", ROOT / "tests" / "components.sh"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "promtool" in run.stderr
    assert "apt-get install prometheus" in run.stderr


def _without_strings(expression: str) -> str:
    return re.sub(r'"[^"]*"', '""', expression)
