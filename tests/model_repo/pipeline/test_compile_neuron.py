"""The compile stage on the CPU, with the strict stand-in: what it writes, and when it refuses to."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model_repo.contract.engine import MODEL_FILE, TOKENIZER_FILE, EngineSpec
from model_repo.contract.neuron import GOLDEN_FILE, PROGRAMS_FILE, ProgramManifest
from model_repo.contract.packing import pack
from model_repo.pipeline.compile_neuron import (
    SIZES,
    CompileSettings,
    RoundedNetwork,
    WrongCheckpoint,
    compile_programs,
    example_row,
    golden_utterances,
)
from model_repo.pipeline.network import save_checkpoint
from model_repo.pipeline.packed import PackedRouter
from model_repo.store import sha256_of
from tests.neuron_stub.compiled import RELEASES, STACK, TEXTS, compiled, settings
from tests.neuron_stub.compiled import SIZES as TINY_SIZES
from tests.tiny_artefact import TAXONOMY, tiny_artefact, tiny_network

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")


def manifest_of(folder: Path) -> ProgramManifest:
    """As it stands on disk."""
    return ProgramManifest.from_json(json.loads((folder / PROGRAMS_FILE).read_text(encoding="utf-8")))


def test_folder_holds_programs_golden_file_and_manifest() -> None:
    """With true digests of all of them, of the version's files, and the releases that compiled."""
    folder, (_, version, _) = compiled(), tiny_artefact()
    manifest = manifest_of(folder)
    assert {path.name for path in folder.iterdir()} == {
        PROGRAMS_FILE,
        GOLDEN_FILE,
        *(f"t{size}.pt" for size in TINY_SIZES),
    }
    assert [program.sha256 for program in manifest.programs] == [sha256_of(folder / p.file) for p in manifest.programs]
    assert manifest.sources == {name: sha256_of(version / name) for name in (MODEL_FILE, TOKENIZER_FILE)}
    assert manifest.golden_sha256 == sha256_of(folder / GOLDEN_FILE)
    assert dict(manifest.releases) == RELEASES
    assert (manifest.precision, manifest.vocabulary) == ("bf16", 120)


def test_golden_file_holds_no_pickle() -> None:
    """Ids, lengths and the trained network's outputs."""
    with np.load(compiled() / GOLDEN_FILE, allow_pickle=False) as arrays:
        n = len(arrays["lengths"])
        assert arrays["token_ids"].shape == (arrays["lengths"].sum(),)
        assert (arrays["logits"].shape, arrays["age_logits"].shape) == ((n, 3), (n,))


def test_program_rejects_another_shape_and_another_type() -> None:
    """Also after it was saved and loaded, as on the device."""
    program = torch.jit.load(str(compiled() / "t16.pt"))
    good = [torch.from_numpy(array) for array in pack([[2, 3]], 32, 16).arrays]
    assert program(*good)[0].shape == (32, 3)
    for bad in ([row[:15] for row in good], [row.long() for row in good]):
        with pytest.raises(torch.jit.Error, match="traced shape and type"):
            program(*bad)


@pytest.mark.parametrize("size", SIZES)
def test_example_always_has_two_utterances_and_padding(size: int) -> None:
    """Otherwise a tracer could take the mask for a constant."""
    row = example_row([[2, 3], [2, *[9] * 120, 3]], 32, size)
    assert set(row.segments.tolist()) == {0, 1, 32}
    assert row.token_ids.shape == (size,)


def test_example_of_long_utterances_is_cut() -> None:
    """To leave room for padding."""
    assert set(example_row([[7] * 50], 4, 16).segments.tolist()) == {0, 1, 4}


def test_golden_utterances_are_distinct_and_cover_the_lengths() -> None:
    """Shortest and longest are among them."""
    chosen = golden_utterances([[1] * n for n in (5, 3, 9, 3, 7, 1)], 3)
    assert [len(utterance) for utterance in chosen] == [1, 5, 9]
    with pytest.raises(ValueError, match="at least 2 different texts, got 1"):
        golden_utterances([[1], [1]])


def test_nothing_is_overwritten() -> None:
    """Programs of a version are made once."""
    with pytest.raises(FileExistsError, match="not overwritten"):
        compile_programs(settings(compiled()), STACK, TEXTS, RELEASES.__getitem__)


def test_another_checkpoint_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """Its logits are not the version's."""
    checkpoint, version, _ = tiny_artefact()
    save_checkpoint(tmp_path / "other", tiny_network(seed=8), checkpoint / "tokenizer.json", TAXONOMY)
    out = tmp_path / "programs" / "neuron"
    with pytest.raises(WrongCheckpoint, match="exported from another checkpoint"):
        compile_programs(
            CompileSettings(tmp_path / "other", version, out, sizes=TINY_SIZES), STACK, TEXTS, RELEASES.__getitem__
        )
    assert not out.parent.exists()


def test_version_in_eight_bits_is_refused(tmp_path: Path) -> None:
    """Before anything is compiled: the device would round elsewhere than the network was trained to."""
    checkpoint, version, _ = tiny_artefact(is_quantised=True)
    asked = dataclasses.replace(settings(tmp_path / "neuron"), checkpoint=checkpoint, version=version)
    with pytest.raises(RoundedNetwork, match="computes in 8 bits"):
        compile_programs(asked, STACK, TEXTS, RELEASES.__getitem__)
    assert list(tmp_path.iterdir()) == []


def test_failing_compiler_leaves_nothing(tmp_path: Path) -> None:
    """Half a folder of programs would be taken for a whole one."""
    wrong = dataclasses.replace(settings(tmp_path / "a" / "neuron"), auto_cast_type="fp64")
    with pytest.raises(ValueError, match="knows no --auto-cast-type fp64"):
        compile_programs(wrong, STACK, TEXTS, RELEASES.__getitem__)
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize(
    ("auto_cast", "precision", "ending"),
    [("none", "fp32", "--auto-cast none"), ("matmult", "bf16", "--auto-cast matmult --auto-cast-type bf16")],
)
def test_compiler_arguments_ask_for_the_stated_precision(auto_cast: str, precision: str, ending: str) -> None:
    """In one string, with the target."""
    asked = CompileSettings(Path(), Path(), Path(), auto_cast=auto_cast)
    assert asked.precision == precision
    assert asked.compiler_args == f"--target inf2 --model-type transformer --optlevel 2 {ending}"


def test_largest_program_holds_a_full_row_of_the_export() -> None:
    """The row sizes end where the exported graph's rows end."""
    data = json.loads((tiny_artefact()[1] / "engine.json").read_text(encoding="utf-8"))
    assert SIZES[-1] == EngineSpec.from_json(data).max_row_tokens


def test_packed_graph_makes_no_tensor_on_the_cpu() -> None:
    """A tracer runs it on the accelerator's tensors: on another device every tensor must be of that device."""
    graph = PackedRouter(tiny_network(), 4).eval().to("meta")
    rows = (torch.zeros(8, dtype=torch.int32, device="meta") for _ in range(3))
    assert [output.device.type for output in graph(*rows)] == ["meta"] * 3
