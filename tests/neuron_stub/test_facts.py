"""The stand-in is held against what optimum-neuron 0.4.5 passes to the real torch_neuronx and its compiler."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model_repo.pipeline.compile_neuron import CompileSettings
from tests.neuron_stub import torch_neuronx
from tests.neuron_stub.facts import FACTS_FILE, read_facts

FACTS: dict[str, Any] = json.loads(FACTS_FILE.read_text(encoding="utf-8"))


def test_trace_takes_the_keywords_that_optimum_neuron_passes() -> None:
    """Exactly these bind to the stand-in's signature; another does not."""
    signature = inspect.signature(torch_neuronx.trace)
    given = dict.fromkeys(FACTS["trace_keywords"])
    assert FACTS["trace_positional"] == 2
    assert set(signature.bind(None, None, **given).kwargs) == set(given)
    with pytest.raises(TypeError):
        signature.bind(None, None, device="neuron")


def test_our_call_uses_known_keywords_only() -> None:
    """Every keyword that the compile stage passes is among those that optimum-neuron passes."""
    ours = {"compiler_workdir", "compiler_args", "cpu_backend"}
    assert ours <= set(FACTS["trace_keywords"])


@pytest.mark.parametrize("auto_cast", ["none", "matmult", "all"])
def test_our_flags_are_flags_that_optimum_neuron_passes(auto_cast: str) -> None:
    """With a target and a type that it knows."""
    settings = CompileSettings(Path(), Path(), Path(), auto_cast=auto_cast)
    words = settings.compiler_args.split()
    flags = dict(zip(words[::2], words[1::2], strict=True))
    assert set(flags) <= set(FACTS["compiler_flags"])
    assert flags["--target"] in FACTS["targets"]
    assert flags.get("--auto-cast-type", "bf16") in FACTS["auto_cast_types"]


def test_stand_in_knows_every_flag_and_target_of_the_facts() -> None:
    """It is strict, and not stricter than the real one."""
    assert set(FACTS["compiler_flags"]) <= set(torch_neuronx.FLAGS)
    assert set(FACTS["targets"]) <= torch_neuronx.FLAGS["--target"]
    assert set(FACTS["auto_cast_types"]) <= torch_neuronx.FLAGS["--auto-cast-type"]


def test_facts_are_read_from_source(tmp_path: Path) -> None:
    """On a package of two small files of the same form."""
    for name, text in (
        (
            "optimum/exporters/neuron/convert.py",
            "def f(instance_type: Literal['inf2']):\n"
            "    neuronx.trace(a, b, compiler_args=x)\n    y = ['--target', z]\n",
        ),
        ("optimum/commands/export/neuronx.py", "g.add_argument('--auto_cast_type', choices=['bf16'])\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    facts = read_facts(tmp_path)
    assert (facts["trace_positional"], facts["trace_keywords"]) == (2, ["compiler_args"])
    assert (facts["compiler_flags"], facts["targets"], facts["auto_cast_types"]) == (["--target"], ["inf2"], ["bf16"])


GOOD: dict[str, Any] = {"compiler_args": "--target inf2 --auto-cast none", "cpu_backend": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compiler_args": ["--target", "inf2"]}, "one string"),
        ({"compiler_args": "--target inf1"}, "knows no --target inf1"),
        ({"compiler_args": "--auto-cast none"}, "--target must be given"),
        ({"cpu_backend": False}, "no Neuron device"),
        ({"partitioner_config": object()}, "partly on the CPU"),
        ({"inline_weights_to_neff": False}, "travel on every call"),
    ],
)
def test_stand_in_refuses(change: dict[str, Any], message: str) -> None:
    """What would fail, or silently do worse, on the real one."""
    rows = tuple(torch.zeros(4, dtype=torch.int32) for _ in range(3))
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        torch_neuronx.trace(lambda a, b, c: (a, b, c), rows, **(GOOD | change))


def test_stand_in_refuses_int64() -> None:
    """Which the real one turns into int32 of twice the size."""
    rows = tuple(torch.zeros(4, dtype=torch.int64) for _ in range(3))
    with pytest.raises(TypeError, match="int32"):
        torch_neuronx.trace(lambda a, b, c: (a, b, c), rows, **GOOD)
