"""
The packed graph on AWS Inferentia2: a few static row sizes, each loaded on every NeuronCore.

Written to the published interface of torch_neuronx 2.9 and simulated in the tests; it has not run on a device
(docs/inferentia.md). Nothing here computes on the CPU when the device cannot be had: it raises NeuronRefused.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from model_repo.contract.neuron import PROGRAMS_FOLDER, NeuronRefused, Refusal, choose_size
from model_repo.contract.outputs import ModelOutputs, concatenate
from model_repo.contract.packing import rows
from service.backends.neuron_artefact import Programs, check_release, read_programs
from service.backends.neuron_cores import CorePool, Work
from service.backends.neuron_runtime import NeuronRuntime, Program, open_runtime
from service.backends.neuron_self_check import Tolerances, check_golden, check_mask, median_seconds, run_row
from service.backends.protocol import checked
from service.errors import BackendFailed

WARM_UP_CALLS = 5


class NeuronBackend:
    """See Backend. ``warm_up`` must have been called before ``infer``: it measures which program suits which row."""

    name = "neuron"

    def __init__(self, programs: Programs, runtime: NeuronRuntime, pool: CorePool, cores: int) -> None:
        """
        Load every program on cores 0 to ``cores`` - 1, one after the other.

        Raises NeuronRefused: wrong_release, too_few_cores or cores_taken.
        """
        check_release(programs.manifest, runtime.release)
        if runtime.cores < cores:
            raise NeuronRefused(Refusal.TOO_FEW_CORES, f"{runtime.cores} cores are visible, {cores} are asked for")
        self.precision = programs.manifest.precision
        self._programs = programs
        self._pool = pool
        self._loaded: list[dict[int, Program]] = [
            {one.size: runtime.load(programs.folder / one.file, core) for one in programs.manifest.programs}
            for core in range(cores)
        ]
        self._seconds: dict[int, float] = {}

    def infer(self, utterances: Sequence[Sequence[int]]) -> ModelOutputs:
        """See Backend. Rows of one batch run side by side on the cores."""
        if not self._seconds:
            raise BackendFailed("neuron: not warmed up")
        manifest = self._programs.manifest
        self._check_ids(utterances)
        groups = rows(utterances, manifest.slots, manifest.programs[-1].size)
        parts = self._pool.run([self._work(group) for group in groups])
        return parts[0] if len(parts) == 1 else concatenate(parts)

    def warm_up(self) -> None:
        """See Backend. Also the self-check of every program on every core; raises NeuronRefused (parity_failed)."""
        manifest, golden = self._programs.manifest, self._programs.golden
        slowest: dict[int, float] = {}
        for core, programs in enumerate(self._loaded):
            for size, program in programs.items():
                seconds = self._time(core, size, program)
                slowest[size] = max(seconds, slowest.get(size, 0.0))
                check_golden(program, size, manifest.slots, golden, Tolerances())
                check_mask(program, size, manifest.slots, golden, Tolerances())
        self._seconds = slowest

    def close(self) -> None:
        """See Backend."""
        self._pool.close()
        self._loaded = []

    @property
    def seconds(self) -> dict[int, float]:
        """What a call of each size took at warm-up, on the slower core."""
        return dict(self._seconds)

    def _work(self, group: Sequence[Sequence[int]]) -> Work:
        size = choose_size(sum(map(len, group)), self._seconds)
        slots = self._programs.manifest.slots
        return lambda core: checked(run_row(self._loaded[core][size], group, size, slots))

    def _check_ids(self, utterances: Sequence[Sequence[int]]) -> None:
        # A program that raises costs its core, so what would make it raise is turned away before.
        manifest = self._programs.manifest
        for utterance in utterances:
            if not 1 <= len(utterance) <= manifest.max_tokens:
                raise BackendFailed(f"neuron: an utterance has {len(utterance)} tokens, not 1..{manifest.max_tokens}")
            if min(utterance) < 0 or max(utterance) >= manifest.vocabulary:
                raise BackendFailed(f"neuron: a token id is not in 0..{manifest.vocabulary - 1}")

    def _time(self, core: int, size: int, program: Program) -> float:
        slots, golden = self._programs.manifest.slots, self._programs.golden.utterances
        sample = [next((u for u in golden if len(u) <= size), (0,))]
        try:
            return median_seconds(lambda: run_row(program, sample, size, slots), WARM_UP_CALLS, time.perf_counter)
        except Exception as error:
            raise BackendFailed(f"neuron: core {core}, program of {size} tokens: {error}") from error


def open_neuron(
    version: Path,
    *,
    runtime: NeuronRuntime | None = None,
    programs: Path | None = None,
    cores: int | None = None,
    on_dead: Callable[[str], None] | None = None,
) -> NeuronBackend:
    """
    The programs compiled from a version's folder, by default in its subfolder, on all visible cores unless told.

    When the last core is lost ``on_dead`` is told; by default the process ends itself in the orderly way, so that
    readiness goes false, what can be answered is answered, and the orchestrator starts another.
    Raises NeuronRefused with the reason.
    """
    opened = runtime or open_runtime()
    read = read_programs(version, programs or version / PROGRAMS_FOLDER)
    used = cores or opened.cores
    pool = CorePool(used, on_dead or _end_process)
    try:
        return NeuronBackend(read, opened, pool, used)
    except BaseException:
        pool.close()
        raise


def _end_process(_reason: str) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
