"""Runs from the same first weights are averaged into a run; others are refused by what differs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from model_repo.pipeline.average import CannotAverage, average
from model_repo.pipeline.dataset import read_utterances, to_tensors
from model_repo.pipeline.network import load_checkpoint
from model_repo.pipeline.settings import Preset
from model_repo.pipeline.train import load_outputs, predict, train
from tests.model_repo.pipeline.tiny import TAXONOMY, tiny_preset, write_base, write_data


@pytest.fixture(name="data", scope="module")
def _data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(name="preset", scope="module")
def _preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    """From a base whose tokenizer pads, as the embedded one does."""
    base = write_base(tmp_path_factory.mktemp("base"))
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(base / "tokenizer.json"))
    return tiny_preset(base, epochs=3, seeds=(1, 2))


@pytest.fixture(name="runs", scope="module")
def _runs(data: Path, preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp("runs") / str(seed) for seed in preset.train.seeds]
    for folder, seed in zip(folders, preset.train.seeds, strict=True):
        train(data, folder, TAXONOMY, preset, seed)
    return folders


def test_averaged_run_has_the_mean_of_the_weights_and_reads_like_a_run(
    runs: list[Path], data: Path, tmp_path: Path
) -> None:
    """Every weight lies half way; outputs and record are those of the new network, which has learnt what they had."""
    checkpoint = average(runs, data, tmp_path / "mean")
    first, second, mean = (
        load_checkpoint(folder).network.state_dict()
        for folder in (runs[0] / "checkpoint", runs[1] / "checkpoint", checkpoint)
    )
    assert not torch.allclose(first["classifier.weight"], second["classifier.weight"])
    for name, weight in mean.items():
        torch.testing.assert_close(weight, (first[name] + second[name]) / 2)
    record = json.loads((tmp_path / "mean" / "train.json").read_text())
    assert record["averaged_seeds"] == [1, 2]
    assert record["epochs"][-1]["top1"] > 0.7
    ones, means = (load_outputs(folder / "outputs_test.npz").logits for folder in (runs[0], tmp_path / "mean"))
    assert means.shape == ones.shape
    assert not np.allclose(means, ones)


def test_outputs_are_of_the_messages_and_not_of_their_padding(runs: list[Path], data: Path, tmp_path: Path) -> None:
    """The same as the new network says of the bare tokens."""
    network = load_checkpoint(average(runs, data, tmp_path / "mean")).network
    tokenizer = Tokenizer.from_file(str(tmp_path / "mean" / "checkpoint" / "tokenizer.json"))
    tokenizer.no_padding()
    bare = predict(network, to_tensors(read_utterances(data / "test.jsonl"), tokenizer, TAXONOMY))
    np.testing.assert_allclose(load_outputs(tmp_path / "mean" / "outputs_test.npz").logits, bare.logits, atol=1e-5)


def test_runs_begin_alike_whatever_their_seed(data: Path, preset: Preset, tmp_path: Path) -> None:
    """Without a step taken, two seeds have the same heads: their weights may be averaged."""
    still = replace(preset, train=replace(preset.train, epochs=1, head_learning_rate=0.0, encoder_learning_rate=0.0))
    heads = []
    for seed in (1, 2):
        checkpoint = train(data, tmp_path / str(seed), TAXONOMY, still, seed)
        assert checkpoint is not None
        heads.append(load_checkpoint(checkpoint).network.classifier.weight)
    torch.testing.assert_close(heads[0], heads[1])


@pytest.mark.parametrize("key", ["preset", "data_sha256"])
def test_runs_of_another_kind_are_refused(key: str, runs: list[Path], data: Path, tmp_path: Path) -> None:
    """Another setting, or other text, is named."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "checkpoint").symlink_to(runs[1] / "checkpoint")
    record = json.loads((runs[1] / "train.json").read_text())
    (other / "train.json").write_text(json.dumps({**record, key: {"changed": True}}))
    with pytest.raises(CannotAverage, match=key):
        average([runs[0], other], data, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_one_run_or_the_same_twice_is_no_average(runs: list[Path], data: Path, tmp_path: Path) -> None:
    """The mean of a run and itself would only look like one."""
    with pytest.raises(CannotAverage, match="two runs or more"):
        average(runs[:1], data, tmp_path / "mean")
    with pytest.raises(CannotAverage, match="same seed"):
        average([runs[0], runs[0]], data, tmp_path / "mean")
