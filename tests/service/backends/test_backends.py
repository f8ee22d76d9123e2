"""Both engines give what the trained network gives, whatever shares the row, and refuse what is not numbers."""

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from model_repo.contract.engine import ENGINE_FILE, MODEL_FILE, TOKENIZER_FILE
from model_repo.contract.errors import BadManifest, FileMissing
from model_repo.contract.outputs import ModelOutputs
from model_repo.pipeline.export import run_network
from model_repo.pipeline.network import load_checkpoint
from service.backends import openvino as openvino_backend
from service.backends.choice import has_matrix_tiles, open_backend, read_cpu_flags
from service.backends.onnx import OnnxBackend
from service.backends.openvino import OpenVinoBackend
from service.backends.protocol import Backend, checked
from service.errors import BackendFailed
from tests.tiny_artefact import tiny_artefact

UTTERANCES = [[2, *range(10, 10 + length), 3] for length in (1, 5, 0, 44, 12, 3)]

Opener = Callable[[Path], Backend]


def open_onnx(folder: Path) -> Backend:
    return OnnxBackend(folder)


def open_openvino(folder: Path) -> Backend:
    return OpenVinoBackend(folder, precision="fp32", workers=2)


@pytest.fixture(params=[open_onnx, open_openvino])
def opener(request: pytest.FixtureRequest) -> Opener:
    """Each engine in fp32, which every CPU computes."""
    opened: Opener = request.param
    return opened


@pytest.fixture(params=["fp32", "int8"])
def precision(request: pytest.FixtureRequest) -> str:
    """Of the artefact."""
    return str(request.param)


@pytest.fixture
def backend(opener: Opener, precision: str) -> Backend:
    """An engine with the tiny artefact, warm."""
    opened = opener(tiny_artefact(precision == "int8")[1])
    assert opened.precision == precision
    opened.warm_up()
    return opened


def assert_same(got: ModelOutputs, expected: ModelOutputs) -> None:
    """All three outputs to 1e-4."""
    np.testing.assert_allclose(got.logits, expected.logits, atol=1e-4)
    np.testing.assert_allclose(got.age_logits, expected.age_logits, atol=1e-4)
    np.testing.assert_allclose(got.embeddings, expected.embeddings, atol=1e-4)


def alone(backend: Backend) -> list[ModelOutputs]:
    """Each utterance in a call of its own."""
    return [backend.infer([utterance]) for utterance in UTTERANCES]


def test_engine_agrees_with_the_trained_network(backend: Backend, precision: str) -> None:
    """Up to the half precision of some weights, which takes some inputs of rounding layers to the next step."""
    trained = run_network(load_checkpoint(tiny_artefact(precision == "int8")[0]).network, UTTERANCES)
    got = backend.infer(UTTERANCES)
    assert got.logits.shape == trained.logits.shape
    atol = 0.02 if precision == "fp32" else 0.1
    np.testing.assert_allclose(got.logits, trained.logits, atol=atol)
    np.testing.assert_allclose(got.embeddings, trained.embeddings, atol=atol)


def test_batch_equals_one_by_one(backend: Backend) -> None:
    """Rows come back in the order of the utterances, untouched by their neighbours."""
    together = backend.infer(UTTERANCES)
    for row, single in enumerate(alone(backend)):
        np.testing.assert_allclose(together.logits[row], single.logits[0], atol=1e-4)
        np.testing.assert_allclose(together.embeddings[row], single.embeddings[0], atol=1e-4)


@pytest.mark.parametrize("copies", [20, 40])
def test_batch_larger_than_a_row_is_cut(backend: Backend, copies: int) -> None:
    """More tokens than a row, and more utterances than slots, still give one row each."""
    assert_same(backend.infer(UTTERANCES * copies), tile(backend.infer(UTTERANCES), copies))


def tile(outputs: ModelOutputs, copies: int) -> ModelOutputs:
    """The same rows again and again."""
    return ModelOutputs(
        np.tile(outputs.logits, (copies, 1)),
        np.tile(outputs.age_logits, copies),
        np.tile(outputs.embeddings, (copies, 1)),
    )


def test_threads_call_one_engine_at_once(backend: Backend) -> None:
    """Each gets the rows of its own utterances."""
    expected = alone(backend)
    barrier = threading.Barrier(4)

    def call(number: int) -> list[ModelOutputs]:
        barrier.wait(30)
        return [backend.infer([UTTERANCES[(number + turn) % len(UTTERANCES)]]) for turn in range(30)]

    with ThreadPoolExecutor(4) as pool:
        for number, results in enumerate(pool.map(call, range(4))):
            for turn, got in enumerate(results):
                assert_same(got, expected[(number + turn) % len(UTTERANCES)])


def test_outputs_are_not_overwritten_by_the_next_call(backend: Backend) -> None:
    """What a caller holds is its own."""
    first = backend.infer([UTTERANCES[0]])
    kept = first.logits.copy()
    backend.infer([UTTERANCES[3]])
    np.testing.assert_array_equal(first.logits, kept)


def test_closed_engine_fails(backend: Backend) -> None:
    """Rather than crash."""
    backend.close()
    with pytest.raises(BackendFailed, match="closed"):
        backend.infer(UTTERANCES)


def test_id_outside_the_vocabulary_fails_the_batch(tmp_path: Path) -> None:
    """An engine's own error is told as BackendFailed."""
    with pytest.raises(BackendFailed, match="onnxruntime: "):
        OnnxBackend(tiny_artefact()[1]).infer([[2, 100_000, 3]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_never_become_decisions(bad: float) -> None:
    """One bad number fails the batch."""
    logits = np.zeros((3, 2))
    logits[1, 1] = bad
    with pytest.raises(BackendFailed, match="batch of 3 is NaN or infinite"):
        checked(ModelOutputs(logits, np.zeros(3), np.zeros((3, 2))))


def copy_artefact(folder: Path) -> Path:
    """One to damage."""
    return Path(shutil.copytree(tiny_artefact()[1], folder / "artefact"))


@pytest.mark.parametrize("file", [MODEL_FILE, TOKENIZER_FILE, ENGINE_FILE])
def test_missing_file_is_named(opener: Opener, tmp_path: Path, file: str) -> None:
    """Before anything is loaded."""
    folder = copy_artefact(tmp_path)
    (folder / file).unlink()
    with pytest.raises(FileMissing, match=file):
        opener(folder)


def test_damaged_weights_are_refused(opener: Opener, tmp_path: Path) -> None:
    """With the path."""
    folder = copy_artefact(tmp_path)
    (folder / MODEL_FILE).write_bytes(b"not a graph")
    with pytest.raises(BackendFailed, match=r"cannot load .*model\.onnx"):
        opener(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": 0}, "slots must be >= 1, got 0"),
        ({"max_tokens": 500}, r"max_tokens must be in 1\.\.max_row_tokens \(256\), got 500"),
        ({"slots": "many"}, "wrong type"),
        ({"slots": None}, "wrong type"),
    ],
)
def test_bad_sizes_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """With the field and the limit."""
    folder = copy_artefact(tmp_path)
    sizes = json.loads((folder / ENGINE_FILE).read_text(encoding="utf-8"))
    (folder / ENGINE_FILE).write_text(json.dumps(sizes | change), encoding="utf-8")
    with pytest.raises(BadManifest, match=message):
        OnnxBackend(folder)


class TestChoice:
    def test_cpu_without_tiles_gets_onnxruntime_in_fp32(self) -> None:
        """And says so."""
        chosen = open_backend(tiny_artefact()[1], cpu_flags=frozenset({"avx2"}))
        assert (chosen.name, chosen.precision) == ("onnxruntime", "fp32")

    def test_int8_stays_with_the_engine_it_was_checked_on(self) -> None:
        """Whatever the CPU has."""
        chosen = open_backend(tiny_artefact(is_quantised=True)[1], cpu_flags=frozenset({"amx_tile", "amx_bf16"}))
        assert (chosen.name, chosen.precision) == ("onnxruntime", "int8")

    def test_precision_that_the_cpu_lacks_is_refused_not_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rather than computed in something else unsaid. Only the engine knows: it does bfloat16 without AMX too."""
        compiled = openvino_backend._compile
        monkeypatch.setattr(openvino_backend, "_compile", lambda file, _, *cores: compiled(file, "fp32", *cores))
        with pytest.raises(BackendFailed, match="computes in f32 on this CPU, asked for bf16"):
            OpenVinoBackend(tiny_artefact()[1], precision="bf16")

    @pytest.mark.skipif(not has_matrix_tiles(read_cpu_flags()), reason="needs AMX")
    def test_cpu_with_tiles_gets_openvino_in_bfloat16(self) -> None:
        """And says so."""
        chosen = open_backend(tiny_artefact()[1])
        assert (chosen.name, chosen.precision) == ("openvino", "bf16")

    def test_flags_are_read_from_cpuinfo(self, tmp_path: Path) -> None:
        """The first processor's line; a system without the file has no flags."""
        file = tmp_path / "cpuinfo"
        file.write_text("processor : 0\nflags\t\t: fpu avx2 amx_tile\nflags : other\n", encoding="utf-8")
        assert read_cpu_flags(file) == {"fpu", "avx2", "amx_tile"}
        assert read_cpu_flags(tmp_path / "none") == frozenset()
