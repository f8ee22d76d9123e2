"""
Compile a version for Inferentia2, on any x86 host, with or without a device:

    python -m model_repo compile-neuron --checkpoint DIR --version DIR --out DIR

Writes one program for each row size, golden.npz (utterances with what the trained network gives for them) and
manifest.json, which names the version's model and tokenizer by digest. Without a device nothing is executed: the
programs prove themselves when the service warms up.
"""

import importlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from model_repo.contract.engine import ENGINE_FILE, MODEL_FILE, TOKENIZER_FILE, EngineSpec
from model_repo.contract.neuron import (
    GOLDEN_FILE,
    PROGRAMS_FILE,
    TARGET,
    NeuronStack,
    ProgramFile,
    ProgramManifest,
    probe,
)
from model_repo.contract.outputs import ModelOutputs
from model_repo.contract.packing import PackedRow, pack
from model_repo.store import sha256_of

SIZES = (32, 56, 96, 136, 192, 256)
"""Row sizes chosen by ``neuron_buckets`` for the authored messages; docs/inferentia.md has its printout."""
GOLDEN_UTTERANCES = 64
MAX_LOGIT_DIFFERENCE = 0.05
"""Between checkpoint and version on the golden utterances: half-precision weights made 0.008 on 2,507 messages."""
PLATFORM_VARIABLE = "NEURON_PLATFORM_TARGET_OVERRIDE"
_PRECISION = {"none": "fp32", "matmult": None, "all": None}


class WrongCheckpoint(ValueError):
    """The checkpoint is not the network that the version was exported from."""


class RoundedNetwork(ValueError):
    """The version computes in 8 bits, and its decisions do not survive products in bfloat16."""


@dataclass(frozen=True)
class CompileSettings:
    """What to compile and how."""

    checkpoint: Path
    version: Path
    """Folder with the version's model, tokenizer and engine file."""
    out: Path
    sizes: tuple[int, ...] = SIZES
    auto_cast: str = "matmult"
    """``none``, ``matmult`` or ``all``: which products the compiler may compute in ``auto_cast_type``."""
    auto_cast_type: str = "bf16"
    has_device: bool = False
    """Whether the compiler finds a chip; without one it is told to trace on the CPU."""

    @property
    def compiler_args(self) -> str:
        """One string: a list lost ``--target`` in some releases (aws-neuron-sdk issue 865)."""
        cast = f"--auto-cast {self.auto_cast}"
        kind = "" if self.auto_cast == "none" else f" --auto-cast-type {self.auto_cast_type}"
        return f"--target {TARGET} --model-type transformer --optlevel 2 {cast}{kind}"

    @property
    def precision(self) -> str:
        """Of the matrix products."""
        return _PRECISION[self.auto_cast] or self.auto_cast_type


def import_stack() -> NeuronStack:
    """The installed libraries; raises NeuronRefused. The platform must be named before they are first imported."""
    os.environ.setdefault(PLATFORM_VARIABLE, TARGET)
    return probe(importlib.import_module, importlib.metadata.version)


def compile_programs(
    settings: CompileSettings,
    stack: NeuronStack,
    texts: Sequence[str],
    release_of: Callable[[str], str] = importlib.metadata.version,
) -> ProgramManifest:
    """
    Compile every size and write the folder, whole or not at all.

    ``texts`` are what golden utterances are drawn from. Raises FileExistsError rather than overwrite,
    RoundedNetwork, WrongCheckpoint, or whatever the compiler raises for an operator that it does not know.
    """
    # Torch is needed from here on; the probe has shown that the right one is there.
    from model_repo.pipeline.export import run_network
    from model_repo.pipeline.network import load_checkpoint
    from model_repo.pipeline.packed import PackedRouter

    if settings.out.exists():
        raise FileExistsError(f"{settings.out} exists and is not overwritten")
    spec = EngineSpec.from_json(json.loads((settings.version / ENGINE_FILE).read_text(encoding="utf-8")))
    if spec.precision == "int8":
        raise RoundedNetwork(
            f"{settings.version} computes in 8 bits, whose rounding bfloat16 does not repeat: compile a version in "
            "fp32, made from the run that was quantised"
        )
    network = load_checkpoint(settings.checkpoint).network
    tokenizer = Tokenizer.from_file(str(settings.version / TOKENIZER_FILE))
    golden = golden_utterances([encoding.ids for encoding in tokenizer.encode_batch(list(texts))])
    reference = run_network(network, golden)
    _check_same(settings.version, spec, golden, reference)

    settings.out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".compiling-", dir=settings.out.parent) as made:
        folder = Path(made) / "programs"
        folder.mkdir()
        graph = PackedRouter(network, spec.slots).eval()
        programs = [
            _compile(graph, size, example_row(golden, spec.slots, size), settings, stack, folder)
            for size in settings.sizes
        ]
        _write_golden(folder / GOLDEN_FILE, golden, reference)
        manifest = ProgramManifest(
            programs=tuple(programs),
            slots=spec.slots,
            max_tokens=spec.max_tokens,
            vocabulary=int(network.encoder.config.vocab_size),
            sources={name: sha256_of(settings.version / name) for name in (MODEL_FILE, TOKENIZER_FILE)},
            golden_sha256=sha256_of(folder / GOLDEN_FILE),
            releases=_releases(stack, release_of),
            compiler_args=settings.compiler_args,
            precision=settings.precision,
        )
        (folder / PROGRAMS_FILE).write_text(json.dumps(manifest.to_json(), indent=2) + "\n", encoding="utf-8")
        folder.rename(settings.out)
    return manifest


