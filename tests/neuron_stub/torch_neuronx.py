"""
A strict stand-in for torch_neuronx 2.9: the published names and signatures, computed by ``torch.jit.trace`` on the CPU.

Like the real one it is bound to the traced shapes and types, and what it saves loads through ``torch.jit.load``. It
shows nothing about Neuron's operators, precision or speed.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

RELEASE = "2.9.0.2.15.32035"
CORES = 2

FLAGS = {
    "--target": {"inf2", "trn1", "trn1n", "trn2"},
    "--model-type": {"generic", "transformer", "unet-inference"},
    "--auto-cast": {"none", "matmult", "all"},
    "--auto-cast-type": {"bf16", "fp16", "tf32", "fp8_e4m3"},
    "--optlevel": {"1", "2", "3"},
}
"""Flags of the compiler, and what each takes: its reference for release 2.32."""

placements: list[int] = []
"""The core of each ``neuron_cores_context`` entered, in order."""
taken: set[int] = set()
"""Cores that another process holds, as a test says."""


class _Guard(torch.nn.Module):
    """Rejects every shape and type but those traced, also after it was saved and loaded."""

    def __init__(self, traced: torch.nn.Module, size: int) -> None:
        super().__init__()
        self.traced = traced
        self.size = size

    def forward(
        self, first: torch.Tensor, second: torch.Tensor, third: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        for tensor in (first, second, third):
            if tensor.dtype != torch.int32 or tensor.dim() != 1 or tensor.size(0) != self.size:
                raise RuntimeError("input does not have the traced shape and type")
        a, b, c = self.traced(first, second, third)
        return a, b, c


def trace(
    func: Callable[..., Any] | torch.nn.Module,
    example_inputs: Any,
    *_: Any,
    input_output_aliases: dict[Any, int] = {},  # noqa: B006  (as published)
    compiler_workdir: str | None = None,
    compiler_args: str | list[str] | None = None,
    partitioner_config: Any = None,
    inline_weights_to_neff: bool = True,
    cpu_backend: bool = False,
) -> Any:
    """Three int32 rows of one length in; refuses what the real one would refuse or silently do worse."""
    if _:
        raise TypeError(f"trace takes two positional arguments, got {2 + len(_)}")
    if not cpu_backend:
        raise RuntimeError("no Neuron device: trace needs cpu_backend=True here")
    if partitioner_config is not None or input_output_aliases:
        raise ValueError("a partitioned graph would run partly on the CPU")
    if not inline_weights_to_neff:
        raise ValueError("weights outside the program travel on every call")
    _check_flags(compiler_args)
    sizes = {tuple(tensor.shape) for tensor in example_inputs}
    if len(example_inputs) != 3 or len(sizes) != 1 or any(tensor.dtype != torch.int32 for tensor in example_inputs):
        raise TypeError("this stand-in traces three int32 rows of one length")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(func, example_inputs, check_trace=False)
        return torch.jit.script(_Guard(traced, int(example_inputs[0].shape[0])))


@contextmanager
def neuron_cores_context(start_nc: int, nc_count: int = 1) -> Iterator[None]:
    """Loads within it go to core ``start_nc``."""
    if start_nc + nc_count > CORES or start_nc in taken:
        raise RuntimeError("NeuronCore(s) not available - Requested:nc1-nc1 Available:0")
    placements.append(start_nc)
    yield


def _check_flags(compiler_args: str | Sequence[str] | None) -> None:
    if not isinstance(compiler_args, str):
        raise TypeError("compiler_args must be one string")
    pairs = re.findall(r"(--[a-z-]+) (\S+)", compiler_args)
    if " ".join(f"{flag} {value}" for flag, value in pairs) != compiler_args:
        raise ValueError(f"compiler_args cannot be read: {compiler_args}")
    for flag, value in pairs:
        if value not in FLAGS.get(flag, set()):
            raise ValueError(f"the compiler knows no {flag} {value}")
    if "--target" not in dict(pairs):
        raise ValueError("without a device --target must be given")
