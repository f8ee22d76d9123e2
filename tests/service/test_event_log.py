"""The SQLite event log: what is stored, what is waited for, what is lost."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_repo.contract.events import LabelEvent, PredictionEvent
from service import event_log
from service.errors import EventLogUnavailable
from service.event_log import Retention, SqliteEventLog

LABEL = LabelEvent("r-1", ("refund",), False, "agent")


class Counts:
    """What the log reported."""

    def __init__(self) -> None:
        self.written = self.lost = self.waiting = 0

    def __call__(self, written: int, lost: int, waiting: int) -> None:
        self.written += written
        self.lost += lost
        self.waiting = waiting


def an_event(number: int = 0, at: float = 1000.0, text: str | None = "hello") -> PredictionEvent:
    """An event whose request id is the number."""
    return PredictionEvent(
        request_id=str(number),
        at=at,
        version="1",
        policy="1.1",
        role="champion",
        session_id=None,
        text=text,
        n_tokens=3,
        lang="en",
        logits=(1.5, -0.25),
        age_logit=-4.0,
        embedding=None,
        top="refund",
        intents=("refund",),
        confidence=0.85,
        energy=-1.6,
        is_ood=False,
        age_sensitive=False,
        tokenize_ms=0.1,
        queue_ms=0.2,
        inference_ms=1.0,
        total_ms=1.5,
    )


KEEP_ALL = Retention(max_age_s=1e9, max_bytes=1e12)


def open_log(
    path: Path, counts: Counts | None = None, backlog: int = 10, keep: Retention = KEEP_ALL, retry_s: float = 60.0
) -> SqliteEventLog:
    """Keeps everything, and does not try a failing file again, unless told otherwise."""
    return SqliteEventLog(path, keep, backlog=backlog, lock_wait_ms=5, record=counts or Counts(), retry_s=retry_s)


def stored(path: Path) -> list[PredictionEvent]:
    """Events in the file, by any reader."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [
            PredictionEvent.from_body(body)
            for (body,) in connection.execute("SELECT body FROM predictions ORDER BY seq")
        ]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process holds the write lock."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_an_event_comes_back_as_it_was(tmp_path: Path) -> None:
    """Visible to any reader as soon as ``append`` returns."""
    log = open_log(tmp_path / "deep" / "folder" / "events.sqlite")
    events = [an_event(1, text='返品 "quoted" \n'), an_event(2, text=None)]
    log.append(events)
    assert stored(tmp_path / "deep" / "folder" / "events.sqlite") == events
    log.close()


def test_the_same_label_is_stored_once(tmp_path: Path) -> None:
    """Another source is another label."""
    log = open_log(tmp_path / "events.sqlite")
    assert log.add_label(LABEL, 1.0) is True
    assert log.add_label(LABEL, 2.0) is False
    assert log.add_label(LabelEvent("r-1", ("refund",), False, "review"), 3.0) is True
    log.close()


def test_while_locked_events_wait_and_are_written_afterwards(tmp_path: Path) -> None:
    """In order, and nothing is lost that the backlog holds."""
    path, counts = tmp_path / "events.sqlite", Counts()
    log = open_log(path, counts, retry_s=0.0)
    with locked(path):
        log.append([an_event(1), an_event(2)])
        assert log.state() == event_log.LogState(is_failing=True, lost=0, waiting=2)
    log.append([an_event(3)])
    assert [event.request_id for event in stored(path)] == ["1", "2", "3"]
    assert log.state() == event_log.LogState(is_failing=False, lost=0, waiting=0)
    assert (counts.written, counts.lost, counts.waiting) == (3, 0, 0)
    log.close()


