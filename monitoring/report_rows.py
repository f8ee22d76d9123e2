"""
The rows of a report: every prediction answered in a stretch of time, with the labels that are known by now.

The log is read with the reader, decoder and join of the sidecar, into a state of its own in a temporary folder: the
sidecar's state and its lock are left alone, and a report can be made while the sidecar runs.
"""

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from model_repo.contract.labels import Taxonomy
from monitoring.decoding import Decoded, TaxonomyOf, decode
from monitoring.errors import CannotReport, LogUnavailable
from monitoring.event_reader import Cursor, EventReader, LogRows
from monitoring.label_join import Joined, LabelJoin, StreamJoined
from monitoring.observations import (
    NO_EMBEDDINGS,
    Embeddings,
    Limits,
    Records,
    StreamKey,
    labelled_dtype,
    prediction_dtype,
    together,
)
from monitoring.state_file import StateFile

MOST_PREDICTIONS = 2_000_000
"""Predictions of one report: about 0.8 GB while it is made. More is refused, never left out without a word."""
EMBEDDINGS_KEPT = 512
"""The latest sampled embeddings of a stream; the two-sample test on them costs their square."""
EARLY_LABEL_S = 3600.0
"""Labels given up to this long before the range are read too: clocks differ between replicas."""
MOST_STREAMS = 64
MOST_LABELS = 2 * MOST_PREDICTIONS
"""Labels, most of them of requests outside the range, that wait for their prediction."""


@dataclass(frozen=True)
class StreamRows:
    """One stream in the range."""

    key: StreamKey
    taxonomy: Taxonomy
    predictions: Records
    """``observations.prediction_dtype``, in the order of the log; ``is_labelled`` as known now."""
    labelled: Records
    """``observations.labelled_dtype``, in the order of the labels, corrections applied."""
    embeddings: Embeddings
    counts: Counter[str] = field(default_factory=Counter)
    """``repeated``, ``early``, ``too_late``, ``foreign``: see ``label_join.StreamJoined``."""


@dataclass(frozen=True)
class RangeRows:
    """Everything in the range, and what could not be used."""

    began: float
    """Unix time; the first moment of the range."""
    ended: float
    """Unix time; the first moment after it."""
    streams: tuple[StreamRows, ...]
    """The one with most predictions first."""
    malformed: int = 0
    future_schema: int = 0
    unknown_version: int = 0

    @property
    def predictions(self) -> int:
        """Of all streams."""
        return sum(len(stream.predictions) for stream in self.streams)

    @property
    def labelled(self) -> int:
        """Of all streams."""
        return sum(len(stream.labelled) for stream in self.streams)


def read_range(
    log: Path, began: float, ended: float, taxonomy_of: TaxonomyOf, now: float, most: int = MOST_PREDICTIONS
) -> RangeRows:
    """
    The predictions answered in [began, ended), Unix time, by stream.

    Raises LogUnavailable, or CannotReport when the range holds more than ``most`` predictions.
    """
    gathered: dict[StreamKey, list[StreamJoined]] = {}
    unused: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        state = StateFile(Path(folder) / "join.sqlite")
        try:
            limits = Limits(predictions=most, recent=1, labelled=most, labels=MOST_LABELS, streams=MOST_STREAMS)
            join = LabelJoin(state, taxonomy_of, limits)
            for rows in _chunks(log, began, ended, most):
                decoded = decode(rows, taxonomy_of)
                unused.update(_unused(decoded))
                for stream in _joined(state, join, decoded, rows.cursor.latest_at, now).streams:
                    gathered.setdefault(stream.key, []).append(stream)
        finally:
            state.close()
    streams = sorted((_stream(parts) for parts in gathered.values()), key=lambda s: -len(s.predictions))
    return RangeRows(began, ended, tuple(s for s in streams if len(s.predictions)), **unused)


def _chunks(log: Path, began: float, ended: float, most: int) -> Iterator[LogRows]:
    """The rows of the range and every label since, in the order in which the sidecar would have read them."""
    cursor, last = _bounds(log, began, ended, most)
    if last is None:
        return
    reader, is_caught_up = EventReader(log), False
    with closing(reader):
        while not is_caught_up:
            rows = reader.read(cursor)
            cursor, is_caught_up = rows.cursor, rows.is_caught_up
            kept = tuple(row for row in rows.predictions if _is_within(row[1], began, ended))
            yield replace(rows, predictions=kept)
            if cursor.prediction_seq >= last and not is_caught_up:
                cursor = _past_predictions(log, cursor)


