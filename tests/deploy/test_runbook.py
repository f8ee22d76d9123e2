"""docs/runbook.md has one section an alert, and says what the rules say."""

import re

import yaml  # type: ignore[import-untyped, unused-ignore]

from monitoring.failure_tree import DEFAULT_TREE, load
from monitoring.settings import MonitorSettings
from monitoring.settings import variable as monitor_variable
from service.errors import PROBLEMS
from service.settings import Settings
from service.settings import variable as router_variable
from tests.deploy.programs import PROMETHEUS, ROOT

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^#|\Z)", RUNBOOK, flags=re.MULTILINE | re.DOTALL))


def alerts() -> dict[str, str]:
    """Name to link."""
    documents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (PROMETHEUS / "rules").glob("*.yml")]
    rules = [rule for document in documents for group in document["groups"] for rule in group["rules"]]
    return {rule["alert"]: rule["annotations"]["runbook_url"] for rule in rules if "alert" in rule}


def test_alerts_and_sections_are_the_same() -> None:
    """No alert without its section, no section of an alert that is gone, none twice."""
    assert SECTIONS.keys() == alerts().keys()
    assert len(re.findall(r"^## ", RUNBOOK, flags=re.MULTILINE)) == len(SECTIONS)


def test_links_lead_to_their_sections() -> None:
    """The prefix is this file; the anchor is that of the heading."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    prefix = config["global"]["external_labels"]["runbook"]
    assert (ROOT / prefix).is_file()
    anchors = {name.lower() for name in SECTIONS}
    for link in alerts().values():
        file, _, anchor = link.partition("#")
        assert file == "{{ $externalLabels.runbook }}"
        assert anchor in anchors


def test_every_section_says_the_three_things() -> None:
    """What it means, what the system has done, what to do; in this order."""
    for name, text in SECTIONS.items():
        parts = re.findall(r"^\*\*(Means\.|The system has\*\*|Do\.)", text, flags=re.MULTILINE)
        assert [part.rstrip("*") for part in parts] == ["Means.", "The system has", "Do."], name


def test_what_the_runbook_names_exists() -> None:
    """Settings, error types, actions, and other alerts."""
    settings = {router_variable(name) for name in Settings.model_fields}
    settings |= {monitor_variable(name) for name in MonitorSettings.model_fields}
    assert set(re.findall(r"\b(?:ROUTER|MONITOR)_[A-Z_]+\b", RUNBOOK)) - settings == set()
    assert set(re.findall(r"\b(?:Router|Monitor|Incident)[A-Z]\w+", RUNBOOK)) - SECTIONS.keys() == set()
    known = {problem.error_type for problem in PROBLEMS.values()} | load(DEFAULT_TREE).actions.keys()
    known |= {"malformed", "future_schema", "unknown_version", "orphaned", "too_late", "candidate", "error_type"}
    known |= {"queue", "inference", "tokenize", "log", "runbook", "window", "critical", "warning", "diagnosis"}
    assert set(re.findall(r"`([a-z_]+)`", RUNBOOK)) - known == set()
