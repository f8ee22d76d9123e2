"""What the CPU image runs, run in a clean virtual environment, since there is no engine to build the image with."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.real_version import make_real_repository
from tests.service.running import free_port, signal_and_wait, started

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def instructions(name: str) -> list[str]:
    """What follows an instruction, each time it occurs in the stages that the image is made of."""
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)$(.*?)(?=^FROM |\Z)", DOCKERFILE, flags=re.MULTILINE | re.DOTALL))
    body = "".join(stages[stage] for stage in ("build", "runtime", "cpu"))
    return [match.strip() for match in re.findall(rf"^ *{name} (.+)$", body, flags=re.MULTILINE)]


def test_the_image_serves_as_a_user_without_rights_and_is_watched() -> None:
    """Not root, with a health check that asks for readiness."""
    assert instructions("USER") == ["router"]
    assert all("/health/ready" in check for check in instructions("HEALTHCHECK"))
    assert instructions("CMD")[-1] == '["/venv/bin/python", "-m", "service"]'


def test_everything_that_is_copied_passes_the_ignore_file() -> None:
    """The build context holds what COPY names."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = {source for line in instructions("COPY") if "--from" not in line for source in line.split()[:-1]}
    assert {source.split("/")[0] for source in sources} <= allowed


@pytest.mark.slow
def test_what_the_image_runs_serves(tmp_path: Path) -> None:
    """The copied files, the install line, the command and the health check, in an environment with nothing else."""
    app, venv = tmp_path / "app", tmp_path / "venv"
    _copy_context(app)
    for line in instructions("RUN")[:2]:
        command = shlex.split(line.replace("/venv", str(venv)).replace("python -m venv", f"{sys.executable} -m venv"))
        subprocess.run(command, cwd=app, check=True, capture_output=True)
    shutil.rmtree(app)
    make_real_repository(tmp_path / "repo")
    environment = _environment(tmp_path)
    command = json.loads(instructions("CMD")[-1].replace("/venv", str(venv)))
    health = json.loads(instructions("HEALTHCHECK")[-1].partition("CMD ")[2].replace("/venv", str(venv)))
    assert subprocess.run(health, env=environment, capture_output=True, check=False).returncode != 0
    with started(command, environment, tmp_path) as process:
        subprocess.run(health, env=environment, cwd=tmp_path, check=True)
        listed = subprocess.run(
            [str(venv / "bin" / "python"), "-m", "pip", "list"], capture_output=True, text=True, check=True
        ).stdout
        assert signal_and_wait(process) == 0
    assert not {"torch", "transformers", "pytest"} & {line.split()[0].lower() for line in listed.splitlines() if line}


def _copy_context(app: Path) -> None:
    for line in instructions("COPY"):
        if "--from" in line:
            continue
        for source in line.split()[:-1]:
            if (ROOT / source).is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "data", "versions")
                shutil.copytree(ROOT / source, app / source, ignore=ignore, dirs_exist_ok=True)
            else:
                app.mkdir(exist_ok=True)
                shutil.copy(ROOT / source, app / source)


def _environment(folder: Path) -> dict[str, str]:
    """That of the image, on a free port and this test's folders."""
    given = dict(re.findall(r"(ROUTER_\w+|PYTHONUNBUFFERED)=(\S+)", " ".join(instructions("ENV"))))
    changed = {
        "ROUTER_HOST": "127.0.0.1",
        "ROUTER_PORT": str(free_port()),
        "ROUTER_MODEL_REPO": str(folder / "repo"),
        "ROUTER_EVENT_LOG_PATH": str(folder / "events.sqlite"),
    }
    assert changed.keys() <= given.keys()
    return {"PATH": os.environ["PATH"], **given, **changed}
