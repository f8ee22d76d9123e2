"""A version with a membership head is served by it, whatever the engine."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from model_repo.contract.errors import BadManifest
from model_repo.contract.membership import MEMBERSHIP_FILE, MembershipHead
from service.backends.choice import Engine, open_backend
from service.backends.onnx import OnnxBackend
from service.errors import BackendFailed
from tests.tiny_artefact import tiny_artefact

UTTERANCES = [[2, 5, 9, 3], [2, 40, 41, 42, 43, 3], [2, 7, 3]]


def _head(hidden: int) -> MembershipHead:
    rng = np.random.default_rng(5)
    parts = (rng.normal(size=shape).astype(np.float16) for shape in ((hidden, 6), (6,), (6, 3), (3,)))
    return MembershipHead.from_arrays(
        dict(zip(("hidden_weights", "hidden_bias", "weights", "bias"), parts, strict=True)) | {"reserve": np.array(0.1)}
    )


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """The tiny artefact with a head, which the cached one must not get."""
    folder = shutil.copytree(tiny_artefact()[1], tmp_path / "artefact")
    np.savez(folder / MEMBERSHIP_FILE, allow_pickle=False, **_head(32).to_arrays())
    return folder


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_head_of_the_version_lays_out_the_logits(folder: Path, engine: Engine) -> None:
    """What is served is the head's, computed from the embedding that the engine gives."""
    plain, served = open_backend(tiny_artefact()[1], engine), open_backend(folder, engine)
    served.warm_up()
    expected, got = _head(32).applied(plain.infer(UTTERANCES)), served.infer(UTTERANCES)
    assert np.allclose(got.logits, expected.logits, atol=1e-4)
    assert not np.allclose(got.logits, plain.infer(UTTERANCES).logits, atol=0.1)
    assert (served.name, served.precision) == (plain.name, plain.precision)
    served.close()


def test_version_without_a_head_is_served_by_its_engine_alone() -> None:
    """Nothing stands between."""
    assert isinstance(open_backend(tiny_artefact()[1], "onnxruntime"), OnnxBackend)


def test_head_that_cannot_be_read_is_refused(folder: Path) -> None:
    """Cut short on the way: the version is not opened."""
    file = folder / MEMBERSHIP_FILE
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(BadManifest, match=MEMBERSHIP_FILE):
        open_backend(folder, "onnxruntime")


def test_head_of_another_width_fails_the_warm_up(folder: Path) -> None:
    """The warm-up shows it, before any customer does."""
    np.savez(folder / MEMBERSHIP_FILE, allow_pickle=False, **_head(31).to_arrays())
    with pytest.raises(BackendFailed, match="of another model"):
        open_backend(folder, "onnxruntime").warm_up()
