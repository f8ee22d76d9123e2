"""
What a report takes from the sidecar's state file: incidents and pinned references. Read only, and without its lock: the
sidecar goes on with it meanwhile.
"""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from monitoring.errors import BadState
from monitoring.incidents import Incident
from monitoring.reference_window import Reference
from monitoring.state_file import STATE_SCHEMA


@dataclass(frozen=True)
class SavedState:
    """What the sidecar had found by the time of the report."""

    incidents: tuple[Incident, ...]
    """Those that touch the range, oldest first."""
    references: tuple[Reference, ...]
    """Pinned from production, one a version at most."""


def read_state(path: Path, began: float, ended: float) -> SavedState:
    """
    Incidents that were open at any time of [began, ended), Unix time, and every pinned reference.

    Raises BadState for a file that is missing, damaged, or of another schema.
    """
    if not path.is_file():
        raise BadState(f"{path} is no file")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != STATE_SCHEMA:
                raise BadState(f"{path} has schema {version}, not {STATE_SCHEMA}: it is no state of this sidecar")
            # One snapshot for both.
            connection.execute("BEGIN")
            return SavedState(_incidents(connection, began, ended), _references(connection))
    except sqlite3.Error as error:
        raise BadState(f"{path} cannot be read: {error}") from error


def _incidents(connection: sqlite3.Connection, began: float, ended: float) -> tuple[Incident, ...]:
    if not _has_table(connection, "incidents"):
        return ()
    rows = connection.execute(
        "SELECT body FROM incidents WHERE began_at < ? AND (ended_at IS NULL OR ended_at >= ?) ORDER BY began_at, id",
        (ended, began),
    )
    try:
        return tuple(Incident.from_json(json.loads(body)) for (body,) in rows)
    except (ValueError, KeyError, TypeError) as wrong:
        raise BadState(f"a saved incident cannot be read: {wrong!r}") from wrong


def _references(connection: sqlite3.Connection) -> tuple[Reference, ...]:
    if not _has_table(connection, "saved"):
        return ()
    rows = connection.execute("SELECT body FROM saved WHERE name LIKE 'reference/%' ORDER BY name")
    return tuple(Reference.from_bytes(bytes(body)) for (body,) in rows)


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,))
    return found.fetchone() is not None
