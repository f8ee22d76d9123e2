"""The Kubernetes manifests as they are applied: read from the rendered files, so that no cluster tool is needed."""

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

K8S = Path(__file__).resolve().parents[2] / "deploy" / "k8s"
OVERLAYS = ("cpu", "inferentia")
NAME = "app.kubernetes.io/name"

Resource = dict[str, Any]


def resources(overlay: str) -> list[Resource]:
    """What the overlay applies."""
    text = (K8S / "rendered" / f"{overlay}.yaml").read_text(encoding="utf-8")
    return [document for document in yaml.safe_load_all(text) if document]


def one(overlay: str, kind: str, name: str = "") -> Resource:
    """The only resource of a kind, or the one of that name."""
    found = [each for each in resources(overlay) if each["kind"] == kind]
    (only,) = [each for each in found if not name or each["metadata"]["name"] == name]
    return only


def pod(overlay: str) -> Resource:
    """The pod's spec."""
    spec: Resource = one(overlay, "StatefulSet")["spec"]["template"]["spec"]
    return spec


def containers(overlay: str) -> list[Resource]:
    """Every container of the pod, those that run before the others included."""
    return [*pod(overlay)["initContainers"], *pod(overlay)["containers"]]


def container(overlay: str, name: str = "service") -> Resource:
    """One container of the pod."""
    (found,) = [each for each in containers(overlay) if each["name"] == name]
    return found


def variables(overlay: str, name: str = "service") -> dict[str, str]:
    """A container's environment."""
    return {entry["name"]: entry["value"] for entry in container(overlay, name)["env"]}


def mounts(overlay: str, name: str) -> dict[str, tuple[str, bool]]:
    """Volume and whether it is read-only, by the path inside."""
    listed = container(overlay, name)["volumeMounts"]
    return {mount["mountPath"]: (mount["name"], mount.get("readOnly", False)) for mount in listed}


def cores(amount: str) -> float:
    """
    Of a CPU quantity.

    >>> cores("250m"), cores("2")
    (0.25, 2.0)
    """
    return float(amount.removesuffix("m")) / (1000 if amount.endswith("m") else 1)


def gibibytes(amount: str) -> float:
    """
    Of a memory or storage quantity.

    >>> gibibytes("512Mi"), gibibytes("4Gi")
    (0.5, 4.0)
    """
    return float(amount[:-2]) / {"Mi": 1024, "Gi": 1}[amount[-2:]]
