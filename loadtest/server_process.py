"""Servers under test: started on a free loopback port, awaited until ready, weighed, and stopped again."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtest.wire import Target

ROOT = Path(__file__).resolve().parents[1]
READY_PATH = "/health/ready"
_POLL_S = 0.05
_GRACE_S = 25.0
"""Longer than the service grants the requests it has admitted."""


class ServerNotReady(RuntimeError):
    """The server ended, or did not say that it is ready in time; the message holds the end of its output."""


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    name: str
    target: Target
    process: subprocess.Popen[bytes]
    ready_after_s: float

    @property
    def url(self) -> str:
        """Where it answers, without a path."""
        return f"http://{self.target.host}:{self.target.port}"


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def service_running(folder: Path, extra: Mapping[str, str], ready_in_s: float = 60.0) -> Iterator[Server]:
    """The service of this checkout; its event log and output go to ``folder``, ``extra`` are further settings."""
    port = free_port()
    settings = {
        "ROUTER_HOST": "127.0.0.1",
        "ROUTER_PORT": str(port),
        "ROUTER_EVENT_LOG_PATH": str(folder / "events.sqlite"),
        **extra,
    }
    with server_running("service", [sys.executable, "-m", "service"], settings, port, folder, ready_in_s) as server:
        yield server


@contextmanager
def server_running(
    name: str, command: Sequence[str], settings: Mapping[str, str], port: int, folder: Path, ready_in_s: float = 60.0
) -> Iterator[Server]:
    """A server run by ``command`` until the block ends; raises ServerNotReady."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            list(command), cwd=ROOT, env={**os.environ, **settings}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _await_ready(name, process, port, log, began + ready_in_s)
        yield Server(name, Target("127.0.0.1", port), process, time.monotonic() - began)
    finally:
        _stop(process)


def _await_ready(name: str, process: subprocess.Popen[bytes], port: int, log: Path, until: float) -> None:
    while True:
        if process.poll() is not None:
            raise ServerNotReady(f"{name} ended with {process.returncode} before it was ready:\n{_end_of(log)}")
        if _is_ready(port):
            return
        if time.monotonic() > until:
            raise ServerNotReady(f"{name} was not ready in time:\n{_end_of(log)}")
        time.sleep(_POLL_S)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request("GET", READY_PATH)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end_of(log: Path, characters: int = 2000) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-characters:]


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def peak_memory_mib(pid: int) -> float:
    """Most resident memory that a process and its children ever held, each at its own peak (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    return own / 1024 + sum(peak_memory_mib(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    listed = (path.read_text(encoding="utf-8") for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(child) for line in listed for child in line.split()]
