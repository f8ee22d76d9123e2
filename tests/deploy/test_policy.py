"""Manifests and image file against public rules (checkov, in its own environment): they pass, and the rules bite."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.manifests import K8S, OVERLAYS
from tests.deploy.programs import ROOT

CHECKOV = ROOT / ".venv-policy" / "bin" / "checkov"


def check(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Exit status and findings of the rules in checkov.yaml."""
    assert CHECKOV.exists(), "checkov is not installed: make .venv-policy/.installed"
    command = [CHECKOV, "--config-file", K8S / "checkov.yaml", "--output", "json", *arguments]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT)
    findings: dict[str, Any] = json.loads(run.stdout)
    return run.returncode, findings


@pytest.mark.parametrize("what", [*(f"deploy/k8s/rendered/{overlay}.yaml" for overlay in OVERLAYS), "Dockerfile"])
def test_no_rule_is_broken(what: str) -> None:
    """Some sixty rules or more each; those that are not kept are named in checkov.yaml, with why."""
    status, findings = check("--file", what)
    assert status == 0, findings["results"]["failed_checks"]
    assert findings["summary"]["passed"] > 60
    assert findings["summary"]["parsing_errors"] == 0


@pytest.mark.parametrize(
    ("kept", "broken", "rule"),
    [
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "CKV_K8S_20"),
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "CKV_K8S_22"),
        ("runAsUser: 10001", "runAsUser: 0", "CKV_K8S_40"),
        ("automountServiceAccountToken: false", "automountServiceAccountToken: true", "CKV_K8S_38"),
    ],
)
def test_a_broken_rule_is_found(kept: str, broken: str, rule: str, tmp_path: Path) -> None:
    """Each in a copy of the manifests for the CPU."""
    text = (K8S / "rendered" / "cpu.yaml").read_text(encoding="utf-8")
    assert kept in text
    copy = tmp_path / "cpu.yaml"
    copy.write_text(text.replace(kept, broken), encoding="utf-8")
    status, findings = check("--file", copy)
    assert status == 1
    assert rule in {finding["check_id"] for finding in findings["results"]["failed_checks"]}
