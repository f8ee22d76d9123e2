"""A run is trained on in 8 bits, and is a run like any other."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from model_repo.contract.engine import MODEL_FILE
from model_repo.contract.policy import Policy
from model_repo.pipeline import quantise as stage
from model_repo.pipeline.average import CannotAverage, average
from model_repo.pipeline.dataset import encode, read_utterances
from model_repo.pipeline.export import export, run_network
from model_repo.pipeline.losses import concentrate
from model_repo.pipeline.network import load_checkpoint
from model_repo.pipeline.quantise import CannotQuantise, halve_rest, measured_steps, quantise
from model_repo.pipeline.quantised import WEIGHT_STEPS, QuantisedLinear, steps_of
from model_repo.pipeline.settings import Preset, QuantiseSettings
from model_repo.pipeline.train import load_outputs, plain_tokenizer, train
from tests.model_repo.pipeline.tiny import TAXONOMY, tiny_preset, write_base, write_data
from tests.tiny_artefact import quantised_network


@pytest.fixture(name="data", scope="module")
def _data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(name="preset", scope="module")
def _preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    return tiny_preset(write_base(tmp_path_factory.mktemp("base")), epochs=3)


@pytest.fixture(name="run", scope="module")
def _run(data: Path, preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(data, folder, TAXONOMY, preset, 1)
    return folder


@pytest.fixture(name="quantised", scope="module")
def _quantised(run: Path, data: Path, preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantised")
    quantise(run, data, folder, preset)
    return folder


def test_every_layer_of_the_blocks_rounds_and_the_heads_do_not(quantised: Path) -> None:
    """Six a block; the weights moved on from those of the run."""
    network = load_checkpoint(quantised / "checkpoint").network
    assert len(steps_of(network)) == 6 * 2
    assert all(name.startswith("encoder.transformer.layer.") for name in steps_of(network))
    assert not isinstance(network.classifier, QuantisedLinear)


def test_finished_run_is_kept(
    run: Path, quantised: Path, data: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started again with the same arguments it does nothing; with others it begins."""
    monkeypatch.setattr(stage, "measured_steps", lambda *_: pytest.fail("trained again"))
    assert quantise(run, data, quantised, preset) == quantised / "checkpoint"
    assert preset.quantise is not None
    other = replace(preset, quantise=replace(preset.quantise, encoder_learning_rate=2e-3))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        quantise(run, data, quantised, other)


def test_outputs_and_record_are_those_of_the_rounding_network(run: Path, quantised: Path, data: Path) -> None:
    """It has learnt on, still knows what it knew, and the record says how it came about."""
    trained = load_checkpoint(quantised / "checkpoint")
    texts = [utterance.text for utterance in read_utterances(data / "test.jsonl")]
    again = run_network(trained.network, encode(plain_tokenizer(trained.tokenizer_file), texts))
    outputs, before = (load_outputs(folder / "outputs_test.npz").logits for folder in (quantised, run))
    np.testing.assert_allclose(outputs, again.logits, atol=1e-4)
    assert not np.allclose(outputs, before, atol=1e-2)
    record = json.loads((quantised / "train.json").read_text())
    assert record["quantised"] == asdict(QuantiseSettings(1, 1e-3, 1e-3, 0.995))
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2, 3, 1]
    assert record["epochs"][-1]["top1"] > 0.7


def test_export_is_in_eight_bits_and_decides_as_it_was_trained(quantised: Path, data: Path, tmp_path: Path) -> None:
    """Nothing is rounded that training had not rounded."""
    policy = Policy("1", 1, 1.0, (0.4, 0.4, 0.4), 1.0, 0.0, 0.5, 0.95)
    texts = [utterance.text for utterance in read_utterances(data / "test.jsonl")]
    report = export(quantised / "checkpoint", tmp_path / "artefact", texts, policy, max_tokens=32)
    assert (report.precision, report.decisions_equal) == ("int8", 1.0)
    assert report.max_logit_difference < 0.02
    graph = onnx.load(tmp_path / "artefact" / MODEL_FILE).graph
    weights = [t for t in graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2]
    # Query, key and value are one product; beside it the projection and the two of the feed-forward part.
    assert len(weights) == 4 * 2
    assert all(np.abs(onnx.numpy_helper.to_array(weight)).max() == WEIGHT_STEPS for weight in weights)


