"""A library that reports its use to its makers is told not to, wherever this project loads it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("service", "model_repo", "monitoring", "loadtest", "deploy")


def loads_engine(file: Path) -> bool:
    """Whether a module imports ONNX Runtime itself."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
    return any(name.split(".")[0] == "onnxruntime" for name in names)


MODULES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
    if loads_engine(file)
]


def leaves_identity(module: str, home: Path) -> bool:
    """Whether importing a module makes the identity that ONNX Runtime's reports carry."""
    # A bare environment: where it says that this is CI, the library keeps quiet by itself.
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", f"import {module}"]
    subprocess.run(command, env=environment, cwd=ROOT, check=True)
    return any(home.rglob("deviceid"))


def test_the_library_does_report_by_default(tmp_path: Path) -> None:
    """Or what follows would prove nothing."""
    assert leaves_identity("onnxruntime", tmp_path)


@pytest.mark.parametrize("module", MODULES)
def test_no_module_of_ours_lets_it(module: str, tmp_path: Path) -> None:
    """Also where no Makefile or image sets the environment."""
    assert "service.backends.onnx" in MODULES
    assert not leaves_identity(module, tmp_path)
