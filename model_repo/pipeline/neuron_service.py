"""The service with compiled programs as a process of its own: started, asked over HTTP, loaded, stopped."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from model_repo.contract.decision import Decisions
from model_repo.contract.labels import Taxonomy

BUDGET_MS = 15.0
POLL_S = 0.2


class ServiceFailed(RuntimeError):
    """It ended, or was not ready in time; the message has the end of its log."""


@dataclass(frozen=True)
class NeuronService:
    """A service that is ready: its programs are on the cores and have passed the self-check."""

    url: str
    ready_after_s: float

    def get(self, path: str) -> Any:
        """What a path answers, from JSON."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:  # noqa: S310 - our own process
            return json.loads(answer.read())

    def route(self, text: str) -> dict[str, Any]:
        """``POST /route``."""
        body = json.dumps({"text": text}).encode()
        request = urllib.request.Request(f"{self.url}/route", body, {"content-type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own process
            return dict(json.loads(answer.read()))

    def load(self, rate: float, seconds: float) -> dict[str, Any]:
        """What the open-loop generator reports of a constant rate. Raises ServiceFailed with its message."""
        command = [sys.executable, "-m", "loadtest.openload", "--url", self.url]
        options = ["--rate", str(rate), "--duration", str(seconds)]
        run = subprocess.run([*command, *options], capture_output=True, text=True, check=False)  # noqa: S603 - our own
        if run.returncode != 0:
            raise ServiceFailed(f"the load generator failed: {run.stderr[-2000:]}")
        return dict(json.loads(run.stdout))


@contextmanager
def neuron_service(repository: Path, inference_threads: int, patience_s: float) -> Iterator[NeuronService]:
    """
    The service on the repository's champion, with its log and its event log in a folder that is removed; raises
    ServiceFailed.
    """
    with TemporaryDirectory(prefix="neuron-check-") as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
        free.close()
        environment = os.environ | {
            "ROUTER_ENGINE": "neuron",
            "ROUTER_MODEL_REPO": str(repository.resolve()),
            "ROUTER_HOST": "127.0.0.1",
            "ROUTER_PORT": str(port),
            "ROUTER_WORKERS": "1",
            "ROUTER_INFERENCE_THREADS": str(inference_threads),
            "ROUTER_EVENT_LOG_PATH": str(Path(folder) / "events.sqlite"),
        }
        log = Path(folder) / "service.log"
        began = time.monotonic()
        # Into a file: a pipe that nobody reads would stop the service once it is full.
        with log.open("wb") as output:
            process = subprocess.Popen([sys.executable, "-m", "service"], env=environment, stderr=output, stdout=output)
        try:
            _await_ready(process, f"http://127.0.0.1:{port}", log, began + patience_s)
            yield NeuronService(f"http://127.0.0.1:{port}", round(time.monotonic() - began, 1))
        finally:
            process.terminate()
            process.wait(60)


def _await_ready(process: "subprocess.Popen[bytes]", url: str, log: Path, until: float) -> None:
    while not _is_ready(url):
        ended = process.poll()
        if ended is not None or time.monotonic() > until:
            what = "was not ready in time" if ended is None else f"ended with {ended}"
            raise ServiceFailed(f"the service {what}: {log.read_text(encoding='utf-8', errors='replace')[-4000:]}")
        time.sleep(POLL_S)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=10):  # noqa: S310 - our own process
            return True
    except (urllib.error.URLError, OSError):
        return False


def decisions_of(answers: Sequence[Mapping[str, Any]], taxonomy: Taxonomy) -> Decisions:
    """The decisions that answers of ``POST /route`` carry, one row each."""
    probabilities = np.array([[answer["probabilities"][intent] for intent in taxonomy.intents] for answer in answers])
    accepted = [{entry["intent"] for entry in answer["intents"]} for answer in answers]
    return Decisions(
        probabilities=probabilities,
        energies=np.array([answer["ood"]["energy"] for answer in answers]),
        is_ood=np.array([answer["ood"]["is_ood"] for answer in answers]),
        is_accepted=np.array([[intent in names for intent in taxonomy.intents] for names in accepted]),
        top=np.array([taxonomy.index(answer["top"]["intent"]) for answer in answers]),
        is_age_sensitive=np.array([answer["age_sensitive"] for answer in answers]),
    )


def highest_rate_in_budget(reports: Mapping[float, Mapping[str, Any]]) -> float | None:
    """
    The highest rate up to which every one was answered within the budget at the 95th percentile, all but one in a
    thousand; None when the lowest was not.

    >>> good = {"errors": 0, "sent": 100, "has_collapsed": False, "latency": {"p95": 9.0}}
    >>> highest_rate_in_budget({200.0: good, 500.0: good, 1000.0: {**good, "latency": {"p95": 16.0}}, 2000.0: good})
    500.0
    """
    best = None
    for rate, report in sorted(reports.items()):
        is_slow = report["has_collapsed"] or not report["latency"]["p95"] <= BUDGET_MS
        if is_slow or report["errors"] > report["sent"] / 1000:
            break
        best = rate
    return best
