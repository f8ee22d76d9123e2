"""
The latest events of a version that carry an embedding, with their texts and the labels that hold, out of the log.

Read from the newest back, a page at a time, and only read: no lock and no open snapshot between pages.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from model_repo.contract.labels import LANGUAGES, Taxonomy
from monitoring.decoding import decode
from monitoring.errors import LogUnavailable
from monitoring.event_reader import MAX_BODY_CHARS, Cursor, LogRows, Row
from monitoring.label_choice import ChosenLabel, choose_labels
from monitoring.observations import StreamKey, StreamPredictions

PAGE_EVENTS = 2048
IDS_AT_ONCE = 500
"""SQLite takes 999 arguments at least."""
LOCK_WAIT_S = 0.5


@dataclass(frozen=True)
class EmbeddedEvent:
    """One answered utterance whose embedding was kept."""

    request_id: str
    at: float
    """Unix time, seconds."""
    text: str | None
    """Redacted by who wrote it; None when texts are not stored."""
    lang: str
    decided: tuple[str, ...]
    """The accepted intents; empty when decided ood."""
    label: tuple[str, ...] | None
    """The intents of the label that holds, empty when it says ood; None without a label."""

    @property
    def is_unrouted(self) -> bool:
        """Decided ood, labelled ood, or labelled with none of the intents it was decided for."""
        return not self.decided or (self.label is not None and not set(self.label) & set(self.decided))


@dataclass(frozen=True)
class EmbeddedEvents:
    """What was found; a request that was answered twice counts once."""

    events: tuple[EmbeddedEvent, ...]
    """The newest first."""
    vectors: NDArray[np.float16]
    """(m, H), a row an event; (0, 0) when there is none."""
    looked_through: int
    """Predictions of the version in this role, with or without an embedding."""
    ood_without_embedding: int
    """Of those, how many were decided ood and carry none."""
    malformed: int
    """Rows that are no event that can be read, of any version."""


def read_embedded(log: Path, key: StreamKey, taxonomy: Taxonomy, most: int) -> EmbeddedEvents:
    """
    From the latest ``most`` rows of the log, those of ``key.version`` in ``key.role`` under whichever policy: a policy
    does not move the embeddings, and a revision of yesterday must not hide what came before. Raises LogUnavailable.
    """
    try:
        uri = f"{log.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=LOCK_WAIT_S, isolation_level=None)) as connection:
            # Bytes that are not UTF-8 make one bad event, not a page that cannot be read.
            connection.text_factory = bytes
            return _read(connection, key, taxonomy, most)
    except (sqlite3.Error, OSError) as error:
        raise LogUnavailable(f"{log} cannot be read: {error}") from error


def _read(connection: sqlite3.Connection, key: StreamKey, taxonomy: Taxonomy, most: int) -> EmbeddedEvents:
    found: dict[str, tuple[EmbeddedEvent, NDArray[np.float16]]] = {}
    looked_through = without = malformed = 0
    for page in _pages(connection, most):
        decoded = decode(LogRows(page, (), Cursor()), lambda version: taxonomy if version == key.version else None)
        malformed += decoded.malformed
        parts = [part for part in decoded.predictions if part.key.role == key.role]
        looked_through += sum(len(part.records) for part in parts)
        without += sum(_ood_without_embedding(part) for part in parts)
        bodies = {seq: body for seq, _, body in page}
        numbered = [one for part in parts for one in _embedded(part, bodies)]
        for _, event, vector in sorted(numbered, key=lambda one: -one[0]):
            found.setdefault(event.request_id, (event, vector))
    labels = _labels(connection, list(found))
    events = tuple(
        replace(event, label=labels[event.request_id].intents) if event.request_id in labels else event
        for event, _ in found.values()
    )
    vectors = [vector for _, vector in found.values()]
    stacked = np.stack(vectors) if vectors else np.empty((0, 0), dtype=np.float16)
    return EmbeddedEvents(events, stacked, looked_through, without, malformed)


def _pages(connection: sqlite3.Connection, most: int) -> Iterator[tuple[Row, ...]]:
    """Pages of the latest rows, the newest page first; each page in the order of the log."""
    before, left = 2**63 - 1, most
    while left > 0:
        rows = connection.execute(
            f"SELECT seq, at, CASE WHEN length(body) <= {MAX_BODY_CHARS} THEN body END FROM predictions "  # noqa: S608 - a number of ours
            "WHERE seq < ? ORDER BY seq DESC LIMIT ?",
            (before, min(left, PAGE_EVENTS)),
        ).fetchall()
        if not rows:
            return
        yield tuple(reversed(rows))
        before, left = rows[-1][0], left - len(rows)


def _ood_without_embedding(part: StreamPredictions) -> int:
    has_none = ~np.isin(part.records["number"], part.embeddings.numbers)
    return int((part.records["is_ood"] & has_none).sum())


def _embedded(
    part: StreamPredictions, bodies: Mapping[int, Any]
) -> Iterator[tuple[int, EmbeddedEvent, NDArray[np.float16]]]:
    """Number, event and embedding of those that carry one; not labelled yet."""
    at_row = {int(number): row for row, number in enumerate(part.records["number"])}
    for number, vector in zip(part.embeddings.numbers.tolist(), part.embeddings.vectors, strict=True):
        record = part.records[at_row[number]]
        text = orjson.loads(bodies[number]).get("text")
        decided = tuple(part.taxonomy.intents[index] for index in np.flatnonzero(record["accepted"]))
        event = EmbeddedEvent(
            request_id=part.request_ids[at_row[number]],
            at=float(record["at"]),
            text=text if isinstance(text, str) else None,
            lang=LANGUAGES[int(record["lang"])],
            decided=decided,
            label=None,
        )
        yield number, event, vector


def _labels(connection: sqlite3.Connection, request_ids: Sequence[str]) -> dict[str, ChosenLabel]:
    """The label that holds, of those that have one."""
    rows: list[Row] = []
    for start in range(0, len(request_ids), IDS_AT_ONCE):
        ids = request_ids[start : start + IDS_AT_ONCE]
        marks = ",".join("?" * len(ids))
        rows += connection.execute(f"SELECT seq, at, body FROM labels WHERE request_id IN ({marks})", ids)  # noqa: S608
    labels, _ = choose_labels(
        decode(LogRows((), tuple(sorted(rows, key=lambda row: row[0])), Cursor()), lambda _: None).labels, {}
    )
    return {label.request_id: label for label in labels}
