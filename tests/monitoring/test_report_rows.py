"""Which rows a report is made of."""

from pathlib import Path

import pytest

from monitoring.errors import CannotReport, LogUnavailable
from monitoring.report_rows import read_range
from tests.monitoring.event_logs import BEGAN, KEY, WrittenLog, label, prediction, taxonomy_of

LATER = BEGAN + 86_400.0


def test_range_begins_with_its_first_moment_and_ends_before_its_last(log: WrittenLog) -> None:
    """[began, ended), and nothing around it."""
    log.predict(*(prediction(index) for index in range(10)))
    rows = read_range(log.path, BEGAN + 3, BEGAN + 7, taxonomy_of, LATER)
    assert (rows.streams[0].predictions["at"] - BEGAN).tolist() == [3.0, 4.0, 5.0, 6.0]


def test_labels_given_after_the_range_count(log: WrittenLog) -> None:
    """How good the answers of a day were is known the day after; labels of other days stay out."""
    log.predict(*(prediction(index) for index in range(10)))
    log.predict(*(prediction(index) for index in range(5000, 5010)))
    log.label(label("r1", "parcel"), BEGAN + 30)
    log.label(label("r4", "hello"), BEGAN + 7000)
    log.label(label("r5005", "hello"), BEGAN + 7001)
    rows = read_range(log.path, BEGAN + 3, BEGAN + 7, taxonomy_of, LATER)
    (stream,) = rows.streams
    assert (stream.labelled["at"] - BEGAN).tolist() == [4.0]
    assert stream.predictions["is_labelled"].tolist() == [False, True, False, False]


def test_corrected_label_is_the_one_shown(log: WrittenLog) -> None:
    """A review overrules what the customer said, also chunks later."""
    log.predict(prediction(0))
    log.label(label("r0", "parcel", source="customer"), BEGAN + 1)
    log.predict(*(prediction(index) for index in range(1, 3000)))
    log.label(label("r0", "refund", source="review"), BEGAN + 2990)
    (stream,) = read_range(log.path, BEGAN, BEGAN + 5000, taxonomy_of, LATER).streams
    assert (len(stream.labelled), stream.labelled["is_correct"].tolist()) == (1, [False])


def test_streams_stand_apart_and_the_largest_comes_first(log: WrittenLog) -> None:
    """By version, policy and role."""
    log.predict(*(prediction(index, role="shadow", policy="1.2") for index in range(3)))
    log.predict(*(prediction(index) for index in range(5)))
    rows = read_range(log.path, BEGAN, BEGAN + 100, taxonomy_of, LATER)
    assert [stream.key.name for stream in rows.streams] == [KEY.name, "1/1.2/shadow"]
    assert (rows.predictions, rows.labelled) == (8, 0)


def test_clock_that_stepped_back_loses_no_row(log: WrittenLog) -> None:
    """Rows are chosen by their time, wherever they stand in the log."""
    log.predict(prediction(50), prediction(3), prediction(51), prediction(4))
    (stream,) = read_range(log.path, BEGAN, BEGAN + 10, taxonomy_of, LATER).streams
    assert sorted((stream.predictions["at"] - BEGAN).tolist()) == [3.0, 4.0]


def test_log_is_read_over_many_chunks(log: WrittenLog) -> None:
    """More than a chunk of predictions and of labels, in and behind the range."""
    log.predict(*(prediction(index) for index in range(9000)))
    for index in range(0, 9000, 2):
        log.label(label(f"r{index}", "parcel"), BEGAN + index + 0.5)
    (stream,) = read_range(log.path, BEGAN + 1000, BEGAN + 6000, taxonomy_of, LATER).streams
    assert (len(stream.predictions), len(stream.labelled)) == (5000, 2500)


def test_too_large_a_range_is_refused_before_it_is_read(log: WrittenLog) -> None:
    """Rows are never left out without a word."""
    log.predict(*(prediction(index) for index in range(6)))
    with pytest.raises(CannotReport, match="--from, --to: 6 predictions, at most 5"):
        read_range(log.path, BEGAN, BEGAN + 10, taxonomy_of, LATER, most=5)


def test_missing_log_is_an_error_of_the_log(tmp_path: Path) -> None:
    """And no empty file is left behind."""
    with pytest.raises(LogUnavailable):
        read_range(tmp_path / "absent.sqlite", BEGAN, BEGAN + 1, taxonomy_of, LATER)
    assert list(tmp_path.iterdir()) == []
