"""A version of random weights serves like any other."""

from pathlib import Path

import numpy as np
import pytest
from transformers import DistilBertConfig

from model_repo.pipeline import random_version
from model_repo.pipeline.export import read_artefact_spec, run_artefact
from model_repo.store import Store


def test_a_version_of_the_sizes_asked_for_is_promoted_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the shipped taxonomy and policy, in 8 bits, with every digest in order; by the command a person types."""
    sizes = DistilBertConfig(dim=48, hidden_dim=96, n_layers=1, n_heads=4)
    monkeypatch.setitem(random_version.ARCHITECTURES, "minilm", sizes)
    random_version.main(["--architecture", "minilm", "--out", str(tmp_path / "speed")])
    store = Store(tmp_path / "speed")
    champion = store.deployment().champion
    loaded = store.load(champion.version)
    store.policy(champion.version, champion.policy_revision).check_fits(loaded.manifest.taxonomy)
    spec = read_artefact_spec(loaded.folder)
    assert spec.precision == "int8"
    outputs = run_artefact(loaded.folder, spec, [[101, 2000, 102], [101, 3000, 4000, 102]])
    assert outputs.embeddings.shape == (2, 48)
    assert np.isfinite(outputs.logits).all()


def test_a_second_one_stands_beside_the_first(tmp_path: Path) -> None:
    """Versions are never overwritten, and the weights are those of the seed."""
    sizes, like, out = (
        DistilBertConfig(dim=48, hidden_dim=96, n_layers=1, n_heads=4),
        Store(random_version.SHIPPED),
        tmp_path,
    )
    names = [random_version.random_version(sizes, like, out) for _ in range(2)]
    assert names == ["1", "2"]
    first, second = (Store(out).load(name).file("model.onnx").read_bytes() for name in names)
    assert first == second
