"""
``python -m tests.monitoring.sidecar_process``: the sidecar with settings from the environment, whose actions append
their key to the file TEST_REMEDIES and then come to an end, or with TEST_HANGS never do.
"""

import os
import sys
import threading
from pathlib import Path

from monitoring.app import run
from monitoring.errors import MonitoringError
from monitoring.failure_tree import load
from monitoring.json_logs import start_logging
from monitoring.remedies import ActionRequest, ActionResult
from monitoring.settings import read_settings
from monitoring.windows import Window


class WrittenDown:
    """An action that does nothing else."""

    def __init__(self, file: Path, hangs: bool) -> None:
        self._file = file
        self._hangs = hangs

    def run(self, request: ActionRequest, window: Window) -> ActionResult:
        """See Action."""
        with self._file.open("a") as opened:
            opened.write(f"{request.key}\n")
        if self._hangs:
            threading.Event().wait()
        return ActionResult("done", f"written down, with {len(window.predictions)} predictions")


def main() -> int:
    """As ``python -m monitoring``."""
    action = WrittenDown(Path(os.environ["TEST_REMEDIES"]), "TEST_HANGS" in os.environ)
    settings = read_settings()
    start_logging(settings.log_level)
    try:
        return run(settings, dict.fromkeys(load().actions, action))
    except MonitoringError as refused:
        sys.stderr.write(f"{refused}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
