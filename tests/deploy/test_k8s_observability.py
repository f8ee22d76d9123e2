"""What the cluster's Prometheus and Grafana get: rules and dashboards as on one machine, and both processes."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from deploy.k8s.render import RULES_FILE, prometheus_rules
from monitoring.grafana.build import FOLDER as DASHBOARDS
from tests.deploy.manifests import K8S, OVERLAYS, one
from tests.deploy.programs import PROMETHEUS

GRAFANA = DASHBOARDS.parent
MOST_BYTES = 262_144
"""Of an object that ``kubectl apply`` can remember in its annotation."""

ENDPOINT = {"port", "path", "interval", "relabelings"}
RELABELING = {"targetLabel", "replacement"}
GROUP = {"name", "interval", "rules"}
RULE = {"record", "alert", "expr", "for", "labels", "annotations"}
"""Fields of the operator's resources that are used, so that one misspelt is found."""


def rule_groups() -> list[dict[str, Any]]:
    """Of the rule files that Prometheus reads on one machine."""
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    return [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]


def test_prometheus_rule_is_made_of_the_rule_files() -> None:
    """``python -m deploy.k8s.render``, and it holds every group of every file."""
    text = RULES_FILE.read_text(encoding="utf-8")
    assert text == prometheus_rules()
    resource = yaml.safe_load(text)
    assert (resource["apiVersion"], resource["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert resource["spec"] == {"groups": rule_groups()}


def test_prometheus_rule_has_the_fields_of_the_operator() -> None:
    """Group names are told apart; a rule either records or alerts; durations are Prometheus'."""
    groups = yaml.safe_load(RULES_FILE.read_text(encoding="utf-8"))["spec"]["groups"]
    assert len({group["name"] for group in groups}) == len(groups)
    for group in groups:
        assert group.keys() <= GROUP
        for rule in group["rules"]:
            assert rule.keys() <= RULE
            assert ("record" in rule) != ("alert" in rule)
            assert re.fullmatch(r"\d+[smhd]", rule.get("for", "1m"))
            words = {**rule.get("labels", {}), **rule.get("annotations", {})}
            assert all(isinstance(text, str) for text in words.values())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_both_processes_are_scraped_once_and_by_the_jobs_of_the_rules(overlay: str) -> None:
    """From the service that has every replica, and not again from the balanced one."""
    monitor = one(overlay, "ServiceMonitor")["spec"]
    assert monitor.keys() == {"selector", "endpoints"}
    wanted = monitor["selector"]["matchLabels"]
    services = [one(overlay, "Service", name) for name in ("manga-router", "manga-router-replicas")]
    (chosen,) = [service for service in services if wanted.items() <= service["metadata"]["labels"].items()]
    ports = {port["name"] for port in chosen["spec"]["ports"]}
    jobs = {}
    for endpoint in monitor["endpoints"]:
        assert endpoint.keys() == ENDPOINT
        assert (endpoint["path"], endpoint["port"] in ports) == ("/metrics", True)
        (relabeling,) = endpoint["relabelings"]
        assert relabeling.keys() == RELABELING
        assert relabeling["targetLabel"] == "job"
        jobs[endpoint["port"]] = relabeling["replacement"]
    assert jobs == {"http": "router", "monitor": "monitor"}
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    assert {job["job_name"] for job in config["scrape_configs"]} == set(jobs.values())
    intervals = {endpoint["interval"] for endpoint in monitor["endpoints"]}
    assert intervals == {config["global"]["scrape_interval"]}


def test_every_dashboard_is_a_config_map_of_its_file() -> None:
    """By the label that Grafana's chart looks for; a new dashboard cannot be left out."""
    kustomization = yaml.safe_load((GRAFANA / "kustomization.yaml").read_text(encoding="utf-8"))
    generated = kustomization["configMapGenerator"]
    files = [file for each in generated for file in each["files"]]
    assert sorted(files) == sorted(f"{path.parent.name}/{path.name}" for path in DASHBOARDS.glob("*.json"))
    assert all(len(each["files"]) == 1 for each in generated)
    assert len({each["name"] for each in generated}) == len(generated)
    assert kustomization["generatorOptions"]["labels"] == {"grafana_dashboard": "1"}
    assert all((GRAFANA / file).stat().st_size < MOST_BYTES * 3 // 4 for file in files)


def test_kustomize_takes_rules_and_dashboards_together() -> None:
    """From files outside its folder it may take only folders that are kustomizations themselves."""
    kustomization = yaml.safe_load((K8S / "observability" / "kustomization.yaml").read_text(encoding="utf-8"))
    targets = [(K8S / "observability" / path).resolve() for path in kustomization["resources"]]
    assert targets == [RULES_FILE, GRAFANA]
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return
    command = [kubectl, "kustomize", str(K8S / "observability")]
    applied = list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    maps = [each for each in applied if each["kind"] == "ConfigMap"]
    texts = {name: text for each in maps for name, text in each["data"].items()}
    assert texts == {path.name: path.read_text(encoding="utf-8") for path in DASHBOARDS.glob("*.json")}
    assert all(json.loads(text)["title"] for text in texts.values())
    (rules,) = [each for each in applied if each["kind"] == "PrometheusRule"]
    assert rules["spec"]["groups"] == rule_groups()
    assert {each["metadata"]["labels"]["app.kubernetes.io/name"] for each in applied} == {"manga-router"}
