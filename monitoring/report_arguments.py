"""What ``python -m monitoring report`` is told. Needs nothing of what draws."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from monitoring.errors import CannotReport


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """All of them."""
    words = "ISO 8601, as 2026-01-31 or 2026-01-31T08:00:00+09:00; UTC when it names no zone"
    parser.add_argument("--from", dest="began", required=True, metavar="TIME", help=f"first moment: {words}")
    parser.add_argument("--to", dest="ended", required=True, metavar="TIME", help="first moment after it, likewise")
    parser.add_argument("--log", type=Path, help="event log (default: MONITOR_EVENT_LOG_PATH)")
    parser.add_argument("--state", type=Path, help="state of the sidecar (default: MONITOR_STATE_PATH, if it is there)")
    parser.add_argument("--model-repo", type=Path, help="model repository (default: MONITOR_MODEL_REPO)")
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write")


def parse_time(argument: str, text: str) -> float:
    """
    Unix time; raises CannotReport naming the argument.

    >>> parse_time("--from", "2026-01-01"), parse_time("--from", "2026-01-01T09:00:00+09:00")
    (1767225600.0, 1767225600.0)
    """
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise CannotReport(f"{argument} must be a time like 2026-01-31T08:00:00, got {text!r}") from None
