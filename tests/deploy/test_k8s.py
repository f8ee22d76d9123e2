"""
The Kubernetes manifests: valid by the published schemas, and kept to our own rules. Static: nothing is scheduled.

The rendered files are committed with the digest of what they were made of, so that the checks need no cluster tool;
where kubectl is installed they are also compared with what it renders.
"""

import re
import shutil
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped, unused-ignore]
import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from deploy.k8s.render import first_line, rendered
from monitoring.settings import MonitorSettings
from monitoring.settings import variable as monitor_variable
from service.settings import Settings
from service.settings import variable as router_variable
from tests.deploy.manifests import (
    K8S,
    NAME,
    OVERLAYS,
    container,
    containers,
    cores,
    gibibytes,
    mounts,
    one,
    pod,
    resources,
    variables,
)

SCHEMA = "1.34"
CUSTOM = {"ServiceMonitor"}


@pytest.mark.parametrize("overlay", OVERLAYS)
class TestEveryOverlay:
    def test_rendered_file_is_of_these_sources(self, overlay: str) -> None:
        """A change of base or overlay is rendered again: ``python -m deploy.k8s.render``."""
        text = (K8S / "rendered" / f"{overlay}.yaml").read_text(encoding="utf-8")
        assert text.startswith(first_line(overlay))
        kubectl = shutil.which("kubectl")
        if kubectl is not None:
            assert text == rendered(kubectl, overlay)

    def test_resources_are_valid_by_the_schema(self, overlay: str) -> None:
        """Strict: a field that the schema does not know is an error too."""
        for resource in resources(overlay):
            if resource["kind"] not in CUSTOM:
                kubernetes_validate.validate(resource, SCHEMA, strict=True)

    def test_every_kind_is_there(self, overlay: str) -> None:
        """Of what a deployment needs."""
        assert sorted(f"{each['kind']}/{each['metadata']['name']}" for each in resources(overlay)) == [
            "HorizontalPodAutoscaler/manga-router",
            "NetworkPolicy/manga-router",
            "PersistentVolumeClaim/manga-router-models",
            "PodDisruptionBudget/manga-router",
            "Service/manga-router",
            "Service/manga-router-replicas",
            "ServiceAccount/manga-router",
            "ServiceMonitor/manga-router",
            "StatefulSet/manga-router",
        ]

    def test_containers_have_no_rights(self, overlay: str) -> None:
        """Not root, nothing written but volumes, no capability, no token, nothing of the host."""
        spec = pod(overlay)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert min(spec["securityContext"][name] for name in ("runAsUser", "runAsGroup", "fsGroup")) >= 10000
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & spec.keys()
        assert not any("hostPath" in volume for volume in spec["volumes"])
        for each in containers(overlay):
            context = each["securityContext"]
            assert context == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in each.get("ports", []))

    def test_images_are_of_one_release(self, overlay: str) -> None:
        """Of the placeholder registry, never what happens to be the latest; service and sidecar of the same release."""
        images = [each["image"] for each in containers(overlay)]
        assert all(re.fullmatch(r"registry\.example\.com/[\w-]+:\d+\.\d+\.\d+", image) for image in images)
        assert len({image.rpartition(":")[2] for image in images}) == 1

    def test_containers_are_bounded(self, overlay: str) -> None:
        """Requests and a memory limit, the request within the limit."""
        for each in containers(overlay):
            asked, most = each["resources"]["requests"], each["resources"]["limits"]
            assert 0 < gibibytes(asked["memory"]) <= gibibytes(most["memory"])
            assert 0 < cores(asked["cpu"]) <= cores(most.get("cpu", "64"))

    def test_service_is_probed(self, overlay: str) -> None:
        """Readiness and liveness ask for different things, of a port that exists."""
        service = container(overlay)
        assert service["readinessProbe"]["httpGet"] == service["startupProbe"]["httpGet"]
        assert service["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "http"}
        assert service["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": "http"}

    def test_traffic_leaves_before_the_service_stops(self, overlay: str) -> None:
        """Notice above the readiness period; the grace period holds notice and drain."""
        notice = float(variables(overlay)["ROUTER_SHUTDOWN_NOTICE_SECONDS"])
        assert notice > container(overlay)["readinessProbe"]["periodSeconds"]
        assert pod(overlay)["terminationGracePeriodSeconds"] > notice + Settings().shutdown_grace_seconds

    def test_every_variable_is_a_setting(self, overlay: str) -> None:
        """The processes would refuse to start with another; a Service's own variables are kept out."""
        router = {router_variable(field) for field in Settings.model_fields} | {"NEURON_PROCESS_TAG"}
        monitor = {monitor_variable(field) for field in MonitorSettings.model_fields}
        assert variables(overlay).keys() <= router
        assert variables(overlay, "sidecar").keys() <= monitor
        assert pod(overlay)["enableServiceLinks"] is False

    def test_written_files_lie_on_volumes(self, overlay: str) -> None:
        """The root file system is read-only; what must not be lost is on a claim, the rest is bounded."""
        spec, claims = pod(overlay), one(overlay, "StatefulSet")["spec"]["volumeClaimTemplates"]
        kept = {claim["metadata"]["name"] for claim in claims}
        known = kept | {volume["name"] for volume in spec["volumes"]}
        for each in containers(overlay):
            assert {mount["name"] for mount in each["volumeMounts"]} <= known
        for name, setting in (
            ("service", "ROUTER_EVENT_LOG_PATH"),
            ("sidecar", "MONITOR_EVENT_LOG_PATH"),
            ("sidecar", "MONITOR_STATE_PATH"),
            ("sidecar", "MONITOR_WORK_FOLDER"),
        ):
            volume, is_read_only = mounts(overlay, name)[str(Path(variables(overlay, name)[setting]).parent)]
            assert (volume in kept, is_read_only) == (True, False)
        assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume)

    def test_log_has_room_for_what_retention_keeps(self, overlay: str) -> None:
        """And for what the alert on a growing log (3 GiB) bears, with the write-ahead log."""
        claims = one(overlay, "StatefulSet")["spec"]["volumeClaimTemplates"]
        (data,) = [claim for claim in claims if claim["metadata"]["name"] == "data"]
        room = gibibytes(data["spec"]["resources"]["requests"]["storage"])
        assert room > max(3.0, 2 * Settings().retention_mib / 1024)

    def test_selectors_select_the_pods(self, overlay: str) -> None:
        """Replicas, services, budget, policy and spread all mean the same pods."""
        labels = one(overlay, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
        wanted = {NAME: labels[NAME]}
        assert one(overlay, "StatefulSet")["spec"]["selector"]["matchLabels"] == wanted
        assert one(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == wanted
        assert one(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == wanted
        (spread,) = pod(overlay)["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"] == wanted
        for service in ("manga-router", "manga-router-replicas"):
            assert one(overlay, "Service", service)["spec"]["selector"] == wanted

    def test_named_ports_exist_and_are_those_of_the_settings(self, overlay: str) -> None:
        """On the containers, for services and policy."""
        on_pods = {
            port["name"]: port["containerPort"] for each in containers(overlay) for port in each.get("ports", [])
        }
        assert on_pods == {"http": Settings().port, "monitor": MonitorSettings().port}
        for service in ("manga-router", "manga-router-replicas"):
            assert {port["targetPort"] for port in one(overlay, "Service", service)["spec"]["ports"]} <= on_pods.keys()
        ingress = one(overlay, "NetworkPolicy")["spec"]["ingress"]
        assert {port["port"] for rule in ingress for port in rule["ports"]} == on_pods.keys()

    def test_clients_reach_the_service_alone(self, overlay: str) -> None:
        """The sidecar has no key: it is in no balanced service, and only Prometheus' namespace may ask it."""
        assert [port["targetPort"] for port in one(overlay, "Service", "manga-router")["spec"]["ports"]] == ["http"]
        for rule in one(overlay, "NetworkPolicy")["spec"]["ingress"]:
            if "monitor" in {port["port"] for port in rule["ports"]}:
                namespaces = [source["namespaceSelector"]["matchLabels"] for source in rule["from"]]
                assert namespaces == [{"kubernetes.io/metadata.name": "monitoring"}]

    def test_policy_names_every_source_and_target(self, overlay: str) -> None:
        """No rule for everybody; out go name resolution and requests to pods that are said to retrain."""
        policy = one(overlay, "NetworkPolicy")["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert all(source for rule in policy["ingress"] for source in rule["from"])
        for rule in policy["egress"]:
            ports = {port["port"] for port in rule["ports"]}
            labels = [peer.get("podSelector", {}).get("matchLabels") for peer in rule["to"]]
            assert ports == {53} or labels == [{"manga-router/retrain-hook": "true"}]

    def test_budget_and_autoscaler_leave_somebody_serving(self, overlay: str) -> None:
        """At least two replicas, of which one may be missing; the set leaves the number to the autoscaler."""
        scaler, replicas = one(overlay, "HorizontalPodAutoscaler")["spec"], one(overlay, "StatefulSet")
        assert scaler["minReplicas"] > one(overlay, "PodDisruptionBudget")["spec"]["maxUnavailable"]
        assert scaler["maxReplicas"] > scaler["minReplicas"]
        target = scaler["scaleTargetRef"]
        assert (target["kind"], target["name"]) == (replicas["kind"], replicas["metadata"]["name"])
        assert "replicas" not in replicas["spec"]

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


class TestInferentia:
    def test_pod_asks_for_one_chip(self) -> None:
        """More than one unit would need the scheduler extension; one pod takes the chip with both cores."""
        asked = container("inferentia")["resources"]
        assert asked["requests"]["aws.amazon.com/neuron"] == asked["limits"]["aws.amazon.com/neuron"] == "1"
        given = [name for each in containers("inferentia") for name in each["resources"]["limits"]]
        assert [name for name in given if name.startswith("aws")] == ["aws.amazon.com/neuron"]

    def test_pod_goes_where_the_chip_is(self) -> None:
        """The node's label, and its taint tolerated."""
        spec = pod("inferentia")
        assert spec["nodeSelector"] == {"node.kubernetes.io/instance-type": "inf2.xlarge"}
        assert {"key": "aws.amazon.com/neuron", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]

    def test_requests_fit_the_instance(self) -> None:
        """4 vCPU and 16 GiB, less what the node keeps for itself, Neuron's own monitor (half a CPU) included."""
        running = pod("inferentia")["containers"]
        assert sum(cores(each["resources"]["requests"]["cpu"]) for each in running) <= 3.0
        assert sum(gibibytes(each["resources"]["limits"]["memory"]) for each in running) <= 13

    def test_one_process_owns_the_cores_and_never_falls_back(self) -> None:
        """The runtime is not fork-safe; the engine is named, so nothing else is taken."""
        given = variables("inferentia")
        assert (given["ROUTER_ENGINE"], given["ROUTER_WORKERS"]) == ("neuron", "1")

    def test_startup_waits_for_programs_and_self_check(self) -> None:
        """Longer than on a CPU."""
        patience = {o: container(o)["startupProbe"]["failureThreshold"] for o in OVERLAYS}
        assert patience["inferentia"] > patience["cpu"]


def test_cpu_overlay_asks_for_no_device() -> None:
    """It runs anywhere."""
    assert "nodeSelector" not in pod("cpu")
    assert not any("aws" in name for each in containers("cpu") for name in each["resources"]["limits"])
