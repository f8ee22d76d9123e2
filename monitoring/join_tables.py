"""The tables of the label join. Every method costs time by what it touches, never by what is kept."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from monitoring.label_choice import ChosenLabel
from monitoring.observations import NO_EMBEDDINGS, Embeddings, StreamKey

LET_GO_ROWS = 8192
"""Old rows let go in one chunk, on top of those that are too many: an hour's worth must not stall the journey."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS streams (
    id INTEGER PRIMARY KEY,
    version TEXT NOT NULL,
    policy TEXT NOT NULL,
    role TEXT NOT NULL,
    predictions INTEGER NOT NULL DEFAULT 0,
    labelled INTEGER NOT NULL DEFAULT 0,
    embeddings INTEGER NOT NULL DEFAULT 0,
    latest INTEGER NOT NULL DEFAULT 0,
    hidden INTEGER NOT NULL DEFAULT 0,
    UNIQUE (version, policy, role)
);
CREATE TABLE IF NOT EXISTS predictions (
    stream INTEGER NOT NULL,
    number INTEGER NOT NULL,
    request_id TEXT,
    at REAL NOT NULL,
    is_labelled INTEGER NOT NULL DEFAULT 0,
    record BLOB NOT NULL,
    PRIMARY KEY (stream, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS predictions_request_id ON predictions (request_id, stream);
CREATE TABLE IF NOT EXISTS labelled (
    stream INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    number INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (stream, ordinal)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS labelled_number ON labelled (stream, number);
CREATE TABLE IF NOT EXISTS embeddings (
    stream INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    number INTEGER NOT NULL,
    vector BLOB NOT NULL,
    PRIMARY KEY (stream, ordinal)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS labels (
    id INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE,
    intents TEXT NOT NULL,
    at REAL NOT NULL,
    source TEXT NOT NULL,
    is_joined INTEGER NOT NULL DEFAULT 0
);
"""


@dataclass
class StreamRow:
    """A stream and its tallies, changed while a chunk is worked through and saved at its end."""

    id: int
    key: StreamKey
    predictions: int = 0
    """Rows kept."""
    labelled: int = 0
    """Ordinal of the next one."""
    embeddings: int = 0
    """Ordinal of the next one."""
    latest: int = 0
    """Number of the latest prediction."""
    hidden: int = 0
    """Length of its embeddings; 0 before the first."""


@dataclass(frozen=True)
class PredictionRow:
    """A prediction that a label found."""

    stream: int
    number: int
    request_id: str
    is_labelled: bool
    record: bytes


class JoinTables:
    """Statements only; the rules stand in ``label_join``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.executescript(_SCHEMA)

    def streams(self) -> list[StreamRow]:
        """Every stream that is remembered."""
        rows = self._connection.execute(
            "SELECT id, version, policy, role, predictions, labelled, embeddings, latest, hidden "
            "FROM streams ORDER BY id"
        )
        return [StreamRow(row[0], StreamKey(*row[1:4]), *row[4:]) for row in rows]

    def add_stream(self, key: StreamKey) -> StreamRow:
        """A new one."""
        insert = "INSERT INTO streams (version, policy, role) VALUES (?, ?, ?) RETURNING id"
        ((stream_id,),) = self._connection.execute(insert, (key.version, key.policy, key.role)).fetchall()
        return StreamRow(stream_id, key)

    def save_streams(self, rows: Sequence[StreamRow]) -> None:
        """Their tallies."""
        self._connection.executemany(
            "UPDATE streams SET predictions = ?, labelled = ?, embeddings = ?, latest = ?, hidden = ? WHERE id = ?",
            [(row.predictions, row.labelled, row.embeddings, row.latest, row.hidden, row.id) for row in rows],
        )

    def drop_stream(self, row: StreamRow) -> Counter[str]:
        """Forget it; what became of its predictions. Costs by what it holds."""
        flags = self._connection.execute("SELECT is_labelled FROM predictions WHERE stream = ?", (row.id,))
        gone = Counter("closed_labelled" if is_labelled else "evicted" for (is_labelled,) in flags)
        for table in ("predictions", "labelled", "embeddings"):
            self._connection.execute(f"DELETE FROM {table} WHERE stream = ?", (row.id,))  # noqa: S608 - table is ours
        self._connection.execute("DELETE FROM streams WHERE id = ?", (row.id,))
        return gone

    # Predictions.

    def insert_predictions(
        self, stream: StreamRow, numbers: Sequence[int], ids: Sequence[str], ats: Sequence[float], raw: Sequence[bytes]
    ) -> set[int]:
        """Keep them; the numbers of those whose request id the stream had already, and which no label will find."""
        rows = [(stream.id, *row) for row in zip(numbers, ids, ats, raw, strict=True)]
        insert = "INTO predictions (stream, number, request_id, at, record) VALUES (?, ?, ?, ?, ?)"
        done = self._connection.executemany(f"INSERT OR IGNORE {insert}", rows).rowcount
        repeated: set[int] = set()
        if done < len(rows):
            kept = self._connection.execute(
                "SELECT number FROM predictions WHERE stream = ? AND number >= ?", (stream.id, min(numbers))
            )
            repeated = set(numbers) - {number for (number,) in kept}
            again = [(row[0], row[1], None, row[3], row[4]) for row in rows if row[1] in repeated]
            self._connection.executemany(f"INSERT {insert}", again)
        stream.predictions += len(rows)
        stream.latest = max(stream.latest, *numbers)
        return repeated

    def predictions_of(self, ids: Sequence[str]) -> list[PredictionRow]:
        """The predictions of these requests, by stream and in order."""
        rows = self._connection.execute(
            "SELECT p.stream, p.number, p.request_id, p.is_labelled, p.record FROM json_each(?) AS wanted "
            "CROSS JOIN predictions AS p ON p.request_id = wanted.value ORDER BY p.stream, p.number",
            (_json(ids),),
        )
        return [PredictionRow(stream, number, name, bool(flag), raw) for stream, number, name, flag, raw in rows]

    def latest_predictions(self, stream: StreamRow, most: int) -> tuple[list[bytes], list[bool]]:
        """The latest records in order, and whether each is labelled."""
        rows = self._connection.execute(
            "SELECT record, is_labelled FROM predictions WHERE stream = ? ORDER BY number DESC LIMIT ?",
            (stream.id, most),
        ).fetchall()[::-1]
        return [raw for raw, _ in rows], [bool(flag) for _, flag in rows]

    def let_predictions_go(self, stream: StreamRow, most: int, horizon: float) -> tuple[Counter[str], int]:
        """Forget, oldest first, what is too many or from before the horizon; their fates, and the last number."""
        rows = self._old(
            "SELECT number, at, is_labelled FROM predictions WHERE stream = ? ORDER BY number LIMIT ?",
            (stream.id,),
            max(0, stream.predictions - most),
            horizon,
        )
        if rows:
            self._connection.execute(
                "DELETE FROM predictions WHERE stream = ? AND number <= ?", (stream.id, rows[-1][0])
            )
        stream.predictions -= len(rows)
        fates = (
            "closed_labelled" if is_labelled else "closed_unlabelled" if at < horizon else "evicted"
            for _, at, is_labelled in rows
        )
        return Counter(fates), rows[-1][0] if rows else 0

    # Labelled predictions.

    def insert_labelled(self, stream: StreamRow, numbers: Sequence[int], raw: Sequence[bytes], most: int) -> None:
        """Keep them after those there are, and mark the predictions; at most so many stay."""
        self._connection.executemany(
            "INSERT INTO labelled (stream, ordinal, number, record) VALUES (?, ?, ?, ?)",
            [
                (stream.id, stream.labelled + index, number, record)
                for index, (number, record) in enumerate(zip(numbers, raw, strict=True))
            ],
        )
        stream.labelled += len(numbers)
        self._connection.executemany(
            "UPDATE predictions SET is_labelled = 1 WHERE stream = ? AND number = ?",
            [(stream.id, number) for number in numbers],
        )
        self._connection.execute(
            "DELETE FROM labelled WHERE stream = ? AND ordinal < ?", (stream.id, stream.labelled - most)
        )

    def correct_labelled(self, stream: StreamRow, numbers: Sequence[int], raw: Sequence[bytes]) -> None:
        """Replace those that are still there; they stay in their place."""
        self._connection.executemany(
            "UPDATE labelled SET record = ? WHERE stream = ? AND number = ?",
            [(record, stream.id, number) for number, record in zip(numbers, raw, strict=True)],
        )

    def labelled(self, stream: StreamRow) -> list[bytes]:
        """All records, in the order of the labels."""
        rows = self._connection.execute("SELECT record FROM labelled WHERE stream = ? ORDER BY ordinal", (stream.id,))
        return [raw for (raw,) in rows]

    # Embeddings.

    def insert_embeddings(self, stream: StreamRow, embeddings: Embeddings, most: int) -> None:
        """Keep them after those there are; at most so many stay."""
        self._connection.executemany(
            "INSERT INTO embeddings (stream, ordinal, number, vector) VALUES (?, ?, ?, ?)",
            [
                (stream.id, stream.embeddings + index, number, vector.tobytes())
                for index, (number, vector) in enumerate(
                    zip(embeddings.numbers.tolist(), embeddings.vectors, strict=True)
                )
            ],
        )
        stream.embeddings += len(embeddings)
        self._connection.execute(
            "DELETE FROM embeddings WHERE stream = ? AND ordinal < ?", (stream.id, stream.embeddings - most)
        )

    def embeddings(self, stream: StreamRow) -> Embeddings:
        """Those that are kept, in order."""
        rows = self._connection.execute(
            "SELECT number, vector FROM embeddings WHERE stream = ? ORDER BY ordinal", (stream.id,)
        ).fetchall()
        if not rows:
            return NO_EMBEDDINGS
        vectors = np.frombuffer(b"".join(vector for _, vector in rows), dtype="<f2").reshape(len(rows), -1)
        return Embeddings(np.array([number for number, _ in rows], dtype=np.int64), vectors)

    # Labels.

    def labels_of(self, ids: Sequence[str]) -> dict[str, ChosenLabel]:
        """The label of each of these requests that has one."""
        rows = self._connection.execute(
            "SELECT l.request_id, l.intents, l.at, l.source FROM json_each(?) AS wanted "
            "CROSS JOIN labels AS l ON l.request_id = wanted.value",
            (_json(ids),),
        )
        return {
            request_id: ChosenLabel(request_id, tuple(orjson.loads(intents)), at, source)
            for request_id, intents, at, source in rows
        }

    def save_labels(self, labels: Sequence[ChosenLabel]) -> None:
        """Keep them, each in place of what its request had."""
        self._connection.executemany(
            "INSERT INTO labels (request_id, intents, at, source) VALUES (?, ?, ?, ?) ON CONFLICT (request_id) "
            "DO UPDATE SET intents = excluded.intents, at = excluded.at, source = excluded.source",
            [(label.request_id, _json(label.intents), label.at, label.source) for label in labels],
        )

    def mark_joined(self, ids: Sequence[str]) -> None:
        """These labels have met a prediction."""
        self._connection.execute(
            "UPDATE labels SET is_joined = 1 WHERE request_id IN (SELECT value FROM json_each(?))", (_json(ids),)
        )

    def let_labels_go(self, most: int, horizon: float) -> int:
        """Forget, oldest first, what is too many or from before the horizon; how many never met a prediction."""
        first, last = self._connection.execute(
            "SELECT (SELECT MIN(id) FROM labels), (SELECT MAX(id) FROM labels)"
        ).fetchone()
        if first is None:
            return 0
        # Ids have no holes: they are given in order, and the oldest go first.
        excess = max(0, last - first + 1 - most)
        rows = self._old("SELECT id, at, is_joined FROM labels ORDER BY id LIMIT ?", (), excess, horizon)
        if rows:
            self._connection.execute("DELETE FROM labels WHERE id <= ?", (rows[-1][0],))
        return sum(1 for _, _, is_joined in rows if not is_joined)

    def _old(self, oldest: str, of: tuple[int, ...], excess: int, horizon: float) -> list[tuple[int, float, int]]:
        """The first rows of a query that are too many, or from before the horizon up to the first that is not."""
        first = self._connection.execute(oldest, (*of, 1)).fetchone()
        if first is None or (excess == 0 and first[1] >= horizon):
            return []
        rows = self._connection.execute(oldest, (*of, excess + LET_GO_ROWS)).fetchall()
        young = (rank for rank, (_, at, _) in enumerate(rows) if rank >= excess and at >= horizon)
        return rows[: next(young, len(rows))]


def _json(values: Sequence[str]) -> str:
    return orjson.dumps(values).decode()
