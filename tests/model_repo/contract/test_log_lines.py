"""Log lines are JSON objects, whatever stands in them."""

import json
import logging
import sys
from pathlib import Path

from model_repo.contract.log_lines import JsonFormatter


def line(record: logging.LogRecord) -> dict[str, object]:
    """What is written for a record."""
    return dict(json.loads(JsonFormatter().format(record)))


def test_a_line_has_time_level_message_and_extras() -> None:
    """The request id stands in a field of its own, also with quotes and newlines in it."""
    record = logging.LogRecord("service.http_app", logging.WARNING, "x.py", 1, "late by %d ms", (5,), None)
    record.request_id = 'a"b\nc'
    written = line(record)
    assert (written["level"], written["message"], written["request_id"]) == ("warning", "late by 5 ms", 'a"b\nc')
    assert str(written["at"]).endswith("+00:00")


def test_a_trace_stays_on_one_line() -> None:
    """One record, one line."""
    try:
        raise ValueError("boom")
    except ValueError:
        record = logging.LogRecord("service", logging.ERROR, "x.py", 1, "failed", (), sys.exc_info())
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert "ValueError: boom" in json.loads(text)["trace"]


def test_what_json_or_a_terminal_cannot_hold_is_written_all_the_same() -> None:
    """A path, and half of a surrogate pair."""
    record = logging.LogRecord("monitoring", logging.INFO, "x.py", 1, "read %s", ("\ud83d",), None)
    record.file = Path("var/events.sqlite")
    assert JsonFormatter().format(record).isascii()
    assert (line(record)["message"], line(record)["file"]) == ("read \ud83d", "var/events.sqlite")