def golden_utterances(utterances: Sequence[Sequence[int]], count: int = GOLDEN_UTTERANCES) -> list[list[int]]:
    """
    Evenly spread over the lengths, shortest and longest among them; each once.

    >>> golden_utterances([[1], [1, 2, 3], [1, 2], [1, 2, 3, 4]], 2)
    [[1], [1, 2, 3, 4]]
    """
    distinct = sorted({tuple(utterance) for utterance in utterances}, key=lambda ids: (len(ids), ids))
    if len(distinct) < 2:
        raise ValueError(f"golden utterances need at least 2 different texts, got {len(distinct)}")
    chosen = np.unique(np.linspace(0, len(distinct) - 1, min(count, len(distinct))).round().astype(int))
    return [list(distinct[index]) for index in chosen]


def example_row(golden: Sequence[Sequence[int]], slots: int, size: int) -> PackedRow:
    """
    What the tracer sees: two utterances and padding after them.

    A tracer may drop what the example does not need: an example without padding or neighbour could lose the mask.
    """
    shortest = golden[0][: max(1, (size - 1) // 2)]
    return pack([shortest, shortest], slots, size)


def _compile(
    graph: Any, size: int, example: PackedRow, settings: CompileSettings, stack: NeuronStack, folder: Path
) -> ProgramFile:
    torch = stack.torch
    print(f"compile-neuron: {size} tokens ...", flush=True)
    with torch.no_grad():
        program = stack.torch_neuronx.trace(
            graph,
            tuple(torch.from_numpy(array.copy()) for array in example.arrays),
            compiler_workdir=str(folder.parent / f"work-{size}"),
            compiler_args=settings.compiler_args,
            cpu_backend=not settings.has_device,
        )
    file = f"t{size}.pt"
    torch.jit.save(program, str(folder / file))
    return ProgramFile(size, file, sha256_of(folder / file))


def _check_same(version: Path, spec: EngineSpec, golden: Sequence[Sequence[int]], reference: ModelOutputs) -> None:
    from model_repo.pipeline.export import run_graph

    difference = float(np.abs(run_graph(version, spec, golden).logits - reference.logits).max())
    if not difference <= MAX_LOGIT_DIFFERENCE:
        raise WrongCheckpoint(
            f"checkpoint and version differ by {difference:.3f} in a logit, at most {MAX_LOGIT_DIFFERENCE} may they: "
            f"{version} was exported from another checkpoint"
        )


def _write_golden(file: Path, golden: Sequence[Sequence[int]], reference: ModelOutputs) -> None:
    np.savez(
        file,
        lengths=np.asarray([len(utterance) for utterance in golden], dtype=np.int32),
        token_ids=np.concatenate([np.asarray(utterance, dtype=np.int32) for utterance in golden]),
        logits=reference.logits,
        age_logits=reference.age_logits,
        embeddings=reference.embeddings,
    )


def _releases(stack: NeuronStack, release_of: Callable[[str], str]) -> Mapping[str, str]:
    return {"torch-neuronx": stack.release} | {
        name: release_of(name) for name in ("torch", "neuronx-cc", "transformers")
    }
