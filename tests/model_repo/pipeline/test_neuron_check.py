"""
The check on an inf2 host: from nothing compiled to one JSON file with the strict stand-in, and where it stops.

With the stand-in it shows that the steps fit together, and nothing of a device: the report says so itself.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_repo.contract.decision import decide
from model_repo.contract.labels import LabelledUtterance
from model_repo.contract.outputs import ModelOutputs
from model_repo.pipeline.compile_neuron import SIZES
from model_repo.pipeline.neuron_check import HostCheck, main, read_texts, run_steps
from model_repo.pipeline.neuron_gate import gate_decisions
from model_repo.pipeline.neuron_service import NeuronService, decisions_of, highest_rate_in_budget
from tests.neuron_stub.installed import ROOT, environment_with_neuron
from tests.neuron_stub.torch_neuronx import RELEASE
from tests.service.real_version import make_real_repository
from tests.tiny_artefact import POLICY, TAXONOMY, tiny_artefact

WORDS = ("where", "order", "fox", "money", "back", "hello", "volume", "twelve", "stock", "please")


def works() -> Mapping[str, Any]:
    """A step with a figure."""
    return {"figure": 3}


def breaks() -> Mapping[str, Any]:
    """A step that raises."""
    raise RuntimeError("NEFF not loadable")


def test_every_step_passed() -> None:
    """With its figures and its time."""
    report = run_steps([("a", works), ("b", works)], "a test", iter(range(9)).__next__)
    assert (report["is_passed"], report["label"]) == (True, "a test")
    assert report["steps"][1] == {"step": "b", "is_passed": True, "figure": 3, "seconds": 1}


def test_first_failure_is_the_last_step() -> None:
    """With the error; a step may also fail by its own verdict."""
    report = run_steps([("a", works), ("b", breaks), ("c", works)], "a test", iter(range(9)).__next__)
    assert [step["step"] for step in report["steps"]] == ["a", "b"]
    assert report["steps"][1]["error"] == "RuntimeError: NEFF not loadable"
    assert not report["is_passed"]
    assert not run_steps([("a", lambda: {"is_passed": False})], "a test")["is_passed"]


def messages(file: Path, count: int) -> Path:
    """Labelled messages of the tiny tokenizer's words, of many lengths, all different; every fourth is ood."""
    rng = np.random.default_rng(11)
    lines = []
    for number in range(count):
        text = " ".join([*rng.choice(WORDS, size=1 + number % 9), WORDS[number % 10], WORDS[number // 10 % 10]])
        intents = () if number % 4 == 0 else (TAXONOMY.intents[number % 3],)
        lines.append(json.dumps(LabelledUtterance(text, intents, is_ood=number % 4 == 0).to_json()))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def run_check(folder: Path, environment: Mapping[str, str], *options: str) -> tuple[int, dict[str, Any]]:
    """Exit status and report of the command, run as a person runs it."""
    out = folder / "report.json"
    given = ["--checkpoint", str(tiny_artefact()[0]), "--repository", str(folder / "repo"), "--out", str(out)]
    command = [sys.executable, "-m", "model_repo.pipeline.neuron_check", *given, *options]
    run = subprocess.run(command, cwd=ROOT, env=dict(environment), capture_output=True, text=True, check=False)
    assert out.exists(), run.stderr
    report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return run.returncode, report


@pytest.mark.slow
def test_whole_check_with_the_stand_in(tmp_path: Path) -> None:
    """Probe, compile, load with golden rows and masks, gate over HTTP, load test; and no claim of a device."""
    make_real_repository(tmp_path / "repo")
    texts = messages(tmp_path / "texts.jsonl", 60)
    options = ["--texts", str(texts), "--fewest", "50", "--rates", "20", "40", "--seconds", "1"]
    environment = environment_with_neuron(tmp_path / "site")
    status, report = run_check(tmp_path, environment, *options)
    assert (status, report["is_passed"]) == (0, True), report
    assert report["label"].startswith("not measured on an inf2 host")
    steps = {step["step"]: step for step in report["steps"]}
    assert list(steps) == ["probe", "compile", "load", "gate", "load_test"]
    assert steps["probe"]["torch-neuronx"] == RELEASE
    manifest = steps["compile"]["manifest"]
    assert (steps["compile"]["was_compiled_before"], manifest["releases"]["neuronx-cc"]) == (False, "2.26.6360.0")
    assert [program["size"] for program in manifest["programs"]] == list(SIZES)
    assert steps["load"]["golden_utterances"] > 10
    assert steps["load"]["model"]["backend"] == "neuron"
    assert (steps["gate"]["n"], steps["gate"]["failures"]) == (60, [])
    assert steps["gate"]["decisions_equal"] == 1.0
    assert 0.0 < steps["gate"]["max_probability_difference"] < 0.02
    assert steps["gate"]["ood_auroc_difference"] is not None
    assert [int(float(rate)) for rate in steps["load_test"]["rates"]] == [20, 40]
    assert steps["load_test"]["rates"]["20.0"]["sent"] == 20


def test_labels_are_read_where_every_message_has_one(tmp_path: Path) -> None:
    """Without, the gate judges decisions alone."""
    texts, truth = read_texts(messages(tmp_path / "texts.jsonl", 8), TAXONOMY)
    assert len(texts) == 8
    assert truth is not None
    assert truth.any(axis=1).tolist() == [number % 4 != 0 for number in range(8)]
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"text": " where is my order "}\n', encoding="utf-8")
    assert read_texts(bare, TAXONOMY) == (["where is my order"], None)


def test_too_few_messages_are_no_gate(tmp_path: Path) -> None:
    """A share of a handful says nothing: refused before the first is sent."""
    make_real_repository(tmp_path / "repo")
    texts = messages(tmp_path / "texts.jsonl", 8)
    nobody = NeuronService("http://127.0.0.1:9", 0.0)
    with ExitStack() as stack:
        check = HostCheck(tmp_path, tmp_path / "repo", texts, 1000, (), 1.0, "a test", stack, [nobody])
        with pytest.raises(ValueError, match="8 messages, at least 1000"):
            check.gate()


def test_machine_without_neuron_is_told_so(tmp_path: Path) -> None:
    """The real probe, exit status 1, and a report that names the reason and claims no inf2."""
    make_real_repository(tmp_path / "repo")
    out = tmp_path / "report.json"
    options = ["--checkpoint", str(tiny_artefact()[0]), "--repository", str(tmp_path / "repo")]
    assert main([*options, "--texts", str(messages(tmp_path / "texts.jsonl", 4)), "--out", str(out)]) == 1
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["label"].startswith("not measured on an inf2 host")
    assert report["steps"][0]["error"].startswith("NeuronRefused: neuron: not_installed")


def answer(row: int, wanted: Any, **changed: Any) -> dict[str, Any]:
    """As ``POST /route`` gives a decision, in part."""
    return {
        "intents": [{"intent": TAXONOMY.intents[k]} for k in wanted.accepted(row)],
        "top": {"intent": TAXONOMY.intents[int(wanted.top[row])]},
        "probabilities": dict(zip(TAXONOMY.intents, wanted.probabilities[row].tolist(), strict=True)),
        "ood": {"is_ood": bool(wanted.is_ood[row]), "energy": float(wanted.energies[row])},
        "age_sensitive": bool(wanted.is_age_sensitive[row]),
        **changed,
    }


def test_served_answers_are_held_against_the_cpu() -> None:
    """The same decisions pass; another intent, ood verdict or age verdict is another decision."""
    logits = np.array([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    wanted = decide(ModelOutputs(logits, np.full(2, -9.0), np.zeros((2, 1))), POLICY)

    def gated(first: Mapping[str, Any]) -> Any:
        served = decisions_of([first, answer(1, wanted)], TAXONOMY)
        return gate_decisions(wanted, served, POLICY, None, "a test")

    assert gated(answer(0, wanted)).is_passed
    assert gated(answer(0, wanted)).min_cosine is None
    others: tuple[dict[str, Any], ...] = (
        {"intents": [{"intent": TAXONOMY.intents[2]}]},
        {"intents": [], "ood": {"is_ood": True, "energy": 9.0}},
        {"age_sensitive": True},
    )
    for changed in others:
        report = gated(answer(0, wanted, **changed))
        assert (report.decisions_equal, report.is_passed) == (0.5, False)


def test_rates_after_the_first_that_is_too_high_do_not_count() -> None:
    """By latency, by errors, by collapse; none at all is None."""
    good = {"errors": 0, "sent": 5000, "has_collapsed": False, "latency": {"p95": 14.9}}
    for bad in ({"errors": 6}, {"has_collapsed": True}, {"latency": {"p95": 15.1}}, {"latency": {"p95": float("nan")}}):
        assert highest_rate_in_budget({100.0: good, 200.0: {**good, **bad}, 400.0: good}) == 100.0
    assert highest_rate_in_budget({100.0: {**good, "errors": 6}}) is None
