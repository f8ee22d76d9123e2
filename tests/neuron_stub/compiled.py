"""The tiny model compiled by the strict stand-in, once a test run, and a runtime that fails when it is told to."""

import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch

from model_repo.contract.neuron import NeuronStack
from model_repo.contract.packing import Int32Array
from model_repo.pipeline.compile_neuron import CompileSettings, compile_programs
from service.backends.neuron_runtime import Arrays, InstalledRuntime, Program
from tests.neuron_stub import torch_neuronx
from tests.tiny_artefact import tiny_artefact

SIZES = (16, 48, 96)
TEXTS = ("where is my order", "hello", "give me the money back please", "hi hi hi", "order order", "a fox", "where")
RELEASES = {"torch": "2.9.0", "torch-neuronx": torch_neuronx.RELEASE, "neuronx-cc": "2.26.6360.0", "transformers": "5"}
STACK = NeuronStack(torch, torch_neuronx, torch_neuronx.RELEASE)


def settings(out: Path) -> CompileSettings:
    """To compile the tiny model into ``out``."""
    checkpoint, artefact, _ = tiny_artefact()
    return CompileSettings(checkpoint, artefact, out, sizes=SIZES)


@cache
def compiled() -> Path:
    """The folder of programs."""
    folder = Path(mkdtemp(prefix="tiny-neuron-")) / "neuron"
    with warnings.catch_warnings():
        # Torch announces the end of torch.jit, which is how programs of this release are saved.
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        compile_programs(settings(folder), STACK, TEXTS, RELEASES.__getitem__)
    return folder


def copy_of_programs(folder: Path) -> Path:
    """One to damage."""
    return Path(shutil.copytree(compiled(), folder / "programs"))


class FaultyRuntime:
    """The stand-in's programs on two cores, with ``fault`` called before each call; NaN or a leak put in when told."""

    def __init__(self) -> None:
        self._inner = InstalledRuntime(STACK, torch_neuronx.CORES)
        self.release = self._inner.release
        self.cores = self._inner.cores
        self.fault: Callable[[int], None] = lambda core: None
        self.gives_nan = False
        self.leaks = False
        """Every id of the row, padding too, lifts all logits alike: probabilities stay, energies do not."""
        self.loaded: list[tuple[str, int]] = []

    def load(self, file: Path, core: int) -> Program:
        """See service.backends.neuron_runtime.NeuronRuntime."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.*")
            program = self._inner.load(file, core)
        self.loaded.append((file.name, core))

        def call(token_ids: Int32Array, positions: Int32Array, segments: Int32Array) -> Arrays:
            self.fault(core)
            logits, age_logits, embeddings = program(token_ids, positions, segments)
            if self.leaks:
                logits = logits + np.float32(0.01 * token_ids.sum())
            return (np.full_like(logits, np.nan) if self.gives_nan else logits), age_logits, embeddings

        return call
