"""
The Dockerfile, read and not built: each target is made of what it needs alone, and the Inferentia one of exact pins,
with probes that fail the build and nothing of its base left. Its commands are run where they can be.
"""

import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from model_repo.contract.neuron import RELEASE_LINE
from service.settings import PREFIX, Settings, variable

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
STAGES = {match[2]: match[1] for match in re.finditer(r"^FROM (\S+) AS (\S+)$", TEXT, flags=re.MULTILINE)}
"""What each stage is made from, in the order of the file."""
TARGETS = ("cpu", "monitoring", "neuron")


def instructions(stage: str, name: str) -> list[str]:
    """What follows an instruction, each time it occurs in a stage."""
    body = re.split(rf"^FROM \S+ AS {stage}$", TEXT, flags=re.MULTILINE)[1]
    body = re.split(r"^FROM ", body, flags=re.MULTILINE)[0]
    return [match.strip() for match in re.findall(rf"^ *{name} (.+)$", body, flags=re.MULTILINE)]


def needed(stage: str) -> set[str]:
    """The stage, and those that it is built from or copies from."""
    copied = re.findall(r"--from=(\S+)", " ".join(instructions(stage, "COPY")))
    others = {STAGES[stage], *copied} & STAGES.keys()
    return {stage}.union(*(needed(other) for other in others))


def test_every_from_names_its_stage() -> None:
    """So that no stage is missed here."""
    assert len(STAGES) == len(re.findall(r"^FROM ", TEXT, flags=re.MULTILINE))
    assert set(TARGETS) <= STAGES.keys()


def test_cpu_is_built_when_no_target_is_named() -> None:
    """It is the last stage."""
    assert list(STAGES)[-1] == "cpu"


def test_cpu_and_sidecar_need_nothing_of_inferentia() -> None:
    """Nor torch: a small image stays small, and Neuron's base is never fetched for it."""
    for target in ("cpu", "monitoring"):
        used = needed(target)
        assert "neuron" not in used
        assert {STAGES[stage] for stage in used} - STAGES.keys() == {"python:3.11-slim"}
        lines = " ".join(line for stage in used for line in instructions(stage, "RUN"))
        assert "torch" not in lines
        assert "[train" not in lines
    assert "build-monitoring" not in needed("cpu")
    assert needed("neuron") == {"neuron"}


@pytest.mark.parametrize("target", TARGETS)
def test_targets_have_no_rights_and_watch_themselves(target: str) -> None:
    """Not root; readiness is asked for by the image itself; the process gets its signals."""
    users = [line for stage in needed(target) for line in instructions(stage, "USER")]
    assert users == ["router"]
    assert "/health/ready" in instructions(target, "HEALTHCHECK")[0]
    assert json.loads(instructions(target, "CMD")[-1])[-2:] == [
        "-m",
        "monitoring" if target == "monitoring" else "service",
    ]


@pytest.mark.parametrize("target", ["cpu", "monitoring"])
def test_the_engine_reports_to_nobody(target: str, tmp_path: Path) -> None:
    """ONNX Runtime makes an identity for its reports when it is imported, but not under the image's environment."""
    lines = " ".join(line for stage in needed(target) for line in instructions(stage, "ENV"))
    given = dict(re.findall(r"([A-Z_]+)=(\S+)", lines))
    for environment, wanted in (({}, True), (given, False)):
        home = tmp_path / str(wanted)
        home.mkdir()
        command = [sys.executable, "-c", "import onnxruntime"]
        subprocess.run(command, env={**environment, "HOME": str(home)}, check=True)
        assert any(home.rglob("deviceid")) is wanted


def test_packages_are_pinned() -> None:
    """By the constraints, each time something is installed from an index."""
    installs = [line for stage in STAGES for line in instructions(stage, "RUN") if "pip install" in line]
    for command in (part for line in installs for part in line.split("&&") if "pip install" in part):
        assert "--constraint constraints.txt" in command or "--no-deps" in command, command


def test_every_copy_passes_the_ignore_file() -> None:
    """The build context holds what COPY names."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    lines = [line for stage in STAGES for line in instructions(stage, "COPY") if not line.startswith("--from=")]
    assert {Path(source).parts[0] for line in lines for source in line.split()[:-1]} <= allowed


def test_base_image_is_one_release_of_the_right_line() -> None:
    """Never latest; its torch is the one that the release line is built for."""
    tag = STAGES["neuron"].rpartition(":")[2]
    assert tag.startswith(".".join(RELEASE_LINE.split(".")[:2]))
    assert "sdk2.31.1" in tag


def pins(requirements: str) -> "subprocess.CompletedProcess[str]":
    """The command that holds the image to exact releases, run here for other packages."""
    (line,) = [line for line in instructions("neuron", "RUN") if "--no-index" in line]
    command, _, wanted = line.partition("torch-neuronx==")
    assert re.fullmatch(re.escape(RELEASE_LINE) + r"[\d.]+ neuronx-cc==[\d.]+", wanted)
    words = [*shlex.split(command.replace("python", shlex.quote(sys.executable), 1)), *requirements.split()]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_build_fails_where_the_image_holds_another_release() -> None:
    """Nothing is installed instead; what is there is enough, whatever its local part."""
    assert pins(f"numpy=={version('numpy')} tokenizers=={version('tokenizers')}").returncode == 0
    assert pins("numpy==0.0.1").returncode != 0
    assert pins("torch-neuronx==2.9.0.2.15.32035").returncode != 0


def test_build_fails_where_the_probe_fails() -> None:
    """The probe's command, run here, ends with an error that names the reason."""
    (line,) = [line for line in instructions("neuron", "RUN") if "probe(" in line]
    command = shlex.split(line.replace("NEURON_PLATFORM_TARGET_OVERRIDE=inf2 python", shlex.quote(sys.executable)))
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "neuron: not_installed" in run.stderr


def test_installed_packages_are_those_of_serving_without_cpu_engines() -> None:
    """The filter's command, run here."""
    (line,) = [line for line in instructions("neuron", "RUN") if "tomllib" in line]
    first = line.partition(" > ")[0]
    command = shlex.split(first.replace("python ", f"{sys.executable} ", 1))
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {"pydantic", "tokenizers", "uvicorn"} <= set(names)
    assert not {"numpy", "onnxruntime", "openvino", "torch"} & set(names)


def test_nothing_of_the_base_runs() -> None:
    """Entry point emptied, health check on the service's own readiness."""
    assert instructions("neuron", "ENTRYPOINT") == ["[]"]
    assert "/health/ready" in instructions("neuron", "HEALTHCHECK")[0]


def test_environment_is_made_of_settings() -> None:
    """And names the engine, so that no other is taken."""
    given = dict(re.findall(r"([A-Z_]+)=(\S+)", " ".join(instructions("neuron", "ENV"))))
    known = {variable(field) for field in Settings.model_fields}
    assert {name for name in given if name.startswith(PREFIX)} <= known
    assert (given["ROUTER_ENGINE"], given["ROUTER_WORKERS"]) == ("neuron", "1")
