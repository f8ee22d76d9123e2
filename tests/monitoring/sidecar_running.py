"""The sidecar in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.service.running import ROOT, free_port

SMALL = {
    "MONITOR_PIN_PREDICTIONS": "1000",
    "MONITOR_PIN_LABELLED": "1000",
    "MONITOR_WINDOW_PREDICTIONS": "1000",
    "MONITOR_WINDOW_LABELLED": "500",
}
"""So that an incident takes few events."""
PATIENCE_S = 120.0
"""How long a test waits for what must happen; what happens sooner is not waited for."""


@dataclass
class SidecarProcess:
    """Started, stopped and started again over the same files of one folder."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    module: str = "tests.monitoring.sidecar_process"
    process: "subprocess.Popen[bytes] | None" = None
    port: int = 0

    @property
    def remedies(self) -> list[str]:
        """Keys that actions were run for, in order."""
        file = self.folder / "remedies.txt"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def output(self) -> str:
        """What it wrote to standard error."""
        return (self.folder / "sidecar.log").read_text()

    def start(self) -> None:
        """Returns when it answers."""
        self.spawn()
        self.wait_for("/health/live", lambda _: True)

    def spawn(self) -> "subprocess.Popen[bytes]":
        """Returns at once."""
        self.port = free_port()
        environment = {
            **os.environ,
            "MONITOR_PORT": str(self.port),
            "MONITOR_EVENT_LOG_PATH": str(self.folder / "events.sqlite"),
            "MONITOR_MODEL_REPO": str(self.folder / "repo"),
            "MONITOR_STATE_PATH": str(self.folder / "monitor.sqlite"),
            "MONITOR_WORK_FOLDER": str(self.folder / "work"),
            "MONITOR_POLL_SECONDS": "0.05",
            "MONITOR_ASSESS_SECONDS": "0.2",
            "TEST_REMEDIES": str(self.folder / "remedies.txt"),
            **self.settings,
        }
        with (self.folder / "sidecar.log").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module], cwd=ROOT, env=environment, stdout=output, stderr=output
            )
        return self.process

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE_S)

    def get(self, path: str) -> httpx.Response:
        """An answer."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_S)

    def status(self) -> dict[str, Any]:
        """``GET /status``."""
        return dict(self.get("/status").json())

    def read(self) -> int:
        """Predictions and labels read so far, over all runs."""
        log = self.status()["log"]
        return int(log["predictions_read"]) + int(log["labels_read"])

    def wait_for(self, path: str, is_so: "Any") -> Any:
        """Ask until the JSON that is answered is so; fails when the process ends or that takes too long."""
        deadline, answer = time.monotonic() + PATIENCE_S, None
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.output
            try:
                answer = self.get(path).json()
            except httpx.TransportError:
                # Not listening yet.
                answer = None
            if answer is not None and is_so(answer):
                return answer
            time.sleep(0.02)
        raise AssertionError(f"{path} still answers {answer}\n{self.output}")

    def wait_until_read(self, events: int) -> dict[str, Any]:
        """Until so many predictions and labels were read; the status then."""
        status = self.wait_for(
            "/status", lambda body: body["log"]["predictions_read"] + body["log"]["labels_read"] >= events
        )
        return dict(status)


@contextmanager
def sidecar(folder: Path, **settings: str) -> Iterator[SidecarProcess]:
    """Not started yet; ended in any case."""
    held = SidecarProcess(folder, settings)
    try:
        yield held
    finally:
        if held.process is not None and held.process.poll() is None:
            held.process.kill()
            held.process.wait()
