"""
A process that follows a log to its end, and may be told to die on the way.

    python -m tests.monitoring.follow_log LOG STATE TICKS

Writes a dot for every step. After so many ticks of its state file (statements, and stretches of a hundred
instructions inside one) it kills itself, like a kill from outside at that point; TICKS 0 lets it live.
"""

import os
import signal
import sys
from pathlib import Path

from monitoring.journey import Journey
from monitoring.state_file import StateFile
from tests.monitoring.event_logs import BEGAN, SMALL_LIMITS, taxonomy_of

CHUNK_EVENTS = 64
NOW = BEGAN + 86_400.0


def main(log: Path, state_path: Path, ticks: int) -> None:
    """Follow it."""
    state = StateFile(state_path)
    left = ticks

    def tick(*_: object) -> int:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    if ticks:
        state.connection.set_trace_callback(tick)
        state.connection.set_progress_handler(tick, 100)
    journey = Journey(log, state, taxonomy_of, SMALL_LIMITS, chunk_events=CHUNK_EVENTS)
    is_caught_up = False
    while not is_caught_up:
        is_caught_up = journey.step(NOW).is_caught_up
        print(".", end="", flush=True)
    journey.close()
    state.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
