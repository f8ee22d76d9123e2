"""
The sidecar's own SQLite file: the cursor and everything that was counted with it, changed in one transaction.

A kill at any moment leaves the state of the last commit, whole. After a power failure it may be an older commit, whole
as well: what came after it is read again, so nothing is lost and nothing counts twice.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monitoring.errors import BadState, StateInUse

STATE_SCHEMA = 1
CACHE_KIB = 16 * 1024
"""Pages that SQLite keeps in memory."""

_SAVED = "CREATE TABLE IF NOT EXISTS saved (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID"


class StateFile:
    """Held by one process at a time, from one thread."""

    def __init__(self, path: Path) -> None:
        """Make or open the file; raises StateInUse or BadState."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock_fd = hold(path.with_name(path.name + ".lock"), "state")
        try:
            self.connection = _open(path)
        except BaseException:
            os.close(self._lock_fd)
            raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside, or nothing of it. Not to be nested."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            # A failed COMMIT (full disk) may have ended the transaction by itself.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def get(self, name: str) -> bytes | None:
        """What was last saved under a name."""
        row = self.connection.execute("SELECT body FROM saved WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, name: str, body: bytes) -> None:
        """Save under a name; inside a transaction it is part of it."""
        self.connection.execute("INSERT OR REPLACE INTO saved (name, body) VALUES (?, ?)", (name, body))

    def close(self) -> None:
        """Let another process have it."""
        self.connection.close()
        os.close(self._lock_fd)


def hold(path: Path, of_what: str) -> int:
    """
    The descriptor that holds a lock, until it is closed; the system lets go of it when the process ends, however it
    ends. Raises StateInUse naming the holder, OSError where no file can be made.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 32).decode("ascii", "replace").strip()
        os.close(fd)
        raise StateInUse(f"{path} is held by process {holder or 'unknown'}: one sidecar a {of_what}") from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode("ascii"))
    return fd


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        # Syncs at checkpoints only: see the module's docstring.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, STATE_SCHEMA):
            raise BadState(f"{path} has schema {version}, not {STATE_SCHEMA}: move it away to begin anew")
        connection.execute(_SAVED)
        connection.execute(f"PRAGMA user_version={STATE_SCHEMA}")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise BadState(f"{path} cannot be used: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection
