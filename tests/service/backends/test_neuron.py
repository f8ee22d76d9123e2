"""
The Inferentia backend, simulated on the CPU: the tiny model compiled by the strict stand-in (torch.jit.trace).

What this does not show: Neuron's operators, its precision, its speed.
"""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
import torch

from model_repo.contract.engine import MODEL_FILE, TOKENIZER_FILE
from model_repo.contract.neuron import GOLDEN_FILE, PROGRAMS_FILE, NeuronRefused, Refusal
from model_repo.contract.outputs import ModelOutputs
from model_repo.contract.packing import pack
from model_repo.pipeline.export import run_network
from model_repo.pipeline.network import load_checkpoint
from model_repo.store import sha256_of
from service.backends.choice import open_backend
from service.backends.neuron import NeuronBackend, open_neuron
from service.backends.neuron_runtime import open_runtime, visible_cores
from service.errors import BackendFailed
from service.settings import read_settings
from tests.neuron_stub import torch_neuronx
from tests.neuron_stub.compiled import SIZES, STACK, FaultyRuntime, compiled, copy_of_programs
from tests.tiny_artefact import MAX_TOKENS, tiny_artefact

# Torch announces the end of torch.jit, which is how programs of the Neuron release line are saved and loaded.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")

UTTERANCES = [[2, *range(10, 10 + length), 3] for length in (1, 5, 0, 44, 12, 3)]
SLOTS = 32


def no_death(reason: str) -> None:
    """For tests in which the last core lives."""
    raise AssertionError(f"the backend gave up: {reason}")


def opened(
    runtime: FaultyRuntime, programs: Path | None = None, on_dead: Callable[[str], None] = no_death
) -> NeuronBackend:
    """A backend of the tiny version, not warm."""
    return open_neuron(tiny_artefact()[1], runtime=runtime, programs=programs or compiled(), on_dead=on_dead)


@pytest.fixture
def runtime() -> FaultyRuntime:
    """Two healthy cores."""
    return FaultyRuntime()


@pytest.fixture
def backend(runtime: FaultyRuntime) -> Iterator[NeuronBackend]:
    """Warm."""
    made = opened(runtime)
    made.warm_up()
    yield made
    made.close()


def reference(utterances: list[list[int]]) -> ModelOutputs:
    """The trained network, each utterance alone."""
    return run_network(load_checkpoint(tiny_artefact()[0]).network, utterances)


def test_backend_gives_what_the_trained_network_gives(backend: NeuronBackend) -> None:
    """All three outputs to 1e-4, in the order of the utterances, with copies enough to be cut into rows."""
    got, wanted = backend.infer(UTTERANCES * 7), reference(UTTERANCES * 7)
    np.testing.assert_allclose(got.logits, wanted.logits, atol=1e-4)
    np.testing.assert_allclose(got.age_logits, wanted.age_logits, atol=1e-4)
    np.testing.assert_allclose(got.embeddings, wanted.embeddings, atol=1e-4)


def test_every_row_size_and_its_neighbours_are_answered(backend: NeuronBackend) -> None:
    """Rows of one token less, as many and one more than a program holds: padding and neighbours change nothing."""
    for tokens in (edge + shift for edge in SIZES for shift in (-1, 0, 1)):
        parts = [part for part in (min(tokens, 40), min(tokens - 40, 40), tokens - 80) if part > 0]
        utterances = [[2, *[20 + index] * (length - 1)] for index, length in enumerate(parts)]
        got = backend.infer(utterances)
        assert sum(map(len, utterances)) == tokens
        np.testing.assert_allclose(got.logits, reference(utterances).logits, atol=1e-4)


def test_every_program_is_placed_on_every_core(backend: NeuronBackend, runtime: FaultyRuntime) -> None:
    """By the context that the interface publishes for it."""
    assert sorted(runtime.loaded) == [(f"t{size}.pt", core) for size in sorted(SIZES) for core in (0, 1)]
    assert torch_neuronx.placements[-6:] == [0, 0, 0, 1, 1, 1]
    assert set(backend.seconds) == set(SIZES)


def test_threads_get_their_own_answers(backend: NeuronBackend) -> None:
    """Four callers at once, each with distinct utterances."""
    expected = [backend.infer([utterance]).logits for utterance in UTTERANCES]
    barrier = threading.Barrier(4)

    def call(number: int) -> list[bool]:
        barrier.wait(60)
        chosen = [(number + turn) % len(UTTERANCES) for turn in range(8)]
        return [bool(np.allclose(backend.infer([UTTERANCES[i]]).logits, expected[i], atol=1e-4)) for i in chosen]

    with ThreadPoolExecutor(4) as pool:
        assert all(all(results) for results in pool.map(call, range(4)))


def test_cold_backend_does_not_answer(runtime: FaultyRuntime) -> None:
    """Nothing is served before the self-check."""
    with pytest.raises(BackendFailed, match="not warmed up"):
        opened(runtime).infer(UTTERANCES)


def test_what_a_program_cannot_take_costs_no_core(backend: NeuronBackend) -> None:
    """Nothing, too much, or an id outside the vocabulary is turned away before."""
    for utterance in ([], [2] * (MAX_TOKENS + 1), [2, 120, 3], [2, -1, 3]):
        with pytest.raises(BackendFailed, match=r"not 1|not in 0"):
            backend.infer([utterance])
    assert len(backend.infer(UTTERANCES)) == len(UTTERANCES)


def test_failing_core_costs_no_answer(backend: NeuronBackend, runtime: FaultyRuntime) -> None:
    """Core 1 raises from now on; every batch is still answered."""

    def fault(core: int) -> None:
        if core == 1:
            raise RuntimeError("NRT_EXEC_HW_ERR")

    runtime.fault = fault
    wanted = reference(UTTERANCES * 7).logits
    for _ in range(3):
        np.testing.assert_allclose(backend.infer(UTTERANCES * 7).logits, wanted, atol=1e-4)


def test_without_a_core_the_owner_is_told_and_nothing_is_computed_elsewhere(runtime: FaultyRuntime) -> None:
    """No silent answer from the CPU."""
    told: SimpleQueue[str] = SimpleQueue()
    backend = opened(runtime, on_dead=told.put)
    backend.warm_up()

    def fault(core: int) -> None:
        raise RuntimeError("NRT_UNINITIALIZED")

    runtime.fault = fault
    for _ in range(2):
        with pytest.raises(BackendFailed, match="neuron: "):
            backend.infer(UTTERANCES)
    # The core's own thread tells, after its waiter has the error.
    assert "NRT_UNINITIALIZED" in told.get(timeout=60)
    assert told.empty()


def test_nan_fails_its_batch_and_no_other(backend: NeuronBackend, runtime: FaultyRuntime) -> None:
    """It never becomes a decision."""
    runtime.gives_nan = True
    with pytest.raises(BackendFailed, match="NaN or infinite"):
        backend.infer(UTTERANCES)
    runtime.gives_nan = False
    assert backend.infer(UTTERANCES).is_finite()


def test_closed_backend_fails(backend: NeuronBackend) -> None:
    """Rather than wait."""
    backend.close()
    with pytest.raises(BackendFailed, match="closed"):
        backend.infer(UTTERANCES)