def _is_within(at: object, began: float, ended: float) -> bool:
    return isinstance(at, float) and began <= at < ended


def _bounds(log: Path, began: float, ended: float, most: int) -> tuple[Cursor, int | None]:
    """Where to begin reading, and the number of the last prediction of the range; None when there is none."""
    inside = "FROM predictions WHERE at >= ? AND at < ?"
    with _opened(log) as connection:
        first, last, n = connection.execute(f"SELECT MIN(seq), MAX(seq), COUNT(*) {inside}", (began, ended)).fetchone()
        if n == 0:
            return Cursor(), None
        if n > most:
            raise CannotReport(f"--from, --to: {n:,} predictions, at most {most:,}: name a shorter range")
        since = (began - EARLY_LABEL_S,)
        (label,) = connection.execute("SELECT MIN(seq) FROM labels WHERE at >= ?", since).fetchone()
        if label is None:
            (label,) = connection.execute("SELECT COALESCE(MAX(seq), 0) + 1 FROM labels").fetchone()
        return _cursor_before(connection, first, label), int(last)


def _past_predictions(log: Path, cursor: Cursor) -> Cursor:
    """The same cursor behind every prediction: what came after the range is not read, the labels are."""
    with _opened(log) as connection:
        (last,) = connection.execute("SELECT MAX(seq) FROM predictions").fetchone()
        behind = _cursor_before(connection, last + 1, cursor.label_seq + 1)
    return replace(cursor, prediction_seq=behind.prediction_seq, prediction_at=behind.prediction_at)


def _cursor_before(connection: sqlite3.Connection, prediction: int, label: int) -> Cursor:
    """With the times of the rows at the cursor, by which the reader knows the log again."""
    at = [
        connection.execute(f"SELECT at FROM {table} WHERE seq = ?", (seq - 1,)).fetchone()  # noqa: S608 - ours
        for table, seq in (("predictions", prediction), ("labels", label))
    ]
    marks = [row[0] if row else None for row in at]
    return Cursor(prediction_seq=prediction - 1, prediction_at=marks[0], label_seq=label - 1, label_at=marks[1])


@contextmanager
def _opened(log: Path) -> Iterator[sqlite3.Connection]:
    """Read only; what goes wrong inside is LogUnavailable."""
    try:
        uri = f"{log.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise LogUnavailable(f"{log} cannot be read: {error}") from error


def _joined(state: StateFile, join: LabelJoin, decoded: Decoded, latest_at: float, now: float) -> Joined:
    with state.transaction():
        return join.add(decoded, latest_at, now)


def _unused(decoded: Decoded) -> dict[str, int]:
    return {
        "malformed": decoded.malformed,
        "future_schema": decoded.future_schema,
        "unknown_version": decoded.unknown_version,
    }


def _stream(parts: list[StreamJoined]) -> StreamRows:
    """All chunks of one stream together."""
    key, taxonomy = parts[0].key, parts[0].taxonomy
    n_intents = len(taxonomy.intents)
    no_predictions = np.empty(0, dtype=prediction_dtype(n_intents))
    predictions = np.concatenate([no_predictions, *(part.predictions for part in parts)])
    labelled = np.concatenate([np.empty(0, dtype=labelled_dtype(n_intents)), *(part.labelled for part in parts)])
    row_of = {number: row for row, number in enumerate(labelled["number"].tolist())}
    for part in parts:
        for record in part.corrected:
            labelled[row_of[int(record["number"])]] = record
    predictions["is_labelled"] = np.isin(predictions["number"], labelled["number"])
    counts = sum((part.counts for part in parts), start=Counter[str]())
    return StreamRows(key, taxonomy, predictions, labelled, _latest_embeddings(parts), counts)


def _latest_embeddings(parts: list[StreamJoined]) -> Embeddings:
    sampled = together([part.embeddings for part in parts if len(part.embeddings)])
    if len(sampled) == 0:
        return NO_EMBEDDINGS
    return Embeddings(sampled.numbers[-EMBEDDINGS_KEPT:], sampled.vectors[-EMBEDDINGS_KEPT:])
