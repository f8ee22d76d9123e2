"""Every package's ``__init__`` docstring is a map of its modules, in reading order."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = ("model_repo", "service", "monitoring", "loadtest")
UNNAMED = {"__init__", "__main__"}


def packages() -> list[Path]:
    """Every folder of the source that holds a Python module."""
    return sorted({module.parent for top in TOP_LEVEL for module in (ROOT / top).rglob("*.py")})


def modules_of(package: Path) -> set[str]:
    """Names of a package's modules and subpackages."""
    files = {path.stem for path in package.glob("*.py")} - UNNAMED
    return files | {path.name for path in package.iterdir() if (path / "__init__.py").exists()}


def map_of(package: Path) -> list[str]:
    """Names that the package's docstring lists, as ``- ``name``: ...`` lines."""
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    return re.findall(r"^- ``([A-Za-z_]\w*)/?``", docstring, flags=re.MULTILINE)


@pytest.mark.parametrize("package", packages(), ids=lambda package: package.relative_to(ROOT).as_posix())
class TestPackageMap:
    def test_folder_with_modules_is_a_package_with_a_docstring(self, package: Path) -> None:
        """A folder that holds Python modules has an ``__init__`` that says what it is."""
        source = (package / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(source))

    def test_every_module_is_on_the_map(self, package: Path) -> None:
        """No module is missing from its package's map."""
        assert modules_of(package) - set(map_of(package)) == set()

    def test_the_map_names_nothing_that_does_not_exist(self, package: Path) -> None:
        """No line of the map points at a module that is gone, and none stands twice."""
        listed = map_of(package)
        assert set(listed) - modules_of(package) == set()
        assert len(listed) == len(set(listed))
