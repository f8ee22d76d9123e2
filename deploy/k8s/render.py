"""
Writes what Kubernetes reads but people do not: ``python -m deploy.k8s.render``; needs kubectl.

- observability/prometheus-rules.yaml: the rule files of monitoring/prometheus in one PrometheusRule
- rendered/<overlay>.yaml: what ``kubectl apply -k deploy/k8s/<overlay>`` applies, under the digest of its sources

The tests check both, without kubectl too: another digest means that something was changed and not rendered again.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
RULES = FOLDER.parents[1] / "monitoring" / "prometheus" / "rules"
RULES_FILE = FOLDER / "observability" / "prometheus-rules.yaml"
OVERLAYS = ("cpu", "inferentia")
_RULES_HEAD = """\
# Made of monitoring/prometheus/rules by `python -m deploy.k8s.render`: change them there.
# Links to the runbook begin with the external label `runbook` of the Prometheus that reads this.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: manga-router
spec:
  groups:
"""
_GROUPS = "groups:\n"


def prometheus_rules(folder: Path = RULES) -> str:
    """The groups of every rule file, as they are written there; raises ValueError for a file without groups."""
    parts = []
    for file in sorted(folder.glob("*.yml")):
        _, found, groups = file.read_text(encoding="utf-8").partition(_GROUPS)
        if not found:
            raise ValueError(f"{file} holds no groups")
        parts.append("".join(f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True)))
    return _RULES_HEAD + "\n".join(parts)


def digest_of_sources(overlay: str) -> str:
    """SHA-256 over base and overlay, names and contents."""
    digest = hashlib.sha256()
    for file in sorted([*(FOLDER / "base").glob("*.yaml"), *(FOLDER / overlay).glob("*.yaml")]):
        digest.update(f"{file.relative_to(FOLDER)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def rendered(kubectl: str, overlay: str) -> str:
    """What kubectl makes of a folder, after a line that names its sources; raises CalledProcessError."""
    command = [kubectl, "kustomize", str(FOLDER / overlay)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own command
    return first_line(overlay) + run.stdout


def first_line(overlay: str) -> str:
    """Of a rendered file."""
    return f"# python -m deploy.k8s.render; sources {digest_of_sources(overlay)}\n"


def main() -> None:
    """See the module."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise SystemExit("kubectl is not installed")
    RULES_FILE.write_text(prometheus_rules(), encoding="utf-8")
    for overlay in OVERLAYS:
        (FOLDER / "rendered" / f"{overlay}.yaml").write_text(rendered(kubectl, overlay), encoding="utf-8")


if __name__ == "__main__":
    main()
