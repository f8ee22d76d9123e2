"""Columns hold what the events hold; what is no event is counted and left out."""

import json
from typing import Any

import numpy as np
import pytest

from model_repo.contract.events import SCHEMA_VERSION, PredictionEvent
from model_repo.contract.labels import LANGUAGES
from monitoring.decoding import Decoded, decode
from monitoring.event_reader import Cursor, LogRows
from monitoring.observations import STAGES, StreamKey
from tests.monitoring.event_logs import BEGAN, EMBEDDING, KEY, TAXONOMY, label, prediction, taxonomy_of


def rows_of(*bodies: object, labels: tuple[object, ...] = (), at: object = BEGAN) -> LogRows:
    """A chunk with these bodies."""

    def numbered(values: tuple[object, ...]) -> tuple[tuple[int, object, object], ...]:
        return tuple((seq, at, body) for seq, body in enumerate(values, start=1))

    return LogRows(numbered(bodies), numbered(labels), Cursor())


def body_of(event: PredictionEvent, **changes: object) -> bytes:
    """An event as the log gives it, with some fields overwritten."""
    return json.dumps({**json.loads(event.to_body()), **changes}).encode()


def decoded(*bodies: object, labels: tuple[object, ...] = (), at: object = BEGAN) -> Decoded:
    """That chunk, decoded."""
    return decode(rows_of(*bodies, labels=labels, at=at), taxonomy_of)


def test_every_field_of_an_event_has_its_column() -> None:
    """The columns agree with what the contract reads from the same body."""
    event = PredictionEvent.from_body(
        prediction(3, lang="mix", intents=("parcel", "refund"), embedding=EMBEDDING, age_sensitive=True).to_body()
    )
    (part,) = decoded(body_of(event)).predictions
    (record,) = part.records
    assert (part.key, part.request_ids) == (KEY, (event.request_id,))
    assert {name: record[name].item() for name in ("confidence", "energy", "n_tokens", *STAGES)} == {
        name: getattr(event, name) for name in ("confidence", "energy", "n_tokens", *STAGES)
    }
    assert record["logits"].tolist() == pytest.approx(event.logits)
    assert TAXONOMY.intents[record["top"]] == event.top
    assert {TAXONOMY.intents[index] for index in np.flatnonzero(record["accepted"])} == set(event.intents)
    assert LANGUAGES[record["lang"]] == event.lang
    assert (bool(record["is_ood"]), bool(record["is_age_sensitive"])) == (event.is_ood, event.age_sensitive)
    assert (record["number"], record["at"], record["channel"]) == (1, BEGAN, b"web")
    assert part.embeddings.numbers.tolist() == [1]
    assert part.embeddings.vectors.tolist() == [[0.5, -1.0]]


@pytest.mark.parametrize(
    ("changes", "is_high_risk"),
    [
        ({"intents": ["hello"]}, False),
        ({"intents": ["hello", "refund"]}, True),
        ({"intents": ["hello"], "age_sensitive": True}, True),
        ({"intents": [], "is_ood": True, "top": "refund"}, False),
    ],
)
def test_high_risk_is_as_in_the_answer(changes: dict[str, object], is_high_risk: bool) -> None:
    """An accepted high-risk intent or an age-sensitive request; a guess that was not accepted is none."""
    (part,) = decoded(body_of(prediction(0), **changes)).predictions
    assert part.records["is_high_risk"].tolist() == [is_high_risk]


@pytest.mark.parametrize(("session_id", "channel"), [(None, b""), ("abc", b""), ("app:9:1", b"app"), ("é:1", b"?")])
def test_channel_stands_before_the_colon_of_the_session(session_id: str | None, channel: bytes) -> None:
    """A session id without a colon tells no channel."""
    (part,) = decoded(body_of(prediction(0), session_id=session_id)).predictions
    assert part.records["channel"].tolist() == [channel]


def test_versions_policies_and_roles_are_kept_apart() -> None:
    """Each is a stream; the order within it is that of the log."""
    events = [prediction(0), prediction(1, role="shadow", version="2", policy="2.1"), prediction(2)]
    parts = decoded(*map(body_of, events)).predictions
    assert {part.key: part.request_ids for part in parts} == {
        KEY: ("r0", "r2"),
        StreamKey("2", "2.1", "shadow"): ("r1",),
    }


