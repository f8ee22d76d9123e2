"""
Runs the service and the sidecar beside each other: ``python -m deploy.side_by_side``, as ``make serve`` does.

Both write their JSON log lines to standard error; settings come from the environment (docs/service.md,
docs/monitoring.md). SIGTERM or Ctrl+C ends both. The service goes on when the sidecar ends; when the service ends, so
does the sidecar, and the exit status is the service's.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

SERVICE = (sys.executable, "-m", "service")
SIDECAR = (sys.executable, "-m", "monitoring")
GRACE_S = 30.0
"""Longest that the sidecar may take to end before it is killed; it resumes wherever it was."""
POLL_S = 0.2

Process = subprocess.Popen[bytes]


def run(service_command: Sequence[str] = SERVICE, sidecar_command: Sequence[str] = SIDECAR) -> int:
    """Until both have ended; the service's exit status."""
    running: list[Process] = []
    is_ending = False

    def end(*_: int | FrameType | None) -> None:
        nonlocal is_ending
        is_ending = True
        for process in running:
            if process.poll() is None:
                process.terminate()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    # In sessions of their own: Ctrl+C in a terminal reaches this process alone, which tells both once.
    running.append(subprocess.Popen(service_command, start_new_session=True))  # noqa: S603 - our own command
    running.append(subprocess.Popen(sidecar_command, start_new_session=True))  # noqa: S603 - our own command
    if is_ending:
        # Told before both were there.
        end()
    service, sidecar = running
    _await_service(service, sidecar, lambda: is_ending)
    end()
    try:
        sidecar.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        sidecar.kill()
        sidecar.wait()
    return service.returncode if service.returncode >= 0 else 128 - service.returncode


def _await_service(service: Process, sidecar: Process, is_ending: Callable[[], bool]) -> None:
    """Polls, since either may end first."""
    has_told = False
    while service.poll() is None:
        if not has_told and not is_ending() and sidecar.poll() is not None:
            has_told = True
            sys.stderr.write(f"the sidecar ended with status {sidecar.returncode}; the service goes on\n")
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(run())
