"""
The event log: what was answered, and what turned out to be right. Another engine is another class of this Protocol.

The SQLite engine never waits for the disk on the request path. Commits hand their pages to the operating system, so
a kill of the process loses nothing; a power failure may lose the last seconds. ``maintain``, on a thread of its own,
folds the write-ahead log into the file, syncs it and deletes what is too old.
"""

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import orjson

from model_repo.contract.events import SQLITE_SCHEMA, LabelEvent, PredictionEvent
from service.errors import EventLogUnavailable

log = logging.getLogger(__name__)

RETRY_S = 0.25
"""While the log cannot be written, it is tried this often: answers are then not slowed by each attempt."""
FLUSH_EVENTS = 500
"""Events of the backlog written in one transaction."""
DELETE_ROWS = 100
"""Rows deleted in one transaction: writers wait for a few milliseconds at most."""
DELETE_PAUSE_S = 0.01

Row = tuple[str, float, str]
"""request_id, at, body"""


@dataclass(frozen=True)
class LogState:
    """What ``/health/ready`` says of the log."""

    is_failing: bool
    lost: int
    """Events since the start that the log will never hold."""
    waiting: int
    """Events kept in memory until the log can be written again."""


@dataclass(frozen=True)
class Retention:
    """What is kept."""

    max_age_s: float
    max_bytes: float


@dataclass(frozen=True)
class Maintained:
    """What one round of maintenance did."""

    deleted: int
    log_bytes: int


class EventLog(Protocol):
    """Safe to use from several threads."""

    def append(self, events: Sequence[PredictionEvent]) -> None:
        """Store the events of a micro-batch together. Never raises: what cannot be stored waits or is counted lost."""

    def add_label(self, label: LabelEvent, at: float) -> bool:
        """Store a label; False when the same one is there already. Raises EventLogUnavailable."""

    def state(self) -> LogState:
        """Whether it can be written, and what was lost."""

    def maintain(self, now: float) -> Maintained:
        """Delete what is too old and let the files shrink; takes as long as it takes."""

    def close(self) -> None:
        """Write what waits, if that is possible now."""


RecordEvents = Callable[[int, int, int], None]
"""Told after each append: events written, lost, waiting."""