BAD_FIELDS: list[dict[str, Any]] = [
    {"confidence": None},
    {"confidence": "0.9"},
    {"confidence": True},
    {"confidence": 1.5},
    {"energy": 1e999},
    {"logits": [1.0, 2.0]},
    {"logits": [1.0, 2.0, "3"]},
    {"logits": "abc"},
    {"logits": None},
    {"top": "weather"},
    {"top": ["parcel"]},
    {"intents": ["weather"]},
    {"intents": 3},
    {"intents": "abc"},
    {"total_ms": 1e300},
    {"logits": [1e39, 0.0, 0.0]},
    {"intents": []},
    {"intents": ["parcel"], "is_ood": True},
    {"is_ood": 0},
    {"age_sensitive": "no"},
    {"lang": "tlh"},
    {"n_tokens": -1},
    {"n_tokens": 10**18},
    {"queue_ms": -0.1},
    {"session_id": 5},
    {"embedding": "not base64!"},
    {"embedding": "AA=="},
    {"embedding": "AH4="},
    {"request_id": ""},
    {"request_id": "a\0b"},
    {"request_id": "x" * 129},
    {"request_id": 7},
    {"request_id": ["r0"]},
    {"role": "emperor"},
    {"role": None},
    {"version": ["1"]},
    {"policy": ""},
    {"schema": None},
    {"schema": "1"},
    {"schema": True},
    {"schema": 0},
]


@pytest.mark.parametrize("changes", BAD_FIELDS, ids=lambda changes: json.dumps(changes)[:40])
def test_bad_field_makes_one_bad_event(changes: dict[str, Any]) -> None:
    """Its neighbours in the chunk are read as if it were not there."""
    good = [body_of(prediction(index)) for index in range(5)]
    result = decoded(*good[:2], body_of(prediction(9), **changes), *good[2:])
    assert [request_id for part in result.predictions for request_id in part.request_ids] == [
        f"r{index}" for index in range(5)
    ]
    assert (result.malformed, result.future_schema, result.unknown_version) == (1, 0, 0)


@pytest.mark.parametrize("field", ["logits", "top", "embedding", "session_id", "schema", "version"])
def test_missing_field_makes_a_bad_event(field: str) -> None:
    """A field that is not there is not guessed."""
    document = json.loads(prediction(0).to_body())
    del document[field]
    assert decoded(json.dumps(document).encode()).malformed == 1


@pytest.mark.parametrize("body", [None, 5, b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"[" * 5000, b"null"])
def test_what_is_no_json_object_is_malformed(body: object) -> None:
    """Whatever a damaged log may hold, in predictions and in labels."""
    result = decoded(body, body_of(prediction(0)), labels=(body,))
    assert (result.malformed, len(result.predictions), len(result.labels)) == (2, 1, 0)


@pytest.mark.parametrize("at", [None, "yesterday", b"x", float("nan"), float("inf"), 0.0, -1.0, 1e12])
def test_event_without_a_time_is_malformed(at: object) -> None:
    """The time stands in a column of its own and may be damaged as well."""
    result = decoded(body_of(prediction(0)), labels=(label("r0", "hello").to_body().encode(),), at=at)
    assert (result.malformed, result.predictions, result.labels) == (2, (), ())


def test_event_of_a_future_schema_is_counted_apart() -> None:
    """An upgrade of the service is not damage."""
    newer = body_of(prediction(0), schema=SCHEMA_VERSION + 1)
    newer_label = json.dumps({"schema": SCHEMA_VERSION + 1, "verdict": "hello"}).encode()
    result = decoded(newer, labels=(newer_label,))
    assert (result.future_schema, result.malformed, result.predictions, result.labels) == (2, 0, (), ())


def test_unknown_field_is_ignored() -> None:
    """A field added within the schema stops no older reader."""
    result = decoded(body_of(prediction(0), mood="good"))
    assert (len(result.predictions), result.malformed) == (1, 0)


def test_prediction_of_an_unknown_version_is_counted() -> None:
    """Without its taxonomy its intents mean nothing."""
    result = decoded(body_of(prediction(0), version="77"), body_of(prediction(1)))
    assert (result.unknown_version, result.malformed, len(result.predictions)) == (1, 0, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"intents": []},
        {"intents": "hello"},
        {"intents": [["hello"]]},
        {"intents": None},
        {"source": "oracle"},
        {"is_ood": "false"},
        {"request_id": 5},
    ],
)
def test_bad_label_is_counted_and_left_out(changes: dict[str, object]) -> None:
    """Its neighbours are read as if it were not there."""
    good = label("r0", "hello").to_body().encode()
    bad = json.dumps({**json.loads(good), **changes}).encode()
    result = decoded(labels=(good, bad, good))
    assert (len(result.labels), result.malformed) == (2, 1)
