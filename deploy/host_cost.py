"""
CPU time of one request, with and without the engine: ``python -m deploy.host_cost --model-repo DIR``.

Starts the service, sends a constant rate to it, and divides the CPU time that its process used by the requests that it
answered. The engine's share is measured in this process, on the same messages in groups as large as the service's
micro-batches were. CPU time, not wall time: a busy machine sways it little. These are inputs of deploy/cost.py.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from loadtest.server_process import service_running
from model_repo.contract.engine import TOKENIZER_FILE
from model_repo.pipeline.neuron_buckets import authored_texts
from model_repo.store import Store
from service.backends.choice import open_backend
from service.tokenizer import UtteranceTokenizer


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-repo", type=Path, required=True)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=10)
    args = parser.parse_args(arguments)
    whole_ms, group, answered = _service_ms(args.model_repo, args.rate, args.seconds)
    engine, engine_ms = _engine_ms(args.model_repo, max(1, round(group)))
    print(
        f"{answered:.0f} requests, {group:.1f} in a micro-batch: {whole_ms:.3f} ms CPU each, "
        f"{engine} {engine_ms:.3f}, host {whole_ms - engine_ms:.3f}"
    )


def value(page: str, name: str, label: str = "") -> float:
    """
    The sum of a metric's samples, of those that carry a label value where one is given.

    >>> page = 'a_count{endpoint="/route"} 2.0\\na_count{endpoint="/feedback"} 1.0\\nb 4.0\\n'
    >>> value(page, "a_count", "/route"), value(page, "b")
    (2.0, 4.0)
    """
    lines = re.findall(rf"^{name}(\{{[^}}]*\}})? (\S+)$", page, flags=re.MULTILINE)
    return sum(float(number) for labels, number in lines if not label or f'"{label}"' in labels)


def _service_ms(model_repo: Path, rate: int, seconds: int) -> tuple[float, float, float]:
    """CPU milliseconds a request, utterances a micro-batch, requests answered."""
    environment = {"ROUTER_MODEL_REPO": str(model_repo.resolve())}
    with tempfile.TemporaryDirectory() as folder, service_running(Path(folder) / "log", environment) as server:
        before, cpu_before = _page(server.url), _cpu_seconds(server.process.pid)
        command = [sys.executable, "-m", "loadtest.openload", "--url", server.url]
        options = ["--rate", str(rate), "--duration", str(seconds)]
        subprocess.run([*command, *options], check=True)  # noqa: S603  (our own command, no shell)
        after, cpu_after = _page(server.url), _cpu_seconds(server.process.pid)

    def grown(name: str, label: str = "") -> float:
        return value(after, name, label) - value(before, name, label)

    answered = grown("router_request_seconds_count", "/route")
    group = grown("router_batch_utterances_sum") / grown("router_batch_utterances_count")
    return (cpu_after - cpu_before) / answered * 1e3, group, answered


def _engine_ms(model_repo: Path, group: int, utterances: int = 400) -> tuple[str, float]:
    """Name of the engine, and its CPU milliseconds an utterance."""
    store = Store(model_repo)
    version = store.load(store.deployment().champion.version)
    tokenizer = UtteranceTokenizer(version.file(TOKENIZER_FILE), version.manifest.max_tokens)
    ids = [tokenizer.encode(text) for text in authored_texts()[: utterances // group * group]]
    backend = open_backend(version.folder)
    backend.warm_up()
    began = time.process_time()
    for start in range(0, len(ids), group):
        backend.infer(ids[start : start + group])
    return backend.name, (time.process_time() - began) / len(ids) * 1e3


def _page(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310  (our own process)
        return str(answer.read().decode())


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