class SqliteEventLog:
    """One file in WAL mode; several processes may write to it."""

    def __init__(
        self,
        path: Path,
        retention: Retention,
        *,
        backlog: int,
        lock_wait_ms: int,
        record: RecordEvents,
        retry_s: float = RETRY_S,
    ) -> None:
        """A file that cannot be opened now is tried again later, like one that cannot be written."""
        self._path = path
        self._retention = retention
        self._most_waiting = backlog
        self._lock_wait_ms = lock_wait_ms
        self._record = record
        self._retry_s = retry_s
        self._lock = threading.Lock()
        """Held for one short transaction at a time, by micro-batches, labels and maintenance alike."""
        self._connection: sqlite3.Connection | None = None
        self._backlog: deque[Row] = deque()
        self._lost = 0
        self._retry_at = 0.0
        self._is_failing = False
        with self._lock:
            self._flush()

    def append(self, events: Sequence[PredictionEvent]) -> None:
        """See EventLog. Costs about one write of a few pages into the operating system's cache."""
        rows = [(event.request_id, event.at, orjson.dumps(event).decode()) for event in events]
        with self._lock:
            if self._is_failing or self._backlog:
                self._keep(rows)
                lost, written = self._drop_excess(), self._flush()
            elif self._write(rows):
                lost, written = 0, len(rows)
            else:
                self._keep(rows)
                lost, written = self._drop_excess(), 0
            self._record(written, lost, len(self._backlog))

    def add_label(self, label: LabelEvent, at: float) -> bool:
        """See EventLog."""
        with self._lock:
            try:
                with self._transaction() as connection:
                    cursor = connection.execute(
                        "INSERT OR IGNORE INTO labels (request_id, at, body) VALUES (?, ?, ?)",
                        (label.request_id, at, label.to_body()),
                    )
                    return cursor.rowcount == 1
            except (sqlite3.Error, OSError) as error:
                raise EventLogUnavailable(f"the label was not stored: {error}") from error

    def state(self) -> LogState:
        """See EventLog."""
        return LogState(self._is_failing, self._lost, len(self._backlog))

    def maintain(self, now: float) -> Maintained:
        """See EventLog. Raises sqlite3.Error or OSError when the log cannot be written."""
        with self._lock:
            self._record(self._flush(), 0, len(self._backlog))
        connection = self._open(lock_wait_ms=1000)
        try:
            # FULL syncs the write-ahead log before it is folded in: a power failure cannot tear the file.
            connection.execute("PRAGMA synchronous=FULL")
            deleted = self._delete_old(connection, now)
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            with self._lock:
                # Almost nothing is left to fold in, and no writer of this process adds to it: the log starts over.
                connection.execute("PRAGMA busy_timeout=5")
                connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
            return Maintained(deleted, self._bytes_on_disk())
        finally:
            connection.close()

    def close(self) -> None:
        """See EventLog."""
        with self._lock:
            self._retry_at = 0.0
            written = 0
            while self._backlog and (flushed := self._flush()):
                written += flushed
            lost = len(self._backlog)
            self._backlog.clear()
            self._lost += lost
            self._record(written, lost, 0)
            self._disconnect()

    # Writing; all of it under the lock.

    def _write(self, rows: Sequence[Row]) -> bool:
        try:
            with self._transaction() as connection:
                connection.executemany("INSERT INTO predictions (request_id, at, body) VALUES (?, ?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            return False
        self._recover()
        return True

    def _flush(self) -> int:
        """Write some of the backlog, oldest first, or only see whether the log can be written; events written."""
        if time.monotonic() < self._retry_at:
            return 0
        rows = [self._backlog[index] for index in range(min(FLUSH_EVENTS, len(self._backlog)))]
        if not self._write(rows):
            return 0
        for _ in rows:
            self._backlog.popleft()
        return len(rows)

    def _keep(self, rows: Sequence[Row]) -> None:
        self._backlog.extend(rows)

    def _drop_excess(self) -> int:
        """Drop the oldest of what does not fit the backlog; events lost."""
        excess = max(0, len(self._backlog) - self._most_waiting)
        for _ in range(excess):
            self._backlog.popleft()
        self._lost += excess
        return excess

    def _fail(self, error: Exception) -> None:
        if not self._is_failing:
            log.error("the event log cannot be written: %s", error, extra={"path": str(self._path)})
        self._is_failing = True
        self._retry_at = time.monotonic() + self._retry_s
        self._disconnect()

    def _recover(self) -> None:
        if self._is_failing:
            log.warning("the event log can be written again", extra={"lost": self._lost, "waiting": len(self._backlog)})
        self._is_failing = False
        self._retry_at = 0.0

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._connection is None:
            self._connection = self._open(self._lock_wait_ms)
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            # A failed COMMIT (full disk) may have ended the transaction by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _open(self, lock_wait_ms: int) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path, timeout=lock_wait_ms / 1e3, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            # No fsync by whoever writes: see the module's docstring.
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.executescript(SQLITE_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # Retention; on the maintenance thread.

    def _delete_old(self, connection: sqlite3.Connection, now: float) -> int:
        deleted = 0
        for table in ("predictions", "labels"):
            while count := self._delete_some(connection, table, now - self._retention.max_age_s):
                deleted += count
                time.sleep(DELETE_PAUSE_S)
        while _bytes_used(connection) > self._retention.max_bytes:
            count = self._delete_some(connection, "predictions", now)
            if count == 0:
                break
            deleted += count
            time.sleep(DELETE_PAUSE_S)
        return deleted

    def _delete_some(self, connection: sqlite3.Connection, table: str, before: float) -> int:
        """Delete the oldest rows from before a time, a few of them; how many."""
        with self._lock:
            connection.execute("PRAGMA synchronous=OFF")
            return connection.execute(
                f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} WHERE at < ? ORDER BY at LIMIT ?)",  # noqa: S608 - table is ours
                (before, DELETE_ROWS),
            ).rowcount

    def _bytes_on_disk(self) -> int:
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())


def _bytes_used(connection: sqlite3.Connection) -> int:
    """Bytes of the pages in use; the file itself keeps the pages of deleted rows for new ones."""
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
