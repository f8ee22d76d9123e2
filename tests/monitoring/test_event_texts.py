"""Texts are found for the predictions they belong to, and what the log has no more is said to be gone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monitoring.decoding import decode
from monitoring.errors import LogUnavailable
from monitoring.event_reader import Cursor, EventReader
from monitoring.event_texts import EventTexts
from monitoring.observations import Records
from tests.monitoring.event_logs import BEGAN, KEY, WrittenLog, prediction, taxonomy_of


def records_of(log: WrittenLog) -> Records:
    """The champion's predictions as the journey carries them."""
    reader = EventReader(log.path)
    decoded = decode(reader.read(Cursor()), taxonomy_of)
    reader.close()
    return np.concatenate([part.records for part in decoded.predictions if part.key == KEY])


def texts_of(log: WrittenLog, records: Records) -> list[str | None]:
    """Request id and text of each, in one."""
    found = EventTexts(log.path).of_records(KEY, records)
    return [None if one is None else f"{one.request_id}: {one.text}" for one in found]


def test_each_prediction_finds_its_own_text(log: WrittenLog) -> None:
    """In whichever order they are asked for, through several look-ups."""
    log.predict(*(prediction(i, text=f"text {i}", energy=-0.1 * i) for i in range(1200)))
    records = records_of(log)
    order = np.random.default_rng(0).permutation(1200)
    assert texts_of(log, records[order]) == [f"r{i}: text {i}" for i in order]


def test_predictions_of_one_moment_are_told_apart(log: WrittenLog) -> None:
    """A micro-batch has one time; the same text twice in it has one energy too, and goes by its order."""
    batch = [prediction(i, at=BEGAN, text=f"text {i // 2}", energy=-1.0 - i // 2) for i in range(6)]
    log.predict(*batch)
    assert texts_of(log, records_of(log)) == [f"r{i}: text {i // 2}" for i in range(6)]


def test_other_streams_of_the_same_request_are_not_taken(log: WrittenLog) -> None:
    """The shadow answers at the same moment, and may be as sure."""
    shadow = prediction(0, role="shadow", version="2", policy="2.1", text="of the shadow")
    log.predict(shadow, prediction(0, text="of the champion"), replace(shadow, role="candidate"))
    assert texts_of(log, records_of(log)) == ["r0: of the champion"]
    assert EventTexts(log.path).of_requests(["r0"])["r0"].text == "of the champion"


def test_what_retention_deleted_is_gone(log: WrittenLog) -> None:
    """The rest is found."""
    log.predict(*(prediction(i, energy=-1.0 - i) for i in range(4)))
    records = records_of(log)
    log.connection.execute("DELETE FROM predictions WHERE seq <= 2")
    assert [one is None for one in EventTexts(log.path).of_records(KEY, records)] == [True, True, False, False]
    assert set(EventTexts(log.path).of_requests(["r0", "r3", "never"])) == {"r3"}


def test_text_that_was_not_stored_leaves_the_request_id(log: WrittenLog) -> None:
    """Storing text can be turned off; a blank one is none."""
    log.predict(prediction(0, text=None), prediction(1, text="  "))
    assert texts_of(log, records_of(log)) == ["r0: None", "r1: None"]


def test_rows_that_are_no_events_are_passed_over(log: WrittenLog) -> None:
    """Malformed, of another kind, oversized, with fields of the wrong type, not UTF-8."""
    bodies = ["{", "[]", "1", '{"request_id": 5}', '{"request_id": "r0", "lang": "en", "top": null}', "x" * 70_000]
    log.write_predictions([("r0", BEGAN, body) for body in bodies])
    log.connection.execute("INSERT INTO predictions VALUES (NULL, 'r0', ?, CAST(x'7bff7d' AS TEXT))", (BEGAN,))
    log.predict(prediction(0))
    assert texts_of(log, records_of(log)) == ["r0: where is my parcel?"]
    assert list(EventTexts(log.path).of_requests(["r0"])) == ["r0"]


def test_latest_prediction_of_a_request_counts(log: WrittenLog) -> None:
    """A request id that was used twice."""
    log.predict(prediction(0, text="first"), prediction(1, request_id="r0", text="second"))
    assert EventTexts(log.path).of_requests(["r0", "r0"])["r0"].text == "second"


def test_log_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, or another file; nothing is created."""
    with pytest.raises(LogUnavailable, match=r"none\.sqlite"):
        EventTexts(tmp_path / "none.sqlite").of_requests(["r0"])
    (tmp_path / "text").write_text("no database, but long enough to be looked at as one" * 40)
    with pytest.raises(LogUnavailable, match="text"):
        EventTexts(tmp_path / "text").of_requests(["r0"])
    assert not (tmp_path / "none.sqlite").exists()


def test_nothing_asked_for_reads_nothing(log: WrittenLog) -> None:
    """No records, no requests."""
    log.predict(prediction(0))
    assert EventTexts(log.path).of_records(KEY, records_of(log)[:0]) == []
    assert EventTexts(log.path).of_requests([]) == {}
