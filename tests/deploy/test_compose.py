"""deploy/compose.yml: static checks, since there is no engine to start it with."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from monitoring.settings import MonitorSettings
from monitoring.settings import variable as monitor_variable
from service.settings import Settings
from service.settings import variable as router_variable
from tests.deploy.programs import PROMETHEUS, ROOT

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LASTING = sorted(SERVICES.keys() - {"models"})


def mounts(name: str) -> dict[str, tuple[str, bool]]:
    """Source and whether it is read-only, by the path inside."""
    parts = [volume.split(":") for volume in SERVICES[name]["volumes"]]
    return {inside: (source, mode == ["ro"]) for source, inside, *mode in parts}


def test_everything_of_the_issue_is_there() -> None:
    """Both processes and what people look at them with; and who fills the model repository once."""
    assert SERVICES.keys() == {"models", "service", "sidecar", "prometheus", "alertmanager", "grafana"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_containers_have_no_rights(name: str) -> None:
    """Not root, nothing written but volumes, no capability."""
    service = SERVICES[name]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_of_one_release(name: str) -> None:
    """Never what happens to be the latest."""
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_is_mounted_from_the_repository_exists_and_is_read_only(name: str) -> None:
    """A missing file would become an empty folder."""
    for source, is_read_only in mounts(name).values():
        if source.startswith("."):
            assert (DEPLOY / source).resolve().exists(), source
            assert is_read_only, source
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", LASTING)
def test_ports_are_reachable_from_this_machine_alone(name: str) -> None:
    """Nothing here asks for a password."""
    assert SERVICES[name]["ports"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


@pytest.mark.parametrize("name", LASTING)
def test_containers_are_watched_and_started_again(name: str) -> None:
    """By the image's health check, or by one that is given here."""
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    if "build" in service:
        stage = DOCKERFILE.partition(f"AS {service['build']['target']}\n")[2].partition("\nFROM ")[0]
        assert "HEALTHCHECK" in stage
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


def test_built_targets_are_stages_of_the_dockerfile() -> None:
    """Of the one in the repository's root."""
    for service in SERVICES.values():
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve().is_file()
            assert f"AS {service['build']['target']}\n" in DOCKERFILE


def test_variables_are_settings() -> None:
    """The processes would refuse others, and these values."""
    known = {router_variable(field) for field in Settings.model_fields}
    known |= {monitor_variable(field) for field in MonitorSettings.model_fields}
    given = SERVICES["service"]["environment"].keys() | SERVICES["sidecar"]["environment"].keys()
    given |= set(re.findall(r"\b((?:ROUTER|MONITOR)_[A-Z_]+)=", DOCKERFILE))
    assert given - known == set()


def test_service_and_sidecar_meet_at_the_log_and_the_model_repository() -> None:
    """The same volumes at the same paths; the service moves nothing in the repository."""
    service, sidecar = mounts("service"), mounts("sidecar")
    assert service["/data"] == sidecar["/data"] == ("events", False)
    assert (service["/models"], sidecar["/models"]) == (("models", True), ("models", False))
    assert SERVICES["sidecar"]["environment"]["MONITOR_EVENT_LOG_PATH"] == "/data/events.sqlite"
    assert "ROUTER_EVENT_LOG_PATH=/data/events.sqlite" in DOCKERFILE
    written = [SERVICES["sidecar"]["environment"][name] for name in ("MONITOR_STATE_PATH", "MONITOR_WORK_FOLDER")]
    assert all(path.startswith("/state/") for path in written)
    assert sidecar["/state"] == ("state", False)


def test_the_model_repository_is_filled_before_anybody_reads_it() -> None:
    """Once, with the deployment last."""
    script = SERVICES["models"]["command"][-1]
    assert script.index("test -e /models/deployment.json") < script.index("cp -r")
    assert script.rindex("deployment.json /models/") > script.index("cp -r")
    for name in ("service", "sidecar"):
        assert SERVICES[name]["depends_on"] == {"models": {"condition": "service_completed_successfully"}}


def test_prometheus_finds_its_targets_and_its_rules() -> None:
    """By the names that compose gives, and where compose mounts them."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    targets = [target for job in config["scrape_configs"] for one in job["static_configs"] for target in one["targets"]]
    targets += config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    for target in targets:
        name, _, port = target.partition(":")
        assert SERVICES[name]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert config["rule_files"] == ["rules/*.yml"]
    assert mounts("prometheus")["/etc/prometheus/rules"][0] == "../monitoring/prometheus/rules"


def test_grafana_finds_its_dashboards() -> None:
    """Where the provider looks, and the first page."""
    provider = yaml.safe_load(
        (ROOT / "monitoring" / "grafana" / "provisioning" / "dashboards" / "router.yml").read_text(encoding="utf-8")
    )
    folder = provider["providers"][0]["options"]["path"]
    source = mounts("grafana")[folder][0]
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == folder
    assert (DEPLOY / source / home.name).resolve().is_file()
