"""Programs that the tests start and pip does not install: Prometheus and Alertmanager."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "monitoring" / "prometheus"


def program(name: str) -> str:
    """Its path; raises AssertionError saying how to get it."""
    path = shutil.which(name)
    assert path is not None, f"{name} is not installed: make components"
    return path


def succeed(name: str, *arguments: str | Path) -> str:
    """Run a program to its end; what it printed. Raises AssertionError with that when it fails."""
    run = subprocess.run([program(name), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
