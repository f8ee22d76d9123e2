"""``python -m tests.service.fake_process``: the service with settings from the environment and a fake engine."""

import os
import sys
from pathlib import Path

from service.json_logs import start_logging
from service.settings import read_settings
from service.workers import run
from tests.doubles import FakeBackend


def fake_engine(folder: Path, workers: int) -> FakeBackend:
    """In place of an engine; must be importable, since workers of their own process look it up by name."""
    return FakeBackend()


if __name__ == "__main__":
    if limit := os.environ.get("TEST_FILE_LIMIT_BYTES"):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    settings = read_settings()
    start_logging(settings.log_level)
    sys.exit(run(settings, fake_engine))