def test_what_is_stored_in_half_precision_is_judged_so() -> None:
    """Tables of embeddings are rounded, the weights of layers that round are not, nor norms and biases."""
    network = quantised_network()
    table = torch.nn.Embedding(200, 32)
    network.encoder.embeddings.word_embeddings = table
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    halve_rest(network)
    changed = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"encoder.embeddings.word_embeddings.weight"}
    assert torch.equal(table.weight, table.weight.half().float())


def test_run_is_written_as_it_will_be_stored(
    run: Path, data: Path, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables of the checkpoint are on the steps of half precision already, and its outputs are theirs."""
    monkeypatch.setattr(stage, "HALF_PRECISION_ABOVE", 100)
    network = load_checkpoint(quantise(run, data, tmp_path / "out", preset)).network
    table = network.encoder.embeddings.word_embeddings.weight
    assert torch.equal(table, table.half().float())


def test_targets_follow_the_choice_from_the_first_epoch_on(
    run: Path, data: Path, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network has a choice by then; with the share of the preset, and the schedule of these settings."""
    shares = []

    def watched(targets: torch.Tensor, choice: torch.Tensor, share: float) -> torch.Tensor:
        shares.append(share)
        return concentrate(targets, choice, share)

    monkeypatch.setattr("model_repo.pipeline.train.concentrate", watched)
    quantise(run, data, tmp_path / "out", preset)
    assert set(shares) == {preset.loss.choice_share}
    assert preset.quantise is not None
    settings = preset.quantise.replaced_in(preset)
    assert (settings.train.epochs, settings.train.head_learning_rate) == (1, 1e-3)
    assert settings.loss == preset.loss


def test_steps_cover_what_the_layers_are_given_and_not_the_padding(run: Path) -> None:
    """More text can only widen them."""
    network = load_checkpoint(run / "checkpoint").network
    few, more = measured_steps(network, [[5, 9, 6]]), measured_steps(network, [[5, 9, 6], [5, 10, 11, 12, 6]])
    assert few.keys() == more.keys()
    assert all(few[name].scale <= more[name].scale + 1e-9 for name in few)
    assert any(few[name] != more[name] for name in few)
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_interrupted_run_goes_on_to_the_same_end(run: Path, data: Path, preset: Preset, tmp_path: Path) -> None:
    """Killed after the first of two epochs, it ends where an uninterrupted one does."""
    assert preset.quantise is not None
    two = replace(preset, quantise=replace(preset.quantise, epochs=2))
    whole = quantise(run, data, tmp_path / "whole", two)

    class Killed(RuntimeError):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "save_run", killed)
        with pytest.raises(Killed):
            quantise(run, data, tmp_path / "again", two)
    resumed = quantise(run, data, tmp_path / "again", two)
    first, second = (load_checkpoint(folder).network.state_dict() for folder in (whole, resumed))
    for name, weight in first.items():
        np.testing.assert_allclose(weight.numpy(), second[name].numpy(), atol=1e-6)


def test_what_cannot_be_quantised_is_refused(
    run: Path, quantised: Path, data: Path, preset: Preset, tmp_path: Path
) -> None:
    """Twice, without settings, or averaged afterwards."""
    with pytest.raises(CannotQuantise, match="rounds already"):
        quantise(quantised, data, tmp_path / "out", preset)
    with pytest.raises(CannotQuantise, match=r"preset test has no \[quantise\]"):
        quantise(run, data, tmp_path / "out", replace(preset, quantise=None))
    with pytest.raises(CannotAverage, match="averaged first and quantised then"):
        average([quantised, quantised], data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
