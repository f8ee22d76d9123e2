"""The reader follows the log row by row, says what it missed, and waits for a log that is not there."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.errors import BadState, LogUnavailable
from monitoring.event_reader import MAX_BODY_CHARS, Cursor, EventReader
from tests.monitoring.event_logs import BEGAN, WrittenLog, label, prediction


@pytest.fixture
def reader(log: WrittenLog) -> Iterator[EventReader]:
    """A reader of chunks of four."""
    reader = EventReader(log.path, chunk_events=4, lock_wait_ms=1)
    yield reader
    reader.close()


def test_every_row_is_read_once_and_in_order(log: WrittenLog, reader: EventReader) -> None:
    """Chunk after chunk, until nothing is left; what is written later comes later."""
    log.predict(*(prediction(index) for index in range(10)))
    cursor, seqs, chunks = Cursor(), [], 0
    while True:
        rows = reader.read(cursor)
        seqs += [seq for seq, _, _ in rows.predictions]
        cursor, chunks = rows.cursor, chunks + 1
        if rows.is_caught_up:
            break
    assert (seqs, chunks) == (list(range(1, 11)), 3)
    log.predict(prediction(10))
    assert [seq for seq, _, _ in reader.read(cursor).predictions] == [11]


def test_cursor_survives_being_saved() -> None:
    """What is read back is what was saved; what cannot be read is said so."""
    cursor = Cursor(7, BEGAN + 0.1234567, 3, None, 100, BEGAN + 9)
    assert Cursor.from_json(cursor.to_json()) == cursor
    with pytest.raises(BadState, match="cursor"):
        Cursor.from_json(b'{"prediction": 7}')


def test_labels_do_not_run_ahead_of_predictions(log: WrittenLog, reader: EventReader) -> None:
    """After an outage a label is read once the predictions of its time have been."""
    log.predict(*(prediction(index) for index in range(6)))
    for index in range(6):
        log.label(label(f"r{index}", "hello"), BEGAN + index + 0.5)
    first = reader.read(Cursor())
    assert [seq for seq, _, _ in first.labels] == [1, 2, 3]
    second = reader.read(first.cursor)
    assert [seq for seq, _, _ in second.labels] == [4, 5, 6]


def test_backlog_of_labels_is_read_before_further_predictions(log: WrittenLog, reader: EventReader) -> None:
    """Three labels a prediction do not fall behind by more with every chunk."""
    log.predict(*(prediction(index) for index in range(8)))
    for index in range(4):
        for source in ("agent", "customer", "review"):
            log.label(label(f"r{index}", "hello", source=source), BEGAN + index)
    cursor, order = Cursor(), []
    for _ in range(4):
        rows = reader.read(cursor)
        order.append((len(rows.predictions), len(rows.labels)))
        cursor = rows.cursor
    assert order == [(4, 4), (0, 4), (0, 4), (4, 0)]


def test_labels_wait_for_nothing_when_all_predictions_are_read(log: WrittenLog, reader: EventReader) -> None:
    """A clock that stepped back leaves labels of the future behind: they are read all the same."""
    log.predict(prediction(0))
    log.label(label("r0", "hello"), BEGAN + 3600)
    assert len(reader.read(Cursor()).labels) == 1


def test_clock_stepping_back_does_not_hide_an_event(log: WrittenLog, reader: EventReader) -> None:
    """The order is that of the log, and the latest time stays what it was."""
    log.predict(prediction(0), prediction(1, at=BEGAN - 3600.0))
    rows = reader.read(Cursor())
    assert len(rows.predictions) == 2
    assert rows.cursor.latest_at == BEGAN


def test_rows_that_retention_deleted_unread_are_counted(log: WrittenLog, reader: EventReader) -> None:
    """A hole in the numbering is what nobody will ever read."""
    log.predict(*(prediction(index) for index in range(4)))
    cursor = reader.read(Cursor()).cursor
    log.predict(*(prediction(index) for index in range(4, 10)))
    log.connection.execute("DELETE FROM predictions WHERE seq <= 7")
    rows = reader.read(cursor)
    assert rows.missing_predictions == 3
    assert [seq for seq, _, _ in rows.predictions] == [8, 9, 10]
    assert not rows.is_new_log


def test_what_was_deleted_before_the_first_read_is_not_missed(log: WrittenLog, reader: EventReader) -> None:
    """A sidecar that starts on an old log has lost nothing."""
    log.predict(*(prediction(index) for index in range(4)))
    log.connection.execute("DELETE FROM predictions WHERE seq <= 2")
    assert reader.read(Cursor()).missing_predictions == 0


def test_a_label_that_the_log_had_already_is_not_missed(log: WrittenLog, reader: EventReader) -> None:
    """The log numbers labels that it then ignores; only retention makes a hole that counts."""
    log.label(label("r0", "hello"), BEGAN)
    cursor = reader.read(Cursor()).cursor
    log.label(label("r0", "hello"), BEGAN)
    log.label(label("r1", "hello"), BEGAN)
    rows = reader.read(cursor)
    assert (rows.labels[0][0], rows.missing_labels_at_most) == (3, 0)
    log.label(label("r2", "hello"), BEGAN)
    log.label(label("r3", "hello"), BEGAN)
    log.connection.execute("DELETE FROM labels WHERE seq <= 4")
    assert reader.read(rows.cursor).missing_labels_at_most == 1


def test_log_that_was_replaced_is_read_from_its_beginning(log: WrittenLog, reader: EventReader) -> None:
    """Its numbers go on where those of the old log ended, so that no number is used twice."""
    log.predict(*(prediction(index) for index in range(3)))
    cursor = reader.read(Cursor()).cursor
    log.close()
    for suffix in ("", "-wal", "-shm"):
        log.path.with_name(log.path.name + suffix).unlink(missing_ok=True)
    new = WrittenLog(log.path)
    new.predict(*(prediction(index) for index in range(100, 105)))
    rows = reader.read(cursor)
    new.close()
    assert rows.is_new_log
    assert [seq for seq, _, _ in rows.predictions] == [1, 2, 3, 4]
    assert rows.cursor.offset == 3


@pytest.mark.parametrize("content", [None, b"", b"this is not a database, and long enough to be read as one" * 20])
def test_missing_empty_or_damaged_log_is_unavailable(tmp_path: Path, content: bytes | None) -> None:
    """The reader says which file and goes on once it is there."""
    path = tmp_path / "events.sqlite"
    if content is not None:
        path.write_bytes(content)
    reader = EventReader(path)
    with pytest.raises(LogUnavailable, match=r"events\.sqlite"):
        reader.read(Cursor())
    path.unlink(missing_ok=True)
    log = WrittenLog(path)
    log.predict(prediction(0))
    assert len(reader.read(Cursor()).predictions) == 1
    reader.close()
    log.close()


def test_locked_log_is_unavailable_until_it_is_not(tmp_path: Path) -> None:
    """Nothing is lost by waiting."""
    path = tmp_path / "events.sqlite"
    log = WrittenLog(path)
    log.predict(prediction(0))
    log.close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    holder.execute("UPDATE predictions SET at = at")
    reader = EventReader(path, lock_wait_ms=1)
    with pytest.raises(LogUnavailable, match="locked"):
        reader.read(Cursor())
    holder.execute("COMMIT")
    holder.close()
    assert len(reader.read(Cursor()).predictions) == 1
    reader.close()


def test_oversized_body_is_not_read(log: WrittenLog, reader: EventReader) -> None:
    """A row of a gigabyte costs no gigabyte."""
    log.write_predictions([("r0", BEGAN, "x" * (MAX_BODY_CHARS + 1)), ("r1", BEGAN, prediction(1).to_body())])
    bodies = [body for _, _, body in reader.read(Cursor()).predictions]
    assert bodies[0] is None
    assert isinstance(bodies[1], bytes)
