"""
A process that follows a log to its end, and may be told to die on the way.

    python -m tests.monitoring.follow_log LOG STATE [ticks N | edges N]

Writes a dot for every step. At the N-th tick of its state file (a statement, or a hundred instructions inside one), or
at the N-th edge of a transaction (as it is about to begin or to commit), it kills itself, which is what a kill from
outside at that point does.
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


def main(log: Path, state_path: Path, dies_at: str = "", left: int = 0) -> None:
    """Follow it."""
    state = StateFile(state_path)

    def tick() -> int:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def trace(statement: str) -> None:
        if dies_at == "ticks" or statement.startswith(("BEGIN", "COMMIT")):
            tick()

    if dies_at:
        state.connection.set_trace_callback(trace)
    if dies_at == "ticks":
        state.connection.set_progress_handler(tick, 100)
    journey = Journey(log, state, taxonomy_of, SMALL_LIMITS, chunk_events=CHUNK_EVENTS)
    is_caught_up = False
    while not is_caught_up:
        is_caught_up = journey.step(NOW).is_caught_up
        print(".", end="", flush=True)
    journey.close()
    state.close()


if __name__ == "__main__":
    how, count = (sys.argv[3], int(sys.argv[4])) if len(sys.argv) > 3 else ("", 0)
    main(Path(sys.argv[1]), Path(sys.argv[2]), how, count)
