"""What may be imported where. Contracts between packages are import-linter's (``make lint``); these go further."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "sentence_transformers", "sklearn", "matplotlib")
CONTRACT = sorted((ROOT / "model_repo" / "contract").glob("*.py"))


def imported_by(path: Path) -> set[str]:
    """Full names that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", CONTRACT, ids=lambda path: path.name)
def test_contract_imports_standard_library_and_numpy_only(path: Path) -> None:
    """The contract can be read by any process: it needs numpy and nothing else."""
    strangers = {
        name
        for name in imported_by(path)
        if name.split(".")[0] not in sys.stdlib_module_names | {"numpy"} and not name.startswith("model_repo.contract")
    }
    assert strangers == set()


@pytest.mark.parametrize("module", ["service.app", "model_repo.store", "model_repo.contract.decision", "monitoring"])
def test_importing_what_serves_loads_no_training_library(module: str) -> None:
    """Neither torch nor transformers nor a plotting library is loaded by what serves and watches."""
    script = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