def test_what_the_backlog_cannot_hold_is_counted_lost(tmp_path: Path) -> None:
    """The oldest go first."""
    path, counts = tmp_path / "events.sqlite", Counts()
    log = open_log(path, counts, backlog=2)
    with locked(path):
        for number in range(5):
            log.append([an_event(number)])
        assert log.state() == event_log.LogState(is_failing=True, lost=3, waiting=2)
    log.close()
    assert [event.request_id for event in stored(path)] == ["3", "4"]
    assert (counts.written, counts.lost) == (2, 3)


def test_at_the_end_what_still_cannot_be_written_is_lost_and_counted(tmp_path: Path) -> None:
    """Closing does not wait for a lock for ever."""
    path, counts = tmp_path / "events.sqlite", Counts()
    log = open_log(path, counts)
    with locked(path):
        log.append([an_event(1)])
        log.close()
    assert (counts.written, counts.lost, counts.waiting) == (0, 1, 0)


def test_while_locked_a_label_is_refused_to_its_sender(tmp_path: Path) -> None:
    """A label has a sender who can send it again; an answer has not."""
    path = tmp_path / "events.sqlite"
    log = open_log(path)
    with locked(path), pytest.raises(EventLogUnavailable):
        log.add_label(LABEL, 1.0)
    assert log.add_label(LABEL, 1.0) is True
    log.close()


def test_a_path_that_is_no_file_does_not_stop_the_service(tmp_path: Path) -> None:
    """The log is failing from the start, and says so."""
    log = open_log(tmp_path)
    log.append([an_event()])
    assert log.state().is_failing
    log.close()
    assert log.state().lost == 1


def test_events_older_than_the_age_are_deleted(tmp_path: Path) -> None:
    """In several small steps; labels too."""
    path = tmp_path / "events.sqlite"
    log = open_log(path, keep=Retention(max_age_s=100.0, max_bytes=1e12))
    log.append([an_event(number, at=1000.0) for number in range(250)])
    log.append([an_event(999, at=2000.0)])
    log.add_label(LABEL, 1000.0)
    assert log.maintain(now=2050.0).deleted == 251
    assert [event.request_id for event in stored(path)] == ["999"]
    log.close()


def test_the_oldest_events_are_deleted_beyond_the_size(tmp_path: Path) -> None:
    """The newest stay, and numbers go on growing, so that a reader's cursor stays valid."""
    path = tmp_path / "events.sqlite"
    log = open_log(path, keep=Retention(max_age_s=1e9, max_bytes=200_000.0))
    for start in range(0, 1000, 100):
        log.append([an_event(number, at=1000.0 + number) for number in range(start, start + 100)])
    log.maintain(now=5000.0)
    left = [int(event.request_id) for event in stored(path)]
    assert 0 < len(left) < 1000
    assert left == list(range(1000 - len(left), 1000))
    log.append([an_event(1000)])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT max(seq) FROM predictions").fetchone() == (1001,)
    log.close()


def test_maintenance_lets_the_write_ahead_log_start_over(tmp_path: Path) -> None:
    """Without it that file would grow for ever, since no request pays for folding it in."""
    path = tmp_path / "events.sqlite"
    log = open_log(path)
    sizes = []
    for _ in range(3):
        for number in range(100):
            log.append([an_event(number)])
        log.maintain(now=1000.0)
        sizes.append(path.with_name("events.sqlite-wal").stat().st_size)
    assert sizes[2] < 1.5 * sizes[0]
    log.close()


def test_two_logs_on_one_file_lose_nothing(tmp_path: Path) -> None:
    """As two worker processes do."""
    path = tmp_path / "events.sqlite"
    logs = [open_log(path, backlog=10_000, retry_s=0.0) for _ in range(2)]

    def write(log: SqliteEventLog, first: int) -> None:
        for number in range(first, first + 200):
            log.append([an_event(number)])

    threads = [threading.Thread(target=write, args=(log, 1000 * index)) for index, log in enumerate(logs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        log.close()
    expected = {str(number) for first in (0, 1000) for number in range(first, first + 200)}
    assert {event.request_id for event in stored(path)} == expected
