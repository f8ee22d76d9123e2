"""
Follows the event log from a cursor. It only reads, holds no lock between reads, and keeps nothing: who counts the rows
commits the cursor with the counts.

Predictions and labels stand in two tables with a numbering each. They are read so that labels do not run ahead of the
predictions they belong to: after an outage of a day both arrive in about the order in which they happened.
"""

import math
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from monitoring.errors import BadState, LogUnavailable

CHUNK_EVENTS = 2048
"""Predictions, and labels, read at once. Higher costs memory and gains little; lower commits more often."""
CHUNK_BYTES = 16 * 1024 * 1024
"""A chunk ends early when its bodies hold more than this."""
MAX_BODY_CHARS = 64 * 1024
"""A longer body is not an event of ours (the longest is about 16 KB) and is not read."""

Row = tuple[int, Any, Any]
"""seq, at, body. What a damaged log holds in the latter two may be anything; an oversized body is None."""


@dataclass(frozen=True)
class Cursor:
    """Up to where both tables were counted."""

    prediction_seq: int = 0
    prediction_at: object = None
    """``at`` of that row: tells whether it is still the same log."""
    label_seq: int = 0
    label_at: object = None
    offset: int = 0
    """Added to ``seq`` to give the number of a prediction: grows when the log was replaced by a new one."""
    latest_at: float = 0.0
    """Latest time of any prediction so far; does not go back when the clock does."""

    def to_json(self) -> bytes:
        """As it is saved."""
        return orjson.dumps(asdict(self))

    @staticmethod
    def from_json(body: bytes) -> "Cursor":
        """Inverse of ``to_json``; raises BadState."""
        try:
            return Cursor(**orjson.loads(body))
        except (ValueError, TypeError) as wrong:
            raise BadState(f"the saved cursor cannot be read: {wrong}") from wrong


@dataclass(frozen=True)
class LogRows:
    """What was read after a cursor, and the cursor after it."""

    predictions: tuple[Row, ...]
    labels: tuple[Row, ...]
    cursor: Cursor
    missing_predictions: int = 0
    """Rows that retention deleted before they were read."""
    missing_labels_at_most: int = 0
    """The same of labels; an upper bound, since a label that the log had already uses up a number as well."""
    is_new_log: bool = False
    """The log is another file than the cursor was made for, and is read from its beginning."""
    is_caught_up: bool = True
    """There was nothing more to read at that moment."""


class EventReader:
    """One log file, opened again whenever it was replaced."""

    def __init__(self, path: Path, *, chunk_events: int = CHUNK_EVENTS, lock_wait_ms: int = 500) -> None:
        """The file need not exist yet."""
        self._path = path
        self._chunk_events = chunk_events
        self._lock_wait_ms = lock_wait_ms
        self._connection: sqlite3.Connection | None = None
        self._file_id: tuple[int, int] | None = None

    def read(self, cursor: Cursor) -> LogRows:
        """The next rows; raises LogUnavailable when the log is missing, locked or damaged."""
        try:
            connection = self._opened()
            is_new_log = not _is_same_log(connection, cursor)
            if is_new_log:
                cursor = Cursor(offset=cursor.offset + cursor.prediction_seq, latest_at=cursor.latest_at)
            return replace(self._read(connection, cursor), is_new_log=is_new_log)
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise LogUnavailable(f"{self._path} cannot be read: {error}") from error

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self) -> sqlite3.Connection:
        status = os.stat(self._path)
        file_id = (status.st_dev, status.st_ino)
        if self._connection is not None and file_id != self._file_id:
            self.close()
        if self._connection is None:
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=self._lock_wait_ms / 1e3, isolation_level=None, check_same_thread=False
            )
            # Bytes that are not UTF-8 make one bad event, not a chunk that cannot be read.
            self._connection.text_factory = bytes
            self._file_id = file_id
        return self._connection

    def _read(self, connection: sqlite3.Connection, cursor: Cursor) -> LogRows:
        most = self._chunk_events
        labels, _ = _rows(connection, "labels", cursor.label_seq, most)
        due = _until(labels, cursor.latest_at)
        if len(due) == most:
            # A backlog of labels: first catch up with the predictions that were read already.
            missing_labels = _missing_labels(connection, cursor.label_seq, due)
            return LogRows((), due, _after_labels(cursor, due), 0, missing_labels, is_caught_up=False)
        predictions, is_all = _rows(connection, "predictions", cursor.prediction_seq, most)
        latest_at = max([cursor.latest_at, *[at for _, at, _ in predictions if type(at) is float and at < math.inf]])
        if not is_all:
            labels = _until(labels, latest_at)
        missing_labels = _missing_labels(connection, cursor.label_seq, labels)
        after = replace(_after_labels(cursor, labels), latest_at=latest_at)
        missing = 0
        if predictions:
            last, at, _ = predictions[-1]
            # What was deleted before the first row that was ever read is not missed.
            first = cursor.prediction_seq + 1 if cursor.prediction_seq else predictions[0][0]
            missing = last - first + 1 - len(predictions)
            after = replace(after, prediction_seq=last, prediction_at=_mark(at))
        is_caught_up = is_all and len(labels) < most
        return LogRows(predictions, labels, after, missing, missing_labels, is_caught_up=is_caught_up)


