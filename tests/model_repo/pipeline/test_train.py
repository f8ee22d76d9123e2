"""A network learns, a stopped run goes on where it was, and the record says how it was made."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_repo.pipeline import train as stage
from model_repo.pipeline.dataset import read_utterances
from model_repo.pipeline.losses import choose
from model_repo.pipeline.network import RouterNetwork, load_checkpoint
from model_repo.pipeline.settings import BadPreset, Preset, read_preset
from model_repo.pipeline.train import OtherRun, load_outputs, train
from tests.model_repo.pipeline.tiny import TAXONOMY, tiny_preset, write_base, write_data
from tests.tiny_artefact import tiny_network


@pytest.fixture(name="data")
def _data(tmp_path: Path) -> Path:
    return write_data(tmp_path)


@pytest.fixture(name="preset")
def _preset(tmp_path: Path) -> Preset:
    return tiny_preset(write_base(tmp_path / "base"), epochs=4)


def test_network_learns_and_writes_what_later_stages_read(data: Path, preset: Preset, tmp_path: Path) -> None:
    """Most held-out utterances are right after four epochs, and the outputs are those of the saved checkpoint."""
    checkpoint = train(data, tmp_path / "run", TAXONOMY, preset, seed=1)
    assert checkpoint is not None
    record = json.loads((tmp_path / "run" / "train.json").read_text())
    assert record["epochs"][-1]["top1"] > 0.7
    assert record["epochs"][-1]["loss"] < record["epochs"][0]["loss"]
    outputs = load_outputs(tmp_path / "run" / "outputs_test.npz")
    assert outputs.logits.shape == (40, 3)
    loaded = load_checkpoint(checkpoint)
    assert loaded.taxonomy == TAXONOMY
    assert not loaded.network.training


@pytest.mark.parametrize("bf16", [True, False])
def test_bfloat16_is_used_where_it_is_fast_and_the_record_says_so(
    data: Path, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    """What is trained either way is an fp32 network that has learnt; what is judged was computed in fp32."""
    seen = set()
    forward = RouterNetwork.forward

    def watched(network: RouterNetwork, ids: torch.Tensor, mask: torch.Tensor, in_bf16: bool = False) -> Any:
        seen.add((network.training, in_bf16))
        return forward(network, ids, mask, in_bf16)

    monkeypatch.setattr(RouterNetwork, "forward", watched)
    monkeypatch.setattr("model_repo.pipeline.train.has_fast_bf16", lambda: bf16)
    checkpoint = train(data, tmp_path / "run", TAXONOMY, preset, seed=1)
    assert checkpoint is not None
    assert seen == {(True, bf16), (False, False)}
    record = json.loads((tmp_path / "run" / "train.json").read_text())
    assert record["products"] == ("bf16" if bf16 else "fp32")
    assert record["epochs"][-1]["top1"] > 0.7
    assert {p.dtype for p in load_checkpoint(checkpoint).network.parameters()} == {torch.float32}


def test_bfloat16_changes_the_last_digits_alone() -> None:
    """Outputs stay fp32, near those computed in it, and not the same."""
    network, ids = tiny_network(), torch.arange(4, 34).reshape(3, 10)
    exact, rounded = (network(ids, torch.ones_like(ids), bf16) for bf16 in (False, True))
    for one, other in zip(exact, rounded, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=0.1, rtol=0.1)
    assert not torch.equal(exact[0], rounded[0])


def test_run_in_two_slices_ends_as_a_run_in_one(data: Path, preset: Preset, tmp_path: Path) -> None:
    """Stopped after two epochs and started again, the weights come out the same."""
    whole = train(data, tmp_path / "whole", TAXONOMY, preset, seed=1)
    assert train(data, tmp_path / "cut", TAXONOMY, preset, seed=1, stop_after=2) is None
    assert not (tmp_path / "cut" / "checkpoint").exists()
    resumed = train(data, tmp_path / "cut", TAXONOMY, preset, seed=1)
    assert whole is not None
    assert resumed is not None
    first, second = (load_checkpoint(folder).network.state_dict() for folder in (whole, resumed))
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


def test_finished_run_is_kept_and_another_one_is_not(
    data: Path, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline that was killed in its third seed does not train the first two again; other settings train anew."""
    short = replace(preset, train=replace(preset.train, epochs=1))
    first = train(data, tmp_path / "run", TAXONOMY, short, seed=1)
    seeds = []
    fit = stage.fit

    def watched(*args: Any, **options: Any) -> Any:
        seeds.append(args[7])
        return fit(*args, **options)

    monkeypatch.setattr(stage, "fit", watched)
    assert train(data, tmp_path / "run", TAXONOMY, short, seed=1) == first
    assert seeds == []
    train(data, tmp_path / "run", TAXONOMY, short, seed=2)
    train(data, tmp_path / "run", TAXONOMY, replace(short, loss=replace(short.loss, energy=0.1)), seed=2)
    assert seeds == [2, 2]


def test_interrupted_run_of_other_settings_is_not_gone_on_with(data: Path, preset: Preset, tmp_path: Path) -> None:
    """Nor one of another seed or on other data: the weights would be of neither."""
    assert train(data, tmp_path / "cut", TAXONOMY, preset, seed=1, stop_after=1) is None
    with pytest.raises(OtherRun, match="other settings or on other data"):
        train(data, tmp_path / "cut", TAXONOMY, preset, seed=2)
    with pytest.raises(OtherRun):
        train(data, tmp_path / "cut", TAXONOMY, replace(preset, loss=replace(preset.loss, energy=0.1)), seed=1)
    rows = (data / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (data / "train.jsonl").write_text("".join(rows[1:]), encoding="utf-8")
    with pytest.raises(OtherRun):
        train(data, tmp_path / "cut", TAXONOMY, preset, seed=1)


def test_draws_are_decided_by_the_margin_and_the_counts_of_training(
    data: Path, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The margin of the preset, and how many training utterances carry each intent."""
    seen: set[tuple[tuple[int, ...], float]] = set()

    def watched(logits: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor, margin: float) -> torch.Tensor:
        seen.add((tuple(counts.tolist()), margin))
        return choose(logits, targets, counts, margin)

    monkeypatch.setattr(stage, "choose", watched)
    train(data, tmp_path / "run", TAXONOMY, replace(preset, train=replace(preset.train, epochs=1)), seed=1)
    rows = read_utterances(data / "train.jsonl")
    assert seen == {(tuple(sum(i in u.intents for u in rows) for i in TAXONOMY.intents), preset.loss.choice_margin)}
    assert preset.loss.choice_margin > 0


def test_seed_decides_the_weights(data: Path, preset: Preset, tmp_path: Path) -> None:
    """Two seeds give two networks: the spread over seeds is not zero by construction."""
    short = replace(preset, train=replace(preset.train, epochs=1))
    for seed in (1, 2):
        train(data, tmp_path / str(seed), TAXONOMY, short, seed=seed)
    first, second = (load_outputs(tmp_path / str(seed) / "outputs_test.npz").logits for seed in (1, 2))
    assert not np.allclose(first, second)


def test_preset_with_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    """A misspelt setting must not pass unread."""
    text = (Path(__file__).parents[3] / "model_repo" / "presets" / "default.toml").read_text()
    (tmp_path / "odd.toml").write_text(text.replace("warmup =", "warm_up ="))
    with pytest.raises(BadPreset, match="warm_up"):
        read_preset(str(tmp_path / "odd.toml"))
