"""
CPU time of one request, of the service and of the engine: ``python -m deploy.host_cost --model-repo DIR``.

The service runs with an engine that answers at once, takes a constant rate, and its CPU time beyond what it uses idle
is divided by the requests that it answered: HTTP, tokenizer, batching, decision and event log. The engine is measured
in this process, on the same messages one at a time and in fours. CPU time, not wall time; what else runs on the machine
still adds to it, through shared caches and hyper-threads, so of the repeats the least disturbed one counts.
These are inputs of deploy/cost.py.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtest.server_process import Server, free_port, server_running
from loadtest.service_metrics import read_metrics, total
from model_repo.contract.engine import TOKENIZER_FILE
from model_repo.contract.outputs import ModelOutputs
from model_repo.pipeline.neuron_buckets import authored_texts
from model_repo.store import Store
from service.backends.choice import open_backend
from service.backends.protocol import Backend
from service.tokenizer import UtteranceTokenizer

SERVE = "--serve-without-engine"
GROUPS = (1, 4)
"""Utterances that the engine gets together."""
IDLE_S = 5.0
MOST_ERRORS = 0.01
"""Share of the requests. A refused one costs less than an answered one, so more of them would flatter the figure."""
UNREFUSED = {
    "ROUTER_ADMISSION_TARGET_MS": "5000",
    "ROUTER_MIN_IN_FLIGHT": "512",
    "ROUTER_MAX_IN_FLIGHT": "512",
    "ROUTER_DEADLINE_MS": "10000",
}
"""On a busy machine admission would refuse; how long an answer takes does not matter here."""


@dataclass(frozen=True)
class Served:
    """What one run of the load used."""

    cpu_ms: float
    """A request, beyond what the service uses idle."""
    idle_cores: float
    group: float
    """Utterances a micro-batch."""
    answered: int


class AnswersAtOnce:
    """An engine that costs nothing: the outputs that the real one has for a first utterance, for every one."""

    def __init__(self, real: Backend) -> None:
        self.name, self.precision = "none", "none"
        real.warm_up()
        self._first = real.infer([[101, 102]])
        real.close()

    def infer(self, utterances: Sequence[Sequence[int]]) -> ModelOutputs:
        """See Backend."""
        first, n = self._first, len(utterances)
        parts = (first.logits, first.age_logits, first.embeddings)
        return ModelOutputs(*(np.repeat(part, n, axis=0) for part in parts))

    def warm_up(self) -> None:
        """See Backend."""

    def close(self) -> None:
        """See Backend."""


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-repo", type=Path, required=True)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder), args.model_repo) as server:
        runs = [_served(server, args.rate, args.seconds) for _ in range(args.repeats)]
    for run in runs:
        print(f"{run.answered} answered, {run.group:.1f} in a micro-batch: {run.cpu_ms:.3f} ms CPU each without engine")
    idle = statistics.median(run.idle_cores for run in runs)
    print(f"host: least {min(run.cpu_ms for run in runs):.3f} ms, idle {idle:.4f} cores")
    for group in GROUPS:
        engine, least = _engine_ms(args.model_repo, group, args.repeats)
        print(f"engine: {engine}, {group} together: least {least:.3f} ms an utterance")
    print(f"load of the machine: {os.getloadavg()[0] / (os.cpu_count() or 1):.1f} a core, this one included")


def serve_without_engine() -> int:
    """The service, with AnswersAtOnce where it would open its engine; settings come from the environment."""
    from service import app
    from service.__main__ import main as serve

    # Only here: the service itself has no engine that computes nothing, nor a setting for one.
    setattr(app, "open_backend", lambda *given: AnswersAtOnce(open_backend(*given)))  # noqa: B010
    return serve()


def _service(folder: Path, model_repo: Path) -> AbstractContextManager[Server]:
    port = free_port()
    settings = {
        "ROUTER_MODEL_REPO": str(model_repo.resolve()),
        "ROUTER_PORT": str(port),
        "ROUTER_EVENT_LOG_PATH": str(folder / "events.sqlite"),
        **UNREFUSED,
    }
    return server_running("service", [sys.executable, "-m", "deploy.host_cost", SERVE], settings, port, folder)


def _served(server: Server, rate: int, seconds: int) -> Served:
    """One run; ends the process when too many requests were refused to say anything."""
    pid = server.process.pid
    idle_before = _cpu_seconds(pid)
    time.sleep(IDLE_S)
    idle_cores = (_cpu_seconds(pid) - idle_before) / IDLE_S
    before, cpu_before, began = read_metrics(server.url), _cpu_seconds(pid), time.monotonic()
    command = [sys.executable, "-m", "loadtest.openload", "--url", server.url]
    options = ["--rate", str(rate), "--duration", str(seconds)]
    run = subprocess.run([*command, *options], check=True, capture_output=True, text=True)  # noqa: S603 - our own
    took_s, cpu_s, after = time.monotonic() - began, _cpu_seconds(pid) - cpu_before, read_metrics(server.url)
    sent = json.loads(run.stdout)
    answered = int(sent["latency"]["answered"])
    if sent["errors"] > MOST_ERRORS * sent["sent"]:
        raise SystemExit(f"{sent['error_kinds']} of {sent['sent']} requests at {rate} a second: name a lower --rate")

    def grown(name: str) -> float:
        return total(after, name) - total(before, name)

    group = grown("router_batch_utterances_sum") / grown("router_batch_utterances_count")
    return Served((cpu_s - idle_cores * took_s) / answered * 1e3, idle_cores, group, answered)


def _engine_ms(model_repo: Path, group: int, repeats: int, utterances: int = 200) -> tuple[str, float]:
    """Name and precision of the engine, and its CPU milliseconds an utterance."""
    store = Store(model_repo)
    version = store.load(store.deployment().champion.version)
    tokenizer = UtteranceTokenizer(version.file(TOKENIZER_FILE), version.manifest.max_tokens)
    ids = [tokenizer.encode(text) for text in authored_texts()[:utterances]]
    backend = open_backend(version.folder)
    backend.warm_up()
    least = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        for start in range(0, len(ids), group):
            backend.infer(ids[start : start + group])
        least = min(least, (time.process_time() - began) / len(ids) * 1e3)
    return f"{backend.name} {backend.precision}", least


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    if sys.argv[1:] == [SERVE]:
        raise SystemExit(serve_without_engine())
    main()
