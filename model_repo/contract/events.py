"""
The immutable records of the event log, and its SQLite schema.

The service writes them, the sidecar reads them; they meet only here. Schema changes raise
``SCHEMA_VERSION``: a reader refuses what is newer than it knows, and ignores fields it does not know.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from model_repo.contract.errors import BadEvent

SCHEMA_VERSION = 1
ROLES = ("champion", "candidate", "shadow")
LABEL_SOURCES = ("agent", "customer", "rule", "review")

SQLITE_SCHEMA = """
CREATE TABLE IF NOT EXISTS predictions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL,
    at REAL NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS predictions_request_id ON predictions (request_id);
CREATE INDEX IF NOT EXISTS predictions_at ON predictions (at);
CREATE TABLE IF NOT EXISTS labels (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL,
    at REAL NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (request_id, body)
);
CREATE INDEX IF NOT EXISTS labels_at ON labels (at);
"""
"""``seq`` only grows (AUTOINCREMENT), also after retention deletes rows: a reader's cursor stays valid."""


@dataclass(frozen=True)
class PredictionEvent:
    """One answered utterance."""

    request_id: str
    at: float
    """Unix time of the answer, seconds."""
    version: str
    policy: str
    role: str
    """champion, candidate or shadow."""
    session_id: str | None
    text: str | None
    """Redacted; None when storing text is turned off."""
    n_tokens: int
    lang: str
    logits: tuple[float, ...]
    age_logit: float
    embedding: str | None
    """Base64 of the float16 pooled embedding, or None when not sampled."""
    top: str
    intents: tuple[str, ...]
    confidence: float
    """Calibrated probability of ``top``."""
    energy: float
    is_ood: bool
    age_sensitive: bool
    tokenize_ms: float
    queue_ms: float
    inference_ms: float
    total_ms: float
    schema: int = SCHEMA_VERSION

    def to_body(self) -> str:
        """The JSON stored in the log."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def from_body(body: str) -> "PredictionEvent":
        """Inverse of ``to_body``; raises BadEvent for what is malformed or newer."""
        data = _read(body)
        fields = PredictionEvent.__dataclass_fields__
        try:
            known = {k: v for k, v in data.items() if k in fields}
            known["logits"] = tuple(known["logits"])
            known["intents"] = tuple(known["intents"])
            return PredictionEvent(**known)
        except (KeyError, TypeError) as wrong:
            raise BadEvent(f"not a prediction event: {wrong}") from wrong


@dataclass(frozen=True)
class LabelEvent:
    """Ground truth that arrived later, keyed by request id. Equal labels count once."""

    request_id: str
    intents: tuple[str, ...]
    is_ood: bool
    source: str
    """agent, customer, rule or review."""

    def __post_init__(self) -> None:
        if self.is_ood == bool(self.intents):
            raise BadEvent("a label names intents or says ood, exactly one of the two")
        if self.source not in LABEL_SOURCES:
            raise BadEvent(f"source must be one of {', '.join(LABEL_SOURCES)}, got {self.source!r}")

    def to_body(self) -> str:
        """The JSON stored in the log; equal labels give equal text, so the log keeps one."""
        data = asdict(self) | {"intents": sorted(self.intents), "schema": SCHEMA_VERSION}
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    @staticmethod
    def from_body(body: str) -> "LabelEvent":
        """Inverse of ``to_body``; raises BadEvent for what is malformed or newer."""
        data = _read(body)
        try:
            return LabelEvent(data["request_id"], tuple(data["intents"]), data["is_ood"], data["source"])
        except (KeyError, TypeError) as wrong:
            raise BadEvent(f"not a label event: {wrong}") from wrong


def _read(body: str) -> Mapping[str, Any]:
    try:
        data = json.loads(body)
    except ValueError as wrong:
        raise BadEvent(f"an event is not JSON: {wrong}") from wrong
    if not isinstance(data, dict):
        raise BadEvent(f"an event is a JSON object, got {type(data).__name__}")
    schema = data.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA_VERSION:
        raise BadEvent(f"event schema {schema!r} is not known; this reader knows up to {SCHEMA_VERSION}")
    return data