class TestRefusal:
    def refusal(self, call: Callable[[], object]) -> NeuronRefused:
        """What the call refuses with."""
        with pytest.raises(NeuronRefused) as refused:
            call()
        return refused.value

    def test_this_machine_has_no_neuron_software(self) -> None:
        """The real probe on the real environment, as the setting names the engine; no other stands behind it."""
        engine = read_settings({"ROUTER_ENGINE": "neuron"}).engine
        refused = self.refusal(lambda: open_backend(tiny_artefact()[1], engine))
        assert refused.reason is Refusal.NOT_INSTALLED

    def test_no_device(self) -> None:
        """The software alone is not enough to serve."""
        assert self.refusal(lambda: open_runtime((), {}, STACK)).reason is Refusal.NO_DEVICE

    def test_too_few_cores(self, runtime: FaultyRuntime) -> None:
        """With both numbers."""
        refused = self.refusal(
            lambda: open_neuron(tiny_artefact()[1], runtime=runtime, programs=compiled(), cores=3, on_dead=no_death)
        )
        assert refused.reason is Refusal.TOO_FEW_CORES
        assert "2 cores are visible, 3 are asked for" in str(refused)

    def test_cores_taken(self, runtime: FaultyRuntime) -> None:
        """With a hint at who holds them."""
        torch_neuronx.taken.add(1)
        try:
            refused = self.refusal(lambda: opened(runtime))
        finally:
            torch_neuronx.taken.clear()
        assert refused.reason is Refusal.CORES_TAKEN
        assert "core 1" in str(refused)
        assert "neuron-ls" in str(refused)

    @pytest.mark.parametrize("file", [PROGRAMS_FILE, GOLDEN_FILE, "t48.pt"])
    def test_missing_file(self, runtime: FaultyRuntime, tmp_path: Path, file: str) -> None:
        """Named, with the command that makes it."""
        programs = copy_of_programs(tmp_path)
        (programs / file).unlink()
        refused = self.refusal(lambda: opened(runtime, programs))
        assert refused.reason is Refusal.ARTEFACT_MISSING
        assert file in str(refused)
        assert "compile-neuron" in str(refused)

    @pytest.mark.parametrize("file", [GOLDEN_FILE, "t48.pt"])
    def test_damaged_file_is_never_loaded(self, runtime: FaultyRuntime, tmp_path: Path, file: str) -> None:
        """Programs are executable content: the digest is checked first."""
        programs = copy_of_programs(tmp_path)
        with (programs / file).open("ab") as damaged:
            damaged.write(b"x")
        refused = self.refusal(lambda: opened(runtime, programs))
        assert (refused.reason, runtime.loaded) == (Refusal.ARTEFACT_MISMATCH, [])
        assert file in str(refused)

    @pytest.mark.parametrize("file", [MODEL_FILE, TOKENIZER_FILE])
    def test_programs_of_another_version(self, runtime: FaultyRuntime, tmp_path: Path, file: str) -> None:
        """Its model or its tokenizer is not what was compiled."""
        version = Path(shutil.copytree(tiny_artefact()[1], tmp_path / "version"))
        with (version / file).open("ab") as other:
            other.write(b" ")
        refused = self.refusal(lambda: open_neuron(version, runtime=runtime, programs=compiled(), on_dead=no_death))
        assert refused.reason is Refusal.ARTEFACT_MISMATCH

    @pytest.mark.parametrize("change", [{"slots": 0}, {"schema": 9}, {"programs": []}])
    def test_manifest_that_makes_no_sense(
        self, runtime: FaultyRuntime, tmp_path: Path, change: dict[str, object]
    ) -> None:
        """With its path."""
        programs = copy_of_programs(tmp_path)
        data = json.loads((programs / PROGRAMS_FILE).read_text(encoding="utf-8"))
        (programs / PROGRAMS_FILE).write_text(json.dumps(data | change), encoding="utf-8")
        assert self.refusal(lambda: opened(runtime, programs)).reason is Refusal.ARTEFACT_MISMATCH

    def test_programs_of_another_release(self, runtime: FaultyRuntime) -> None:
        """With both."""
        runtime.release = "2.9.0.2.99.1"
        refused = self.refusal(lambda: opened(runtime))
        assert refused.reason is Refusal.WRONG_RELEASE
        assert "2.9.0.2.99.1 is installed" in str(refused)

    def test_golden_rows_that_come_out_different(self, runtime: FaultyRuntime, tmp_path: Path) -> None:
        """The golden logits are moved; every digest is right."""
        programs = copy_of_programs(tmp_path)
        with np.load(programs / GOLDEN_FILE) as arrays:
            moved = dict(arrays)
        moved["logits"] = moved["logits"] + np.linspace(0, 2, moved["logits"].shape[1], dtype=np.float32)
        np.savez(programs / GOLDEN_FILE, **moved)
        self.rewrite(programs, "golden_sha256", sha256_of(programs / GOLDEN_FILE))
        refused = self.refusal(opened(runtime, programs).warm_up)
        assert refused.reason is Refusal.PARITY_FAILED
        assert "a probability differs by" in str(refused)

    def test_nan_at_warm_up(self, runtime: FaultyRuntime) -> None:
        """Never ready."""
        runtime.gives_nan = True
        assert self.refusal(opened(runtime).warm_up).reason is Refusal.PARITY_FAILED

    def test_mask_that_was_traced_away(self, runtime: FaultyRuntime, tmp_path: Path) -> None:
        """Utterances see their neighbours and the padding: never ready, though every digest is right."""
        programs = copy_of_programs(tmp_path)
        sizes = self.compile_without_mask(programs)
        self.rewrite(programs, "programs", sizes)
        assert self.refusal(opened(runtime, programs).warm_up).reason is Refusal.PARITY_FAILED

    def test_leak_that_no_golden_row_shows(self, runtime: FaultyRuntime) -> None:
        """Golden rows compare probabilities, which a lift of all logits leaves alone; the mask's check does not."""
        runtime.leaks = True
        refused = self.refusal(opened(runtime).warm_up)
        assert refused.reason is Refusal.PARITY_FAILED
        assert "a dead mask" in str(refused)

    def rewrite(self, programs: Path, field: str, value: object) -> None:
        """One field of the manifest."""
        data = json.loads((programs / PROGRAMS_FILE).read_text(encoding="utf-8"))
        (programs / PROGRAMS_FILE).write_text(json.dumps(data | {field: value}), encoding="utf-8")

    def compile_without_mask(self, programs: Path) -> list[dict[str, object]]:
        """Programs whose example had neither padding nor neighbour, so that a tracer took the mask for a constant."""
        from model_repo.pipeline.packed import PackedRouter

        graph = PackedRouter(load_checkpoint(tiny_artefact()[0]).network, SLOTS).eval()

        class WithoutMask(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.graph = graph

            def forward(
                self, ids: torch.Tensor, positions: torch.Tensor, segments: torch.Tensor
            ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
                hidden = self.graph._embed(ids, positions).unsqueeze(0)
                for layer in self.graph.layers:
                    hidden = layer(hidden, torch.zeros(ids.shape[0], ids.shape[0]))
                member = (segments.unsqueeze(0) == torch.arange(SLOTS, dtype=torch.int32).unsqueeze(1)).float()
                pooled = member @ hidden.squeeze(0) / member.sum(1, keepdim=True).clamp(min=1.0)
                return self.graph.classifier(pooled), self.graph.age(pooled).squeeze(-1), pooled

        listed: list[dict[str, object]] = []
        for size in SIZES:
            rows = tuple(torch.from_numpy(array) for array in pack([[2, 10, 3]], SLOTS, size).arrays)
            with torch.no_grad():
                program = torch_neuronx.trace(
                    WithoutMask(), rows, compiler_args="--target inf2 --auto-cast none", cpu_backend=True
                )
            torch.jit.save(program, str(programs / f"t{size}.pt"))
            listed.append({"size": size, "file": f"t{size}.pt", "sha256": sha256_of(programs / f"t{size}.pt")})
        return listed


@pytest.mark.parametrize(
    ("variables", "cores"),
    [
        ({}, 2),
        ({"NEURON_RT_NUM_CORES": "1"}, 1),
        ({"NEURON_RT_VISIBLE_CORES": "1"}, 1),
        ({"NEURON_RT_VISIBLE_CORES": "0,1"}, 2),
        ({"NEURON_RT_VISIBLE_CORES": "0-1", "NEURON_RT_NUM_CORES": "1"}, 2),
    ],
)
def test_visible_cores_follow_the_runtime_variables(variables: dict[str, str], cores: int) -> None:
    """One chip; the list of visible cores wins."""
    assert visible_cores(1, variables) == cores
    assert open_runtime(["/dev/neuron0"], variables, STACK).cores == cores
