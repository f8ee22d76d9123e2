"""
The sidecar in the pod: what it shares with the service, what it may not do to it, and the scripts that the manifests
carry, run here.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model_repo.store import Store
from tests.deploy.manifests import NAME, OVERLAYS, container, mounts, one, pod, variables
from tests.deploy.programs import ROOT

SHIPPED = ROOT / "model_repo" / "versions"
PATIENCE_S = 30.0


@pytest.mark.parametrize("overlay", OVERLAYS)
class TestEveryOverlay:
    def test_service_and_sidecar_meet_at_the_log_and_the_model_repository(self, overlay: str) -> None:
        """The same volumes at the same paths; the service moves nothing in the repository."""
        service, sidecar = mounts(overlay, "service"), mounts(overlay, "sidecar")
        assert service["/data"] == sidecar["/data"] == ("data", False)
        assert (service["/models"], sidecar["/models"]) == (("models", True), ("models", False))
        assert variables(overlay)["ROUTER_EVENT_LOG_PATH"] == variables(overlay, "sidecar")["MONITOR_EVENT_LOG_PATH"]
        assert variables(overlay)["ROUTER_MODEL_REPO"] == variables(overlay, "sidecar")["MONITOR_MODEL_REPO"]
        assert sidecar["/state"] == ("state", False)
        assert "/state" not in service
        assert service["/tmp"][0] != sidecar["/tmp"][0]

    def test_log_and_state_are_of_one_replica_and_outlive_its_pod(self, overlay: str) -> None:
        """One log, one sidecar: no other pod may mount them, and nothing deletes them."""
        spec = one(overlay, "StatefulSet")["spec"]
        assert {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]} == {"data", "state"}
        assert all(claim["spec"]["accessModes"] == ["ReadWriteOncePod"] for claim in spec["volumeClaimTemplates"])
        assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
        assert one(overlay, "Service", spec["serviceName"])["spec"]["clusterIP"] == "None"

    def test_model_repository_is_of_the_whole_fleet(self, overlay: str) -> None:
        """A revision that one sidecar publishes serves everywhere, and its number means one policy."""
        (volume,) = [volume for volume in pod(overlay)["volumes"] if volume["name"] == "models"]
        claim = one(overlay, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]

    def test_sidecar_never_takes_the_service_out_of_traffic(self, overlay: str) -> None:
        """A pod is ready when all its containers are: no readiness, and liveness outlasts the kubelet's backoff."""
        sidecar = container(overlay, "sidecar")
        assert not {"readinessProbe", "startupProbe"} & sidecar.keys()
        probe = sidecar["livenessProbe"]
        assert probe["httpGet"] == {"path": "/health/live", "port": "monitor"}
        # The kubelet forgets its waits after ten minutes without a restart.
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 600

    def test_sidecar_is_bounded_beside_the_service(self, overlay: str) -> None:
        """Its limit of CPU leaves the service its own."""
        assert "cpu" in container(overlay, "sidecar")["resources"]["limits"]
        assert "cpu" not in container(overlay, "service")["resources"]["limits"]

    def test_retrain_hook_comes_from_a_secret_that_may_be_missing(self, overlay: str) -> None:
        """Its key stands in no manifest."""
        (source,) = container(overlay, "sidecar")["envFrom"]
        assert source["secretRef"]["optional"] is True
        assert not any("HOOK" in name for name in variables(overlay, "sidecar"))

    def test_labels_reach_every_replica_by_name(self, overlay: str) -> None:
        """A label belongs into the log that holds its prediction, and the balanced service may choose another."""
        service = one(overlay, "Service", "manga-router-replicas")
        assert service["spec"]["publishNotReadyAddresses"] is True
        assert {port["name"] for port in service["spec"]["ports"]} == {"http", "monitor"}
        assert service["metadata"]["labels"][NAME] == "manga-router"


def seed_command(models: Path) -> list[str]:
    """The init container's, with folders of this machine in the place of the image's."""
    init = container("cpu", "models")
    words = [*init["command"], *init["args"]]
    return [word.replace("/app/model_repo/versions", str(SHIPPED)).replace("/models", str(models)) for word in words]


def test_empty_repository_gets_the_shipped_version_once(tmp_path: Path) -> None:
    """By several replicas that start together; then it serves."""
    models = tmp_path / "repository"
    models.mkdir()
    racing = [subprocess.Popen(seed_command(models)) for _ in range(3)]
    assert [process.wait(PATIENCE_S) for process in racing] == [0, 0, 0]
    store = Store(models)
    assert store.deployment() == Store(SHIPPED).deployment()
    store.load(store.deployment().champion.version)
    assert not list(models.glob("*.seed"))


def test_repository_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    """A later pod finds the revision that a sidecar has published."""
    models = tmp_path / "repository"
    models.mkdir()
    subprocess.run(seed_command(models), check=True)
    store = Store(models)
    reloaded = store.reload("as a sidecar does")
    subprocess.run(seed_command(models), check=True)
    assert store.deployment() == reloaded


def test_copy_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    """Half a version and no deployment: as a killed init container leaves it."""
    models = tmp_path / "repository"
    version = Store(SHIPPED).deployment().champion.version
    (models / version).mkdir(parents=True)
    (models / version / "manifest.json").write_text("{", encoding="utf-8")
    subprocess.run(seed_command(models), check=True)
    Store(models).load(version)


def sidecar_command(*program: str) -> list[str]:
    """What the sidecar's container runs, with another program and a shorter wait."""
    sidecar = container("cpu", "sidecar")
    script = sidecar["args"][0]
    assert "sleep 10" in script
    assert sidecar["args"][1:] == ["sh", "/venv/bin/python", "-m", "monitoring"]
    return [*sidecar["command"], script.replace("sleep 10", "sleep 0.05"), "sh", *program]


def wait_for_lines(file: Path, count: int) -> list[str]:
    """Until the file has so many."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        if len(lines) >= count:
            return lines
        time.sleep(0.02)
    raise AssertionError(f"{file} has not got {count} lines")


def test_sidecar_that_ends_is_started_again_in_its_container(tmp_path: Path) -> None:
    """However it ends, and with its status on standard error."""
    starts = tmp_path / "starts"
    program = f"import os; open({str(starts)!r}, 'a').write('x\\n'); os._exit(4)"
    with (tmp_path / "errors").open("wb") as errors:
        shell = subprocess.Popen(sidecar_command(sys.executable, "-c", program), stderr=errors)
        wait_for_lines(starts, 3)
        shell.terminate()
        assert shell.wait(PATIENCE_S) == 0
    assert "ended with status 4" in (tmp_path / "errors").read_text(encoding="utf-8")


def test_sidecar_is_told_to_stop_and_waited_for(tmp_path: Path) -> None:
    """SIGTERM reaches it through the shell, which ends after it."""
    told = tmp_path / "told"
    program = (
        "import signal, time\n"
        f"def stop(*_): time.sleep(0.3); open({str(told)!r}, 'a').write('stopped\\n'); raise SystemExit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        f"open({str(told)!r}, 'a').write('started\\n')\n"
        "while True: time.sleep(0.05)\n"
    )
    shell = subprocess.Popen(sidecar_command(sys.executable, "-c", program))
    wait_for_lines(told, 1)
    shell.send_signal(signal.SIGTERM)
    assert shell.wait(PATIENCE_S) == 0
    assert told.read_text(encoding="utf-8").splitlines() == ["started", "stopped"]
