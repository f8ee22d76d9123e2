"""Texts sent through the real service, for measurements: its process is started, and its event log read."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BATCH = 32
READY_WITHIN_S = 120.0
GRACE_S = 30.0


@dataclass(frozen=True)
class Asked:
    """One utterance to send."""

    request_id: str
    text: str


def bodies_of(
    asked: Sequence[Asked], folder: Path, model_repo: Path | None = None, tell: Callable[[int], None] | None = None
) -> Mapping[str, str]:
    """
    The prediction event of each request id, as the service wrote it, with its embedding; nobody is refused.

    The log lies in ``folder``. ``tell`` hears after each batch how many are answered. Raises RuntimeError when the
    service does not start or leaves one without an event.
    """
    log = folder / "events.sqlite"
    settings = {
        "ROUTER_EVENT_LOG_PATH": str(log),
        "ROUTER_EMBEDDING_SAMPLE_RATIO": "1",
        "ROUTER_ADMISSION_TARGET_MS": "60000",
        "ROUTER_DEADLINE_MS": "600000",
        "ROUTER_MIN_IN_FLIGHT": str(BATCH),
    }
    if model_repo is not None:
        settings["ROUTER_MODEL_REPO"] = str(model_repo)
    with _service(settings, folder / "service.log") as url:
        for start in range(0, len(asked), BATCH):
            _route(url, asked[start : start + BATCH])
            if tell is not None:
                tell(min(start + BATCH, len(asked)))
    with closing(sqlite3.connect(log)) as connection:
        bodies = dict(connection.execute("SELECT request_id, body FROM predictions WHERE body LIKE '%champion%'"))
    lost = [one.request_id for one in asked if one.request_id not in bodies]
    if lost:
        raise RuntimeError(f"the service left no event of {len(lost)} utterances, the first {lost[0]}")
    return bodies


@contextmanager
def _service(settings: Mapping[str, str], output: Path) -> Iterator[str]:
    """Its address, once it is ready; it ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {**os.environ, **settings, "ROUTER_HOST": "127.0.0.1", "ROUTER_PORT": str(port)}
    with output.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"], cwd=ROOT, env=environment, stdout=written, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + READY_WITHIN_S
        while not _is_ready(url):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the service is not ready:\n{output.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=5.0) as answer:  # noqa: S310 - loopback
            return int(answer.status) == 200
    except OSError:
        return False


def _route(url: str, asked: Sequence[Asked]) -> None:
    body = {"utterances": [{"text": one.text, "request_id": one.request_id} for one in asked]}
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{url}/route/batch", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=600.0) as answer:  # noqa: S310 - loopback
            answer.read()
    except urllib.error.HTTPError as refused:
        raise RuntimeError(f"the service answered {refused.code}: {refused.read()[:500]!r}") from refused
