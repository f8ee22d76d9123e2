"""Every package that an extra names is pinned, and serving names nothing of training."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


def names(requirements: list[str]) -> set[str]:
    """Canonical names."""
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def test_every_named_package_is_pinned_to_one_release() -> None:
    """Two installations a month apart are the same."""
    pinned = {canonicalize_name(pin.name) for pin in PINS}
    wanted = names(PROJECT["dependencies"]).union(*map(names, PROJECT["optional-dependencies"].values()))
    assert wanted - pinned == set()
    assert all(str(pin.specifier).startswith("==") and "+" not in str(pin.specifier) for pin in PINS)


def test_serving_names_nothing_of_training() -> None:
    """The default installation has no torch, directly or as an extra's leftover."""
    assert names(PROJECT["dependencies"]) & names(PROJECT["optional-dependencies"]["train"]) == set()
