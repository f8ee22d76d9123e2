"""The check on an inf2 host stops at what fails, and on a machine without Neuron it says so."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model_repo.contract.decision import decide
from model_repo.contract.outputs import ModelOutputs
from model_repo.pipeline.neuron_check import compare_answers, main, run_steps
from tests.service.real_version import make_real_repository
from tests.tiny_artefact import POLICY, TAXONOMY, tiny_artefact


def works() -> Mapping[str, Any]:
    """A step with a figure."""
    return {"figure": 3}


def breaks() -> Mapping[str, Any]:
    """A step that raises."""
    raise RuntimeError("NEFF not loadable")


def test_every_step_passed() -> None:
    """With its figures and its time."""
    report = run_steps([("a", works), ("b", works)], iter(range(9)).__next__)
    assert report["is_passed"]
    assert report["steps"][1] == {"step": "b", "is_passed": True, "figure": 3, "seconds": 1}


def test_first_failure_is_the_last_step() -> None:
    """With the error; a step may also fail by its own verdict."""
    report = run_steps([("a", works), ("b", breaks), ("c", works)], iter(range(9)).__next__)
    assert [step["step"] for step in report["steps"]] == ["a", "b"]
    assert report["steps"][1]["error"] == "RuntimeError: NEFF not loadable"
    assert not report["is_passed"]
    assert not run_steps([("a", lambda: {"is_passed": False})])["is_passed"]


def test_machine_without_neuron_is_told_so(tmp_path: Path) -> None:
    """The real probe, exit status 1, and a report that names the reason."""
    make_real_repository(tmp_path / "repo")
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "where is my order"}\n', encoding="utf-8")
    out = tmp_path / "report.json"
    options = ["--checkpoint", str(tiny_artefact()[0]), "--repository", str(tmp_path / "repo")]
    assert main([*options, "--texts", str(texts), "--out", str(out)]) == 1
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["steps"][0]["error"].startswith("NeuronRefused: neuron: not_installed")


def answer(intents: list[str], probabilities: list[float], is_ood: bool = False) -> dict[str, Any]:
    """As ``POST /route`` gives it, in part."""
    return {
        "intents": [{"intent": intent} for intent in intents],
        "probabilities": dict(zip(TAXONOMY.intents, probabilities, strict=True)),
        "ood": {"is_ood": is_ood},
    }


def test_served_answers_are_held_against_the_cpu() -> None:
    """Another intent or another ood verdict is another decision; probabilities are compared one by one."""
    logits = np.array([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    wanted = decide(ModelOutputs(logits, np.full(2, -9.0), np.zeros((2, 1))), POLICY)
    first, second = TAXONOMY.intents[:2]
    rows = wanted.probabilities.tolist()
    same = compare_answers([answer([first], rows[0]), answer([second], rows[1])], wanted, TAXONOMY)
    assert (same["decisions_equal"], same["is_passed"]) == (1.0, True)
    other = compare_answers([answer([first], rows[0]), answer([first], rows[0])], wanted, TAXONOMY)
    assert (other["decisions_equal"], other["is_passed"]) == (0.5, False)
    assert other["max_probability_difference"] > 0.9
    unfamiliar = compare_answers([answer([], rows[0], True), answer([second], rows[1])], wanted, TAXONOMY)
    assert unfamiliar["decisions_equal"] == 0.5
