"""
Everything that only an inf2 host can show, into one JSON file to send back:

    make neuron-check ARGS="--checkpoint DIR --repository DIR --texts FILE --out neuron-check.json"

probe -> compile -> load (programs on the cores, golden rows, masks) -> gate (decisions over HTTP against the CPU) ->
load_test. It stops at the first step that fails, writes what it has, and exits with 1. The report names the machine,
and says of any other than an inf2 that nothing was measured on one.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from model_repo.contract.decision import Decisions, decide
from model_repo.contract.engine import TOKENIZER_FILE
from model_repo.contract.errors import BadUtterance
from model_repo.contract.labels import LabelledUtterance, Taxonomy
from model_repo.contract.neuron import GOLDEN_FILE, PROGRAMS_FILE, PROGRAMS_FOLDER
from model_repo.contract.outputs import BoolArray
from model_repo.contract.policy import Policy
from model_repo.pipeline.neuron_service import (
    NeuronService,
    decisions_of,
    highest_rate_in_budget,
    neuron_service,
)
from model_repo.store import LoadedVersion, Store

RATES = (200.0, 500.0, 1000.0, 2000.0, 4000.0)
PRODUCT_FILE = Path("/sys/devices/virtual/dmi/id/product_name")
"""On EC2 the name of the instance type."""
DRIVER_FILE = Path("/sys/module/neuron/version")

Step = tuple[str, Callable[[], Mapping[str, Any]]]


def run_steps(steps: Sequence[Step], label: str, clock: Callable[[], float] = time.monotonic) -> dict[str, Any]:
    """What each step gave and how long it took; the first that raises is the last."""
    report: dict[str, Any] = {"label": label, "is_passed": False, "steps": []}
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


def label_of(product: str) -> str:
    """
    What the figures are, by the name of the machine.

    >>> label_of("inf2.xlarge"), label_of("KVM")
    ('measured on inf2.xlarge', 'not measured on an inf2 host: KVM')
    """
    return f"measured on {product}" if product.startswith("inf2.") else f"not measured on an inf2 host: {product}"


@dataclass(frozen=True)
class HostCheck:
    """The steps, in the order in which they run; the service that ``load`` starts is stopped with ``stack``."""

    checkpoint: Path
    repository: Path
    texts: Path
    fewest: int
    """Messages without which a share of equal decisions says little."""
    rates: Sequence[float]
    seconds: float
    """Of the load at each rate."""
    label: str
    stack: ExitStack
    running: list[NeuronService]
    """Filled by ``load``."""

    def probe(self) -> Mapping[str, Any]:
        """What is installed, and on what machine."""
        from model_repo.pipeline.compile_neuron import import_stack

        listing = shutil.which("neuron-ls")
        return {
            "torch-neuronx": import_stack().release,
            "driver": _first_line(DRIVER_FILE),
            "neuron-ls": _run([listing, "--json-output"]).stdout if listing else "not installed",
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
        }

    def compile(self) -> Mapping[str, Any]:
        """The champion's programs, unless they are there."""
        folder = self._version().folder / PROGRAMS_FOLDER
        was_there = (folder / PROGRAMS_FILE).exists()
        if not was_there:
            options = [
                "--checkpoint",
                str(self.checkpoint),
                "--version",
                str(folder.parent),
                "--texts",
                str(self.texts),
            ]
            run = _run([sys.executable, "-m", "model_repo", "compile-neuron", *options])
            if run.returncode != 0:
                raise RuntimeError(run.stderr[-4000:])
        manifest = json.loads((folder / PROGRAMS_FILE).read_text(encoding="utf-8"))
        return {"was_compiled_before": was_there, "manifest": manifest}

    def load(self) -> Mapping[str, Any]:
        """Ready means that every program on every core gave the golden rows and showed a living mask."""
        service = self.stack.enter_context(neuron_service(self.repository, inference_threads=2, patience_s=300.0))
        self.running.append(service)
        model = service.get("/model")
        if model["backend"] != "neuron":
            raise RuntimeError(f"the service answers with {model['backend']}")
        with np.load(self._version().folder / PROGRAMS_FOLDER / GOLDEN_FILE, allow_pickle=False) as golden:
            return {"ready_after_s": service.ready_after_s, "golden_utterances": len(golden["lengths"]), "model": model}

    def gate(self) -> Mapping[str, Any]:
        """The served decisions beside the CPU's own, one message at a time."""
        from model_repo.pipeline.neuron_gate import gate_decisions

        (service,) = self.running
        version, policy = self._version(), self._policy()
        texts, truth = read_texts(self.texts, version.manifest.taxonomy)
        if len(texts) < self.fewest:
            raise ValueError(f"{self.texts} holds {len(texts)} messages, at least {self.fewest} are needed")
        before = _cpu_decisions(version, policy, texts)
        after = decisions_of([service.route(text) for text in texts], version.manifest.taxonomy)
        report = gate_decisions(before, after, policy, truth, self.label)
        return {**asdict(report), "is_passed": report.is_passed}

    def load_test(self) -> Mapping[str, Any]:
        """Ascending rates, up to the first that the service cannot keep up with."""
        (service,) = self.running
        reports: dict[float, dict[str, Any]] = {}
        for rate in sorted(self.rates):
            reports[rate] = service.load(rate, self.seconds)
            if reports[rate]["has_collapsed"]:
                break
        answered = sum(int(report["latency"]["answered"]) for report in reports.values())
        return {
            "is_passed": answered > 0,
            "highest_rate_in_budget": highest_rate_in_budget(reports),
            "rates": {str(rate): report for rate, report in reports.items()},
        }

    def steps(self) -> list[Step]:
        """By name."""
        ordered = (self.probe, self.compile, self.load, self.gate, self.load_test)
        return [(step.__name__, step) for step in ordered]

    def _version(self) -> LoadedVersion:
        store = Store(self.repository)
        return store.load(store.deployment().champion.version)

    def _policy(self) -> Policy:
        store = Store(self.repository)
        champion = store.deployment().champion
        return store.policy(champion.version, champion.policy_revision)


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module; 0 when every step passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder `checkpoint` of the training run")
    parser.add_argument("--repository", type=Path, required=True, help="model repository; its champion is checked")
    parser.add_argument("--texts", type=Path, required=True, help="JSON lines of held-out messages, best with labels")
    parser.add_argument("--fewest", type=int, default=1000, help="messages without which the gate refuses to judge")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of load at each rate")
    parser.add_argument("--out", type=Path, default=Path("neuron-check.json"))
    args = parser.parse_args(arguments)
    label = label_of(_first_line(PRODUCT_FILE))
    with ExitStack() as stack:
        check = HostCheck(
            args.checkpoint, args.repository, args.texts, args.fewest, args.rates, args.seconds, label, stack, []
        )
        report = run_steps(check.steps(), label)
    args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({step["step"]: step["is_passed"] for step in report["steps"]}), args.out)
    return 0 if report["is_passed"] else 1


def read_texts(file: Path, taxonomy: Taxonomy) -> tuple[list[str], BoolArray | None]:
    """The messages, and the intents (n, K) that they carry where every one has a label; otherwise None."""
    from model_repo.pipeline.truth import truth_of

    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    texts = [str(record["text"]).strip() for record in records]
    try:
        return texts, truth_of([LabelledUtterance.from_json(record) for record in records], taxonomy).targets
    except BadUtterance:
        return texts, None


def _cpu_decisions(version: LoadedVersion, policy: Policy, texts: Sequence[str]) -> Decisions:
    from model_repo.pipeline.export import read_artefact_spec, run_artefact

    tokenizer = Tokenizer.from_file(str(version.file(TOKENIZER_FILE)))
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    return decide(run_artefact(version.folder, read_artefact_spec(version.folder), ids), policy)


def _first_line(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own commands


if __name__ == "__main__":
    raise SystemExit(main())
