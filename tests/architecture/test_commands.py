"""The README, the Makefile and the continuous-integration script name the same commands."""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def phony_targets() -> set[str]:
    """Targets that a person calls by name."""
    line = re.search(r"^\.PHONY: (.+)$", MAKEFILE, flags=re.MULTILINE)
    assert line is not None
    return set(line.group(1).split())


def test_every_make_target_has_its_row_in_the_readme() -> None:
    """A target nobody can find is not there."""
    rows = set(re.findall(r"^\| `make ([a-z-]+)` \|", README, flags=re.MULTILINE))
    assert rows == phony_targets()


def test_every_make_command_of_the_documents_is_a_target() -> None:
    """No document names a target that make would refuse."""
    documents = [README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")]
    documents += [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    pattern = re.compile(r"`make ([a-z-]+)|^ {4}make ([a-z-]+)", re.MULTILINE)
    named = {name for text in documents for pair in pattern.findall(text) for name in pair if name}
    assert named - phony_targets() == set()


def test_make_can_plan_every_target() -> None:
    """Every target parses and has its prerequisites."""
    targets = sorted(phony_targets())
    run = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_continuous_integration_runs_make_test() -> None:
    """What is checked before a change lands is what a developer runs."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8").splitlines()
