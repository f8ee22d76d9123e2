"""The probe tells apart what is installed; a manifest that cannot be loaded is refused with the field."""

import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_repo.contract.errors import BadManifest
from model_repo.contract.neuron import (
    NeuronRefused,
    ProgramFile,
    ProgramManifest,
    Refusal,
    choose_size,
    probe,
)

MANIFEST = ProgramManifest(
    programs=(ProgramFile(16, "t16.pt", "a" * 64), ProgramFile(64, "t64.pt", "b" * 64)),
    slots=8,
    max_tokens=48,
    vocabulary=100,
    sources={"model.onnx": "c" * 64},
    golden_sha256="d" * 64,
    releases={"torch-neuronx": "2.9.0.2.1.1"},
    compiler_args="--target inf2",
    precision="bf16",
)


def module(**attributes: Any) -> types.SimpleNamespace:
    """An importable thing."""
    return types.SimpleNamespace(**attributes)


def reason_of(error: Exception | None, trace: object, release: str) -> Refusal:
    """What the probe says of such an installation."""

    def import_module(name: str) -> Any:
        if error is not None:
            raise error
        return module(trace=trace)

    with pytest.raises(NeuronRefused) as refused:
        probe(import_module, lambda name: release)
    return refused.value.reason


@pytest.mark.parametrize(
    ("error", "trace", "release", "reason"),
    [
        (ModuleNotFoundError("No module named 'torch_neuronx'"), None, "", Refusal.NOT_INSTALLED),
        (OSError("libnrt.so.1: cannot open shared object file"), None, "", Refusal.NOT_INSTALLED),
        (ImportError("WRONG PACKAGE. Use the Neuron repository"), None, "1.0", Refusal.PLACEHOLDER),
        (None, None, "1.0", Refusal.PLACEHOLDER),
        (None, print, "2.13.3.0", Refusal.WRONG_RELEASE),
        (None, print, "2.8.0.2.10.16998", Refusal.WRONG_RELEASE),
    ],
)
def test_probe_gives_the_reason(error: Exception | None, trace: object, release: str, reason: Refusal) -> None:
    """Absent, unusable, placeholder by its own words or by what it lacks, native backend, older line."""
    assert reason_of(error, trace, release) is reason


def test_probe_accepts_the_release_line() -> None:
    """And gives the modules."""
    stack = probe(lambda name: module(name=name, trace=print), lambda name: "2.9.0.2.15.32035")
    assert (stack.torch.name, stack.torch_neuronx.name, stack.release) == ("torch", "torch_neuronx", "2.9.0.2.15.32035")


def test_manifest_round_trip() -> None:
    """And each program's edge is spelled out."""
    data = MANIFEST.to_json()
    assert ProgramManifest.from_json(data) == MANIFEST
    assert data["programs"][0]["inputs"]["segments"] == {"dtype": "int32", "shape": [16]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema must be 1"),
        ({"target": "trn1"}, "target inf2"),
        ({"programs": []}, "ascending sizes"),
        ({"max_tokens": 65}, "programs end at 64 tokens, an utterance may have 65"),
        ({"slots": 0}, "slots must be >= 1"),
        ({"releases": None}, "wrong type"),
        ({"programs": [{"size": 16}]}, "lacks the field 'file'"),
    ],
)
def test_bad_manifest_is_refused(change: dict[str, Any], message: str) -> None:
    """Naming the field and the limit."""
    with pytest.raises(BadManifest, match=message):
        ProgramManifest.from_json(MANIFEST.to_json() | change)


@given(
    seconds=st.dictionaries(st.integers(1, 300), st.floats(0.0, 1.0), min_size=1, max_size=8),
    tokens=st.integers(1, 300),
)
def test_chosen_program_holds_the_row_and_none_that_does_is_faster(seconds: dict[int, float], tokens: int) -> None:
    """For any measured times; a row beyond every program is an error."""
    if tokens > max(seconds):
        with pytest.raises(ValueError, match="exceeds every program"):
            choose_size(tokens, seconds)
        return
    size = choose_size(tokens, seconds)
    assert size >= tokens
    assert all(seconds[size] <= seconds[other] for other in seconds if other >= tokens)
