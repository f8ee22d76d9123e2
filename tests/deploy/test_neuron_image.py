"""The Inferentia image, read and not built: exact base, a probe that fails the build, nothing of the base left."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

from model_repo.contract.neuron import RELEASE_LINE
from service.settings import PREFIX, Settings, variable

ROOT = Path(__file__).resolve().parents[2]
FILE = (ROOT / "deploy" / "neuron.Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def instructions(name: str) -> list[str]:
    """What follows an instruction, each time it occurs."""
    return [match.strip() for match in re.findall(rf"^ *{name} (.+)$", FILE, flags=re.MULTILINE)]


def test_base_image_is_one_release_of_the_right_line() -> None:
    """Never latest; its torch is the one that the release line is built for."""
    (base,) = instructions("FROM")
    tag = base.split()[0].rpartition(":")[2]
    assert tag.startswith(".".join(RELEASE_LINE.split(".")[:2]))
    assert "sdk2.31.1" in tag


def test_build_fails_where_the_probe_fails() -> None:
    """The probe's command, run here, ends with an error that names the reason."""
    (line,) = [line for line in instructions("RUN") if "probe(" in line]
    command = shlex.split(line.replace("NEURON_PLATFORM_TARGET_OVERRIDE=inf2 python", shlex.quote(sys.executable)))
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "neuron: not_installed" in run.stderr


def test_installed_packages_are_those_of_serving_without_cpu_engines() -> None:
    """The filter's command, run here."""
    first = instructions("RUN")[0].partition(" > ")[0]
    command = shlex.split(first.replace("python ", f"{sys.executable} ", 1))
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {"pydantic", "tokenizers", "uvicorn"} <= set(names)
    assert not {"numpy", "onnxruntime", "openvino", "torch"} & set(names)


def test_nothing_of_the_base_runs_and_the_service_does() -> None:
    """Entry point emptied, health check on the service's own readiness, not root."""
    assert instructions("ENTRYPOINT") == ["[]"]
    assert "/health/ready" in instructions("HEALTHCHECK")[0]
    assert json.loads(instructions("CMD")[-1]) == ["python", "-m", "service"]
    assert instructions("USER") == ["router"]


def test_environment_is_made_of_settings() -> None:
    """And names the engine, so that no other is taken."""
    given = dict(re.findall(r"([A-Z_]+)=(\S+)", " ".join(instructions("ENV"))))
    known = {variable(field) for field in Settings.model_fields}
    assert {name for name in given if name.startswith(PREFIX)} <= known
    assert (given["ROUTER_ENGINE"], given["ROUTER_WORKERS"]) == ("neuron", "1")


def test_everything_that_is_copied_passes_the_ignore_file() -> None:
    """The build context holds what COPY names."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {source for line in instructions("COPY") for source in line.split()[:-1]} <= allowed
