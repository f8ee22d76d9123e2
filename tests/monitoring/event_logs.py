"""Event logs written as the service writes them, and what is in them."""

import base64
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from model_repo.contract.events import SQLITE_SCHEMA, LabelEvent, PredictionEvent
from model_repo.contract.labels import Taxonomy
from monitoring.observations import Limits, StreamKey

BEGAN = 1_700_000_000.0
TAXONOMY = Taxonomy(("refund", "hello", "parcel"), frozenset({"refund"}))
KEY = StreamKey("1", "1.1", "champion")
SMALL_LIMITS = Limits(predictions=150, recent=100, labelled=80, embeddings=10, labels=60, max_age_s=120.0, streams=2)
"""So small that a few hundred events reach every one of them."""
EMBEDDING = base64.b64encode(np.array([0.5, -1.0], dtype="<f2").tobytes()).decode()

A_PREDICTION = PredictionEvent(
    request_id="r0",
    at=BEGAN,
    version="1",
    policy="1.1",
    role="champion",
    session_id="web:7",
    text="where is my parcel?",
    n_tokens=6,
    lang="en",
    logits=(0.1, -2.0, 3.25),
    age_logit=-4.0,
    embedding=None,
    top="parcel",
    intents=("parcel",),
    confidence=0.92,
    energy=-3.5,
    is_ood=False,
    age_sensitive=False,
    tokenize_ms=0.125,
    queue_ms=0.5,
    inference_ms=2.0,
    total_ms=3.0,
)


def taxonomy_of(version: str) -> Taxonomy | None:
    """Every version of one digit is known."""
    return TAXONOMY if len(version) == 1 else None


def prediction(index: int, **changes: object) -> PredictionEvent:
    """The index-th prediction: request ``r<index>``, a second after the one before."""
    return replace(A_PREDICTION, **{"request_id": f"r{index}", "at": BEGAN + index, **changes})  # type: ignore[arg-type]


def label(request_id: str, *intents: str, source: str = "agent") -> LabelEvent:
    """A label; ood when no intent is named."""
    return LabelEvent(request_id, intents, not intents, source)


class WrittenLog:
    """A log that a test writes to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=OFF")
        self.connection.executescript(SQLITE_SCHEMA)

    def predict(self, *events: PredictionEvent) -> None:
        """Append predictions."""
        self.write_predictions([(event.request_id, event.at, event.to_body()) for event in events])

    def label(self, event: LabelEvent, at: float) -> None:
        """Append a label, unless the same one is there."""
        self.write_labels([(event.request_id, at, event.to_body())])

    def write_predictions(self, rows: Iterable[Sequence[object]]) -> None:
        """Append rows as they are, in one transaction."""
        self.connection.execute("BEGIN")
        self.connection.executemany("INSERT INTO predictions (request_id, at, body) VALUES (?, ?, ?)", rows)
        self.connection.execute("COMMIT")

    def write_labels(self, rows: Iterable[Sequence[object]]) -> None:
        """Append rows as they are, in one transaction."""
        self.connection.execute("BEGIN")
        self.connection.executemany("INSERT OR IGNORE INTO labels (request_id, at, body) VALUES (?, ?, ?)", rows)
        self.connection.execute("COMMIT")

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()