def _rows(connection: sqlite3.Connection, table: str, after: int, most: int) -> tuple[tuple[Row, ...], bool]:
    """Rows in order, and whether those were all."""
    found: list[Row] = []
    n_bytes = 0
    rows = connection.execute(
        f"SELECT seq, at, CASE WHEN length(body) <= {MAX_BODY_CHARS} THEN body END FROM {table} "  # noqa: S608 - table is ours
        "WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, most),
    )
    for row in rows:
        found.append(row)
        n_bytes += len(row[2]) if isinstance(row[2], bytes) else 0
        if n_bytes > CHUNK_BYTES:
            # The snapshot must not stay open: the writer could not start its write-ahead log over.
            rows.close()
            return tuple(found), False
    return tuple(found), len(found) < most


def _until(labels: Sequence[Row], time: float) -> tuple[Row, ...]:
    """The labels up to the first one that was given later."""
    for index, (_, at, _) in enumerate(labels):
        if _is_time(at) and at > time:
            return tuple(labels[:index])
    return tuple(labels)


def _missing_labels(connection: sqlite3.Connection, after: int, labels: Sequence[Row]) -> int:
    """Numbers between the cursor and the first row, once retention has deleted the row at the cursor."""
    if after == 0 or not labels or labels[0][0] == after + 1:
        return 0
    if connection.execute("SELECT 1 FROM labels WHERE seq = ?", (after,)).fetchone() is not None:
        return 0
    return labels[0][0] - after - 1


def _after_labels(cursor: Cursor, labels: Sequence[Row]) -> Cursor:
    if not labels:
        return cursor
    seq, at, _ = labels[-1]
    return replace(cursor, label_seq=seq, label_at=_mark(at))


def _mark(at: object) -> object:
    """What JSON can hold of it; a damaged ``at`` is recognised by nothing."""
    return at if _is_time(at) else None


def _is_time(at: object) -> bool:
    return isinstance(at, float) and math.isfinite(at)


def _is_same_log(connection: sqlite3.Connection, cursor: Cursor) -> bool:
    """Whether the rows at the cursor are what they were, or are gone by retention."""
    used = dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))
    for table, seq, at in (
        ("predictions", cursor.prediction_seq, cursor.prediction_at),
        ("labels", cursor.label_seq, cursor.label_at),
    ):
        if seq > used.get(table.encode(), 0):
            return False
        row = connection.execute(f"SELECT at FROM {table} WHERE seq = ?", (seq,)).fetchone()  # noqa: S608 - table is ours
        if row is not None and _mark(row[0]) != at:
            return False
    return True
