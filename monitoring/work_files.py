"""Files that actions leave in the work folder, for people, hooks and later actions: whole, or not at all."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write_json(file: Path, body: Mapping[str, Any]) -> None:
    """One object, for people too; folders are made. Raises OSError."""
    _write(file, json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One object a line; folders are made. Raises OSError."""
    _write(file, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{os.getpid()}")
    with new.open("w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)
