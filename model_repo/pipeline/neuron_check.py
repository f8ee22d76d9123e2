"""
Everything that only an inf2 host can show, into one JSON file to send back:

    make neuron-check ARGS="--checkpoint DIR --repository DIR --texts FILE --out neuron-check.json"

probe -> compile -> serve (loads, warms up, checks golden rows and masks) -> decisions over HTTP against the CPU ->
load test. It stops at the first step that fails, writes what it has, and exits with 1.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from model_repo.contract.decision import Decisions
from model_repo.contract.labels import Taxonomy
from model_repo.contract.neuron import PROGRAMS_FILE, PROGRAMS_FOLDER
from model_repo.store import Store

LABEL = "measured on an inf2 host"
PORT = 18080
MIN_DECISIONS_EQUAL = 0.995
RATES = (200, 500, 1000, 2000, 4000)

Step = tuple[str, Callable[[], Mapping[str, Any]]]


def run_steps(steps: Sequence[Step], clock: Callable[[], float] = time.monotonic) -> dict[str, Any]:
    """What each step gave and how long it took; the first that raises is the last."""
    report: dict[str, Any] = {"label": LABEL, "is_passed": False, "steps": []}
    for name, step in steps:
        began = clock()
        record: dict[str, Any] = {"step": name}
        report["steps"].append(record)
        try:
            record |= {"is_passed": True, **step()}
        except Exception as error:
            # Whatever went wrong is what the report is for.
            record |= {"is_passed": False, "error": f"{type(error).__name__}: {error}"}
        record["seconds"] = round(clock() - began, 3)
        if not record["is_passed"]:
            return report
    report["is_passed"] = True
    return report


def compare_answers(answers: Sequence[Mapping[str, Any]], wanted: Decisions, taxonomy: Taxonomy) -> dict[str, Any]:
    """Answers of ``POST /route`` beside the decisions of the CPU on the same texts, in the same order."""
    equal, furthest = 0, 0.0
    for row, answer in enumerate(answers):
        intents = [taxonomy.intents[k] for k in wanted.accepted(row)]
        given = [entry["intent"] for entry in answer["intents"]]
        equal += given == intents and answer["ood"]["is_ood"] == bool(wanted.is_ood[row])
        probabilities = np.array([answer["probabilities"][intent] for intent in taxonomy.intents])
        furthest = max(furthest, float(np.abs(probabilities - wanted.probabilities[row]).max()))
    share = equal / len(answers)
    return {
        "n": len(answers),
        "decisions_equal": share,
        "max_probability_difference": furthest,
        "is_passed": share >= MIN_DECISIONS_EQUAL,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module; 0 when every step passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder `checkpoint` of the training run")
    parser.add_argument("--repository", type=Path, required=True, help="model repository; its champion is checked")
    parser.add_argument("--texts", type=Path, required=True, help="JSON lines of at least 1,000 held-out messages")
    parser.add_argument("--out", type=Path, default=Path("neuron-check.json"))
    args = parser.parse_args(arguments)
    environment = {**os.environ, "ROUTER_ENGINE": "neuron", "ROUTER_MODEL_REPO": str(args.repository)}
    environment |= {"ROUTER_PORT": str(PORT), "ROUTER_WORKERS": "1", "ROUTER_INFERENCE_THREADS": "2"}
    version = Store(args.repository).deployment().champion.version
    folder = args.repository / version
    steps: list[Step] = [
        ("probe", _probe),
        ("compile", lambda: _compile(args.checkpoint, folder, args.texts)),
        ("serve", lambda: _serve(environment, args.repository, args.texts)),
    ]
    report = run_steps(steps)
    args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({step["step"]: step["is_passed"] for step in report["steps"]}), args.out)
    return 0 if report["is_passed"] else 1


def _probe() -> Mapping[str, Any]:
    from model_repo.pipeline.compile_neuron import import_stack

    listing = shutil.which("neuron-ls")
    return {
        "torch-neuronx": import_stack().release,
        "neuron-ls": _run([listing, "--json-output"]).stdout if listing else "not installed",
    }


def _compile(checkpoint: Path, version: Path, texts: Path) -> Mapping[str, Any]:
    manifest = version / PROGRAMS_FOLDER / PROGRAMS_FILE
    if not manifest.exists():
        options = ["--checkpoint", str(checkpoint), "--version", str(version), "--texts", str(texts)]
        run = _run([sys.executable, "-m", "model_repo", "compile-neuron", *options])
        if run.returncode != 0:
            raise RuntimeError(run.stderr[-4000:])
    return {"manifest": json.loads(manifest.read_text(encoding="utf-8"))}


def _serve(environment: Mapping[str, str], repository: Path, texts: Path) -> Mapping[str, Any]:
    with _service(environment) as (url, ready_s):
        compared = _decisions(url, repository, texts)
        load = {str(rate): _load(url, rate) for rate in RATES} if compared["is_passed"] else {}
        stages = [line for line in _get(f"{url}/metrics").splitlines() if line.startswith("router_stage_seconds_sum")]
    return {"ready_after_s": ready_s, "gate": compared, "load": load, "stages": stages} | {
        "is_passed": compared["is_passed"]
    }


@contextmanager
def _service(environment: Mapping[str, str], patience_s: float = 300.0) -> Iterator[tuple[str, float]]:
    url, began = f"http://127.0.0.1:{PORT}", time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "service"], env=dict(environment), stderr=subprocess.PIPE)
    try:
        while not _is_ready(url):
            if process.poll() is not None:
                _, errors = process.communicate()
                raise RuntimeError(f"the service ended with {process.returncode}: {errors.decode()[-4000:]}")
            if time.monotonic() - began > patience_s:
                raise TimeoutError(f"the service was not ready within {patience_s} s")
            time.sleep(1.0)
        yield url, round(time.monotonic() - began, 1)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _decisions(url: str, repository: Path, texts: Path) -> dict[str, Any]:
    """The served answers beside the CPU's own decisions, one message at a time."""
    from tokenizers import Tokenizer

    from model_repo.contract.decision import decide
    from model_repo.contract.engine import TOKENIZER_FILE
    from model_repo.pipeline.export import read_artefact_spec, run_artefact
    from model_repo.pipeline.neuron_buckets import authored_texts

    store = Store(repository)
    champion = store.deployment().champion
    version, policy = store.load(champion.version), store.policy(champion.version, champion.policy_revision)
    messages = [text.strip() for text in authored_texts(texts)]
    tokenizer = Tokenizer.from_file(str(version.file(TOKENIZER_FILE)))
    ids = [encoding.ids for encoding in tokenizer.encode_batch(messages)]
    wanted = decide(run_artefact(version.folder, read_artefact_spec(version.folder), ids), policy)
    return compare_answers([_route(url, text) for text in messages], wanted, version.manifest.taxonomy)


def _load(url: str, rate: int) -> str:
    options = ["--url", url, "--rate", str(rate), "--duration", "10"]
    return _run([sys.executable, "-m", "loadtest.openload", *options]).stdout.strip()


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (our own commands)


def _route(url: str, text: str) -> dict[str, Any]:
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(f"{url}/route", body, {"content-type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return dict(json.loads(answer.read()))


def _is_ready(url: str) -> bool:
    try:
        _get(f"{url}/health/ready")
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        return str(answer.read().decode())


if __name__ == "__main__":
    raise SystemExit(main())
