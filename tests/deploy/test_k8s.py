"""
The Kubernetes manifests: valid by the published schemas, and kept to our own rules. Static: nothing is scheduled.

The rendered files are committed, so that the checks need no cluster tool; where kubectl is installed they are compared
with what it renders.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped, unused-ignore]
import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from service.settings import PREFIX, Settings, variable

K8S = Path(__file__).resolve().parents[2] / "deploy" / "k8s"
OVERLAYS = ("cpu", "inferentia")
SCHEMA = "1.34"
CUSTOM = {"ServiceMonitor"}
NAME = "app.kubernetes.io/name"

Resource = dict[str, Any]


def resources(overlay: str) -> list[Resource]:
    """What the overlay applies."""
    text = (K8S / "rendered" / f"{overlay}.yaml").read_text(encoding="utf-8")
    return [document for document in yaml.safe_load_all(text) if document]


def one(overlay: str, kind: str) -> Resource:
    """The only resource of a kind."""
    (found,) = [resource for resource in resources(overlay) if resource["kind"] == kind]
    return found


def pod(overlay: str) -> Resource:
    """The pod's spec."""
    spec: Resource = one(overlay, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(overlay: str) -> Resource:
    """One container of the pod."""
    (found,) = [one for one in pod(overlay)["containers"] if one["name"] == "service"]
    return dict(found)


def variables(overlay: str) -> dict[str, str]:
    """The container's environment."""
    return {entry["name"]: entry["value"] for entry in container(overlay)["env"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
class TestEveryOverlay:
    def test_rendered_file_is_what_kubectl_renders(self, overlay: str) -> None:
        """A change of base or overlay is rendered again: ``kubectl kustomize deploy/k8s/X > .../rendered/X.yaml``."""
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            pytest.skip("kubectl is not installed")
        run = subprocess.run([kubectl, "kustomize", str(K8S / overlay)], capture_output=True, text=True, check=True)
        assert run.stdout == (K8S / "rendered" / f"{overlay}.yaml").read_text(encoding="utf-8")

    def test_resources_are_valid_by_the_schema(self, overlay: str) -> None:
        """Strict: a field that the schema does not know is an error too."""
        for resource in resources(overlay):
            if resource["kind"] not in CUSTOM:
                kubernetes_validate.validate(resource, SCHEMA, strict=True)

    def test_every_kind_is_there_once(self, overlay: str) -> None:
        """Of what a deployment needs."""
        assert sorted(resource["kind"] for resource in resources(overlay)) == [
            "Deployment",
            "HorizontalPodAutoscaler",
            "NetworkPolicy",
            "PodDisruptionBudget",
            "Service",
            "ServiceAccount",
            "ServiceMonitor",
        ]

    def test_containers_have_no_rights(self, overlay: str) -> None:
        """Not root, nothing written but volumes, no capability, no token, images of one release."""
        spec = pod(overlay)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert spec["automountServiceAccountToken"] is False
        for each in spec["containers"]:
            context = each["securityContext"]
            assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
            assert context["capabilities"] == {"drop": ["ALL"]}
            tag = each["image"].rpartition(":")[2]
            assert tag not in ("", "latest")
            assert tag[0].isdigit()

    def test_containers_are_bounded_and_probed(self, overlay: str) -> None:
        """Requests and a memory limit; readiness and liveness ask for different things."""
        for each in pod(overlay)["containers"]:
            resources_of = each["resources"]
            assert {"cpu", "memory"} <= resources_of["requests"].keys()
            assert "memory" in resources_of["limits"]
            assert each["readinessProbe"]["httpGet"]["path"] == "/health/ready"
            assert each["livenessProbe"]["httpGet"]["path"] == "/health/live"
            ports = {port["name"] for port in each["ports"]}
            assert {each[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")} <= ports

    def test_traffic_leaves_before_the_service_stops(self, overlay: str) -> None:
        """Notice above the readiness period; the grace period holds notice and drain."""
        notice = float(variables(overlay)["ROUTER_SHUTDOWN_NOTICE_SECONDS"])
        assert notice > container(overlay)["readinessProbe"]["periodSeconds"]
        assert pod(overlay)["terminationGracePeriodSeconds"] > notice + Settings().shutdown_grace_seconds

    def test_every_router_variable_is_a_setting(self, overlay: str) -> None:
        """The service would refuse to start with another; a Service's own variables are kept out."""
        known = {variable(field) for field in Settings.model_fields}
        assert {name for name in variables(overlay) if name.startswith(PREFIX)} <= known
        assert pod(overlay)["enableServiceLinks"] is False

    def test_written_files_lie_on_volumes(self, overlay: str) -> None:
        """The root file system is read-only; the event log outlives a restart of the container."""
        log = Path(variables(overlay)["ROUTER_EVENT_LOG_PATH"])
        for each in pod(overlay)["containers"]:
            assert str(log.parent) in {mount["mountPath"] for mount in each["volumeMounts"]}
            volumes = {volume["name"] for volume in pod(overlay)["volumes"]}
            assert {mount["name"] for mount in each["volumeMounts"]} <= volumes
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod(overlay)["volumes"])

    def test_selectors_select_the_pods(self, overlay: str) -> None:
        """Deployment, service, budget, policy and monitor all mean the same pods."""
        labels = one(overlay, "Deployment")["spec"]["template"]["metadata"]["labels"]
        wanted = {NAME: labels[NAME]}
        assert one(overlay, "Deployment")["spec"]["selector"]["matchLabels"] == wanted
        assert one(overlay, "Service")["spec"]["selector"] == wanted
        assert one(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == wanted
        assert one(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == wanted
        assert one(overlay, "ServiceMonitor")["spec"]["selector"]["matchLabels"] == wanted
        assert one(overlay, "Service")["metadata"]["labels"][NAME] == wanted[NAME]

    def test_named_ports_exist(self, overlay: str) -> None:
        """On the containers, for service and policy; on the service, for the monitor."""
        on_pods = {port["name"] for each in pod(overlay)["containers"] for port in each["ports"]}
        service = one(overlay, "Service")["spec"]["ports"]
        assert {port["targetPort"] for port in service} <= on_pods
        assert {end["port"] for end in one(overlay, "ServiceMonitor")["spec"]["endpoints"]} <= {
            port["name"] for port in service
        }
        ingress = one(overlay, "NetworkPolicy")["spec"]["ingress"]
        assert {port["port"] for rule in ingress for port in rule["ports"]} <= on_pods

    def test_budget_and_autoscaler_leave_somebody_serving(self, overlay: str) -> None:
        """At least two replicas, of which one may be missing; the deployment leaves the number to the autoscaler."""
        scaler = one(overlay, "HorizontalPodAutoscaler")["spec"]
        assert scaler["minReplicas"] > one(overlay, "PodDisruptionBudget")["spec"]["maxUnavailable"]
        assert scaler["maxReplicas"] > scaler["minReplicas"]
        assert scaler["scaleTargetRef"]["name"] == one(overlay, "Deployment")["metadata"]["name"]
        assert "replicas" not in one(overlay, "Deployment")["spec"]

    def test_autoscaler_follows_the_queue(self, overlay: str) -> None:
        """By a metric that the adapter's rule makes of one that the service exposes."""
        from service.telemetry import STAGES, Telemetry

        (metric,) = one(overlay, "HorizontalPodAutoscaler")["spec"]["metrics"]
        (rule,) = yaml.safe_load((K8S / "adapter-rule.yaml").read_text(encoding="utf-8"))["rules"]["custom"]
        assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
        names = {family.name for family in Telemetry().registry.collect()}
        assert "router_stage_seconds" in names
        assert "queue" in STAGES
        assert 'router_stage_seconds_sum{stage="queue"' in rule["metricsQuery"]

    def test_only_clients_and_prometheus_come_in(self, overlay: str) -> None:
        """No rule without a source, and nothing goes out but name resolution."""
        policy = one(overlay, "NetworkPolicy")["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert all(rule["from"] for rule in policy["ingress"])
        assert all(source for rule in policy["ingress"] for source in rule["from"])
        assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53}


class TestInferentia:
    def test_pod_asks_for_one_chip(self) -> None:
        """More than one unit would need the scheduler extension; one pod takes the chip with both cores."""
        asked = container("inferentia")["resources"]
        assert asked["requests"]["aws.amazon.com/neuron"] == asked["limits"]["aws.amazon.com/neuron"] == "1"
        assert not any("neuroncore" in name for name in asked["limits"])

    def test_pod_goes_where_the_chip_is(self) -> None:
        """The node's label, and its taint tolerated."""
        spec = pod("inferentia")
        assert spec["nodeSelector"] == {"node.kubernetes.io/instance-type": "inf2.xlarge"}
        assert {"key": "aws.amazon.com/neuron", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]

    def test_requests_fit_the_instance(self) -> None:
        """4 vCPU and 16 GiB, less what the node keeps for itself."""
        cpus = [each["resources"]["requests"]["cpu"] for each in pod("inferentia")["containers"]]
        assert sum(float(cpu.removesuffix("m")) / (1000 if cpu.endswith("m") else 1) for cpu in cpus) <= 3.5
        limits = [each["resources"]["limits"]["memory"] for each in pod("inferentia")["containers"]]
        assert sum(float(m[:-2]) / (1024 if m.endswith("Mi") else 1) for m in limits) <= 13

    def test_one_process_owns_the_cores_and_never_falls_back(self) -> None:
        """The runtime is not fork-safe; the engine is named, so nothing else is taken."""
        given = variables("inferentia")
        assert (given["ROUTER_ENGINE"], given["ROUTER_WORKERS"]) == ("neuron", "1")

    def test_startup_waits_for_programs_and_self_check(self) -> None:
        """Longer than on a CPU."""
        patience = {o: container(o)["startupProbe"]["failureThreshold"] for o in OVERLAYS}
        assert patience["inferentia"] > patience["cpu"]

    def test_rollout_needs_no_second_chip(self) -> None:
        """The old pod leaves before the new one comes."""
        strategy = one("inferentia", "Deployment")["spec"]["strategy"]["rollingUpdate"]
        assert strategy == {"maxSurge": 0, "maxUnavailable": 1}


def test_cpu_overlay_asks_for_no_device() -> None:
    """It runs anywhere."""
    assert "nodeSelector" not in pod("cpu")
    assert not any("aws" in name for each in pod("cpu")["containers"] for name in each["resources"]["limits"])
