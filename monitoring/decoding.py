"""
Rows of the log -> columns, a stream at a time. What cannot be read is counted and left out, never fatal.

A whole chunk becomes columns at once; only when that fails it is halved until the bad events stand alone.
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson

from model_repo.contract.errors import BadEvent
from model_repo.contract.events import ROLES, SCHEMA_VERSION, LabelEvent
from model_repo.contract.labels import LANGUAGES, Taxonomy
from monitoring.event_reader import LogRows, Row
from monitoring.observations import (
    CHANNEL_BYTES,
    NO_EMBEDDINGS,
    STAGES,
    Embeddings,
    Records,
    StreamKey,
    StreamPredictions,
    prediction_dtype,
)

TaxonomyOf = Callable[[str], Taxonomy | None]
"""The taxonomy of a version, or None for a version that the model repository does not hold."""

MAX_ID_CHARS = 128
MAX_TOKENS = 1_000_000
MAX_TIME = 1e11
"""Unix time, seconds: what comes after the year 5000 is no time."""
_BAD_ID = f"request_id must have 1 to {MAX_ID_CHARS} characters and no NUL"  # SQLite would look for what is before it
_MOST = 1e30
"""A float32 holds it."""
_LANG_INDEX = {lang: index for index, lang in enumerate(LANGUAGES)}
_WRONG = (BadEvent, ValueError, TypeError, KeyError, OverflowError, AttributeError)
"""What a field of the wrong kind leads to while columns are made."""

Document = Mapping[str, Any]
Numbered = tuple[int, float, Document]
"""number, at, event"""


@dataclass(frozen=True)
class ReadLabel:
    """A label, and when it was given (Unix time)."""

    at: float
    label: LabelEvent


@dataclass(frozen=True)
class Decoded:
    """A chunk of the log as columns."""

    predictions: tuple[StreamPredictions, ...]
    """A stream may occur more than once; its parts are in order."""
    labels: tuple[ReadLabel, ...]
    malformed: int
    future_schema: int
    unknown_version: int
    """Predictions of a version whose taxonomy is not known."""


def decode(rows: LogRows, taxonomy_of: TaxonomyOf) -> Decoded:
    """Pure but for ``taxonomy_of``, which is asked once a stream and chunk."""
    groups, malformed, future = _grouped(rows.predictions, rows.cursor.offset)
    predictions: list[StreamPredictions] = []
    unknown = 0
    for key, events in groups.items():
        taxonomy = taxonomy_of(key.version)
        if taxonomy is None:
            unknown += len(events)
            continue
        parts, bad = _stream(key, taxonomy, events)
        predictions += parts
        malformed += bad
    labels, bad_labels, future_labels = _labels(rows.labels)
    return Decoded(tuple(predictions), labels, malformed + bad_labels, future + future_labels, unknown)


def _grouped(rows: Iterable[Row], offset: int) -> tuple[dict[StreamKey, list[Numbered]], int, int]:
    """Events by stream, and how many are malformed and from the future."""
    groups: dict[tuple[str, str, str], list[Numbered]] = {}
    malformed = future = 0
    for seq, at, body in rows:
        try:
            event = orjson.loads(body)
            if _is_from_the_future(event["schema"]):
                future += 1
                continue
            names = (event["version"], event["policy"], event["role"])
            groups.setdefault(names, []).append((seq + offset, at, event))
        except _WRONG:
            malformed += 1
    known: dict[StreamKey, list[Numbered]] = {}
    for names, events in groups.items():
        if all(isinstance(name, str) and name for name in names) and names[2] in ROLES:
            known[StreamKey(*names)] = events
        else:
            malformed += len(events)
    return known, malformed, future


def _is_from_the_future(schema: object) -> bool:
    if type(schema) is not int or schema < 1:
        raise BadEvent(f"schema must be a number from 1, got {schema!r}")
    return schema > SCHEMA_VERSION


def _stream(key: StreamKey, taxonomy: Taxonomy, events: Sequence[Numbered]) -> tuple[list[StreamPredictions], int]:
    """Columns of the good events in order, and how many are bad."""
    try:
        return [_columns(key, taxonomy, events)], 0
    except _WRONG:
        if len(events) == 1:
            return [], 1
        half = len(events) // 2
        first, bad_first = _stream(key, taxonomy, events[:half])
        second, bad_second = _stream(key, taxonomy, events[half:])
        return first + second, bad_first + bad_second


def _columns(key: StreamKey, taxonomy: Taxonomy, events: Sequence[Numbered]) -> StreamPredictions:
    """All events as columns; raises one of ``_WRONG`` when any of them is bad."""
    documents = [event for _, _, event in events]
    index = {intent: position for position, intent in enumerate(taxonomy.intents)}
    records = np.zeros(len(events), dtype=prediction_dtype(len(index)))
    records["number"] = [number for number, _, _ in events]
    records["at"] = _numbers([at for _, at, _ in events], "at", above=0.0, most=MAX_TIME)
    for name in ("confidence", "energy", *STAGES):
        records[name] = _numbers([event[name] for event in documents], name)
    records["top"] = [index[event["top"]] for event in documents]
    records["lang"] = [_LANG_INDEX[event["lang"]] for event in documents]
    records["n_tokens"] = _numbers([event["n_tokens"] for event in documents], "n_tokens", most=MAX_TOKENS)
    records["is_ood"] = _booleans([event["is_ood"] for event in documents], "is_ood")
    records["is_age_sensitive"] = _booleans([event["age_sensitive"] for event in documents], "age_sensitive")
    records["channel"] = [_channel(event["session_id"]) for event in documents]
    records["logits"] = _logits([event["logits"] for event in documents], len(index))
    if not set(map(type, [event["intents"] for event in documents])) <= {list}:
        raise BadEvent("intents must be a list")
    accepted = [(row, index[intent]) for row, event in enumerate(documents) for intent in event["intents"]]
    if accepted:
        at_rows, at_intents = np.array(accepted).T
        records["accepted"][at_rows, at_intents] = True
    high_risk = [index[intent] for intent in taxonomy.high_risk]
    records["is_high_risk"] = records["accepted"][:, high_risk].any(axis=1) | records["is_age_sensitive"]
    _check_ranges(records)
    numbers = [number for number, _, _ in events]
    return StreamPredictions(key, taxonomy, _request_ids(documents), records, _embeddings(numbers, documents))


def _check_ranges(records: Records) -> None:
    confidence = records["confidence"]
    if confidence.min() < 0 or confidence.max() > 1:
        raise BadEvent("confidence must be in [0, 1]")
    if min(records[name].min() for name in (*STAGES, "n_tokens")) < 0:
        raise BadEvent("times and n_tokens must be >= 0")
    if (records["accepted"].any(axis=1) == records["is_ood"]).any():
        raise BadEvent("intents must be empty exactly when is_ood")


def _numbers(values: Sequence[Any], field: str, above: float = -_MOST, most: float = _MOST) -> "np.ndarray[Any, Any]":
    # numpy reads None as NaN, a text as the number it spells and True as 1: none of them is one of our numbers.
    if not set(map(type, values)) <= {float, int}:
        raise BadEvent(f"{field} must be a number")
    numbers = np.array(values, dtype=np.float64)
    # NaN fails both comparisons.
    if not (numbers.min() > above and numbers.max() <= most):
        raise BadEvent(f"{field} is out of range")
    return numbers


def _booleans(values: Sequence[Any], field: str) -> Sequence[Any]:
    if set(map(type, values)) != {bool}:
        raise BadEvent(f"{field} must be true or false")
    return values


def _logits(values: Sequence[Any], n_intents: int) -> "np.ndarray[Any, Any]":
    if not set(map(type, values)) <= {list} or not set(map(len, values)) <= {n_intents}:
        raise BadEvent(f"logits must be lists of {n_intents}")
    return _numbers(list(chain.from_iterable(values)), "logits").reshape(-1, n_intents)


def _channel(session_id: str | None) -> bytes:
    if session_id is None:
        return b""
    channel, colon, _ = session_id.partition(":")
    return channel.encode("ascii", "replace")[:CHANNEL_BYTES] if colon else b""


def _request_ids(documents: Sequence[Document]) -> tuple[str, ...]:
    ids = tuple(event["request_id"] for event in documents)
    if not all(ids) or max(map(len, ids)) > MAX_ID_CHARS or "\0" in "".join(ids):
        raise BadEvent(_BAD_ID)
    return ids


def _embeddings(numbers: Sequence[int], documents: Sequence[Document]) -> Embeddings:
    sampled = [(number, event["embedding"]) for number, event in zip(numbers, documents, strict=True)]
    sampled = [(number, encoded) for number, encoded in sampled if encoded is not None]
    if not sampled:
        return NO_EMBEDDINGS
    raw = [base64.b64decode(encoded, validate=True) for _, encoded in sampled]
    if len(set(map(len, raw))) != 1 or not raw[0]:
        raise BadEvent("embeddings of one version must have one length")
    vectors = np.frombuffer(b"".join(raw), dtype="<f2").reshape(len(raw), -1)
    if not np.isfinite(vectors).all():
        raise BadEvent("embedding is not finite")
    return Embeddings(np.array([number for number, _ in sampled], dtype=np.int64), vectors)


def _labels(rows: Iterable[Row]) -> tuple[tuple[ReadLabel, ...], int, int]:
    """Labels in order, and how many are malformed and from the future."""
    labels: list[ReadLabel] = []
    malformed = future = 0
    for _, at, body in rows:
        try:
            event = orjson.loads(body)
            if _is_from_the_future(event["schema"]):
                future += 1
            else:
                labels.append(ReadLabel(_time(at), _label(event)))
        except _WRONG:
            malformed += 1
    return tuple(labels), malformed, future


def _label(event: Document) -> LabelEvent:
    request_id, intents, is_ood = event["request_id"], event["intents"], event["is_ood"]
    if type(request_id) is not str or not 0 < len(request_id) <= MAX_ID_CHARS or "\0" in request_id:
        raise BadEvent(_BAD_ID)
    if type(is_ood) is not bool or type(intents) is not list or not set(map(type, intents)) <= {str}:
        raise BadEvent("is_ood must be true or false, intents a list of names")
    return LabelEvent(request_id, tuple(intents), is_ood, event["source"])


def _time(at: Any) -> float:
    if type(at) is not float or not 0.0 < at <= MAX_TIME:
        raise BadEvent("at must be a time")
    return at
