"""Loading compiled programs onto NeuronCores through torch_neuronx: the one module that touches the library."""

import glob
import importlib
import importlib.metadata
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from model_repo.contract.neuron import NeuronRefused, NeuronStack, Refusal, probe
from model_repo.contract.outputs import FloatArray
from model_repo.contract.packing import Int32Array

Arrays = tuple[FloatArray, FloatArray, FloatArray]
Program = Callable[[Int32Array, Int32Array, Int32Array], Arrays]
"""A loaded program: the three inputs of the packed graph -> logits, age logits, embeddings, owned by the caller."""

CORES_PER_CHIP = 2
_LOADING = threading.Lock()
"""Placement of programs on cores is not thread-safe, and a new version may load while another thread loads too."""


class NeuronRuntime(Protocol):
    """What the backend needs of the device."""

    @property
    def release(self) -> str:
        """Of torch-neuronx."""

    @property
    def cores(self) -> int:
        """NeuronCores that this process may use; they count from 0 within the process."""

    def load(self, file: Path, core: int) -> Program:
        """Put a program on a core. Raises NeuronRefused when the core is not to be had."""


class InstalledRuntime:
    """torch_neuronx as installed. Importing it takes seconds and happens here, not when the service starts."""

    def __init__(self, stack: NeuronStack, cores: int) -> None:
        self._stack = stack
        self.release = stack.release
        self.cores = cores

    def load(self, file: Path, core: int) -> Program:
        """See NeuronRuntime."""
        torch = self._stack.torch
        # The name is stable since SDK 2.25; the older spelling is kept by none of the releases that are accepted.
        context = self._stack.torch_neuronx.neuron_cores_context
        try:
            with _LOADING, context(start_nc=core, nc_count=1):
                module = torch.jit.load(str(file))
        except Exception as error:
            raise NeuronRefused(
                Refusal.CORES_TAKEN,
                f"cannot load {file.name} on core {core} ({error}); another process may hold it, see `neuron-ls`",
            ) from error
        return _callable(torch, module)


def open_runtime(
    devices: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    stack: NeuronStack | None = None,
) -> InstalledRuntime:
    """
    The installed runtime; raises NeuronRefused: not_installed, placeholder, wrong_release or no_device.

    The arguments stand in for /dev/neuron*, the environment of the process and the installed libraries.
    """
    found = glob.glob("/dev/neuron*") if devices is None else devices
    libraries = stack or probe(importlib.import_module, importlib.metadata.version)
    if not found:
        raise NeuronRefused(Refusal.NO_DEVICE, "there is no /dev/neuron*; is the device plugin or --device missing?")
    # One batch feeds one core at a time: torch's own threads would only take the host's few CPUs from the server.
    libraries.torch.set_num_threads(1)
    return InstalledRuntime(libraries, visible_cores(len(found), os.environ if environment is None else environment))


def visible_cores(chips: int, environment: Mapping[str, str]) -> int:
    """
    NeuronCores that the Neuron runtime gives this process: all, unless its variables say otherwise.

    >>> visible_cores(1, {}), visible_cores(1, {"NEURON_RT_NUM_CORES": "1"})
    (2, 1)
    >>> visible_cores(1, {"NEURON_RT_VISIBLE_CORES": "0-1", "NEURON_RT_NUM_CORES": "1"})
    2
    """
    visible = environment.get("NEURON_RT_VISIBLE_CORES")
    if visible:
        return sum(_span(part) for part in visible.split(","))
    return int(environment.get("NEURON_RT_NUM_CORES") or chips * CORES_PER_CHIP)


def _span(part: str) -> int:
    first, _, last = part.partition("-")
    return int(last or first) - int(first) + 1


def _callable(torch: Any, module: Any) -> Program:
    def call(token_ids: Int32Array, positions: Int32Array, segments: Int32Array) -> Arrays:
        with torch.inference_mode():
            outputs = module(*(torch.from_numpy(array) for array in (token_ids, positions, segments)))
        logits, age_logits, embeddings = (np.array(output.numpy(), dtype=np.float32) for output in outputs)
        return logits, age_logits, embeddings

    return call
