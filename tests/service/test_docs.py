"""docs/service.md says what the code says: every setting, metric and error type has its row."""

from pathlib import Path

from service.errors import PROBLEMS
from service.settings import Settings, variable
from service.telemetry import Telemetry

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")


def setting_rows() -> list[str]:
    """Variable, default and the text at the field."""
    return [
        f"| `{variable(name)}` | {_shown(field.default)} | {_one_line(field.description)} |"
        for name, field in Settings.model_fields.items()
    ]


def metric_rows() -> list[str]:
    """Name as it is exposed, type and help."""
    rows = []
    for family in Telemetry().registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        rows.append(f"| `{name}` | {family.type} | {family.documentation} |")
    return rows


def error_rows() -> list[str]:
    """Type, status, wait, and the first line of the error's docstring."""
    return [
        f"| `{problem.error_type}` | {problem.status} | {problem.retry_after_s or ''} | {_one_line(error.__doc__)} |"
        for error, problem in PROBLEMS.items()
    ]


def _shown(default: object) -> str:
    if isinstance(default, Path):
        return f"`{default.relative_to(ROOT) if default.is_absolute() else default}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return "" if default == () else f"`{default}`"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def test_every_setting_has_its_row() -> None:
    """With its default and what turning it does."""
    assert [row for row in setting_rows() if row not in DOCUMENT.splitlines()] == []


def test_every_metric_has_its_row() -> None:
    """With its type."""
    assert [row for row in metric_rows() if row not in DOCUMENT.splitlines()] == []


def test_every_error_type_has_its_row() -> None:
    """With its status."""
    assert [row for row in error_rows() if row not in DOCUMENT.splitlines()] == []


def test_no_row_describes_what_is_gone() -> None:
    """Tables hold nothing but what the code has."""
    known = {*setting_rows(), *metric_rows(), *error_rows()}
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| `")]
    assert [row for row in rows if row not in known] == []
