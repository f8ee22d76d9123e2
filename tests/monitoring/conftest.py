"""What the tests of the event journey share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.state_file import StateFile
from tests.monitoring.event_logs import WrittenLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[WrittenLog]:
    """An empty event log."""
    written = WrittenLog(tmp_path / "events.sqlite")
    yield written
    written.close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateFile]:
    """A new state file."""
    file = StateFile(tmp_path / "state.sqlite")
    yield file
    file.close()
