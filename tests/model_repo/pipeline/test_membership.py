"""A head is fitted on a finished run, and the run with it is a run like any other."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logit

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.membership import MEMBERSHIP_FILE, MembershipHead, laid_out
from model_repo.contract.policy import Policy
from model_repo.pipeline import membership as stage
from model_repo.pipeline.dataset import encode, read_utterances
from model_repo.pipeline.export import export, run_network
from model_repo.pipeline.membership import Embedded, NoMembership, attach, fit_membership, fit_scale
from model_repo.pipeline.network import Checkpoint, load_checkpoint
from model_repo.pipeline.quantise import quantise
from model_repo.pipeline.settings import MembershipSettings, Preset
from model_repo.pipeline.train import load_outputs, plain_tokenizer, train
from model_repo.pipeline.truth import truth_of
from model_repo.store import read_membership
from tests.model_repo.pipeline.tiny import TAXONOMY, tiny_preset, write_base, write_data

SETTINGS = MembershipSettings(16, (1, 2), 40, 1e-2, 0.0, 0.0, 0.1)


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


@pytest.fixture(name="attached", scope="module")
def _attached(run: Path, data: Path, preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attached")
    attach(run, data, folder, preset)
    return folder


def _drawn(n: int, seed: int) -> Embedded:
    """Embeddings of which each of the first three numbers says whether an intent is carried; some carry none."""
    embeddings = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    return Embedded(embeddings, embeddings[:, :3] > 0.3)


def test_network_stays_and_the_outputs_are_those_of_the_head(run: Path, attached: Path) -> None:
    """Of the run that is judged, exported and calibrated."""
    before, after = load_checkpoint(run / "checkpoint"), load_checkpoint(attached / "checkpoint")
    assert before.membership is None
    assert after.membership is not None
    states = zip(before.network.state_dict().values(), after.network.state_dict().values(), strict=True)
    assert all(bool((left == right).all()) for left, right in states)
    for name in ("outputs_validation.npz", "outputs_test.npz"):
        raw, served = load_outputs(run / name), load_outputs(attached / name)
        assert np.allclose(served.logits, after.membership.applied(raw).logits, atol=1e-5)
        assert np.array_equal(served.embeddings, raw.embeddings)


def test_attached_head_finds_the_intent(attached: Path, data: Path) -> None:
    """On utterances it was not fitted on, of which a third would be right by chance."""
    truth = truth_of(read_utterances(data / "test.jsonl"), TAXONOMY)
    scope = ~truth.is_ood
    top = load_outputs(attached / "outputs_test.npz").logits[scope].argmax(axis=1)
    assert truth.targets[scope][np.arange(scope.sum()), top].mean() > 0.9


def test_finished_run_is_kept_and_other_settings_are_not_taken_for_it(
    run: Path, attached: Path, data: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record says what it was made with."""
    assert preset.membership is not None
    record = json.loads((attached / "train.json").read_text(encoding="utf-8"))
    assert record["membership"] == json.loads(json.dumps(asdict(preset.membership)))

    def refused(*_: object) -> MembershipHead:
        raise AssertionError("fitted again")

    monkeypatch.setattr(stage, "fit_membership", refused)
    assert attach(run, data, attached, preset) == attached / "checkpoint"
    with pytest.raises(AssertionError, match="fitted again"):
        attach(run, data, attached, replace(preset, membership=replace(preset.membership, units=3)))


def test_preset_without_it_and_run_with_it_are_refused(
    run: Path, attached: Path, data: Path, preset: Preset, tmp_path: Path
) -> None:
    """Each says which it is."""
    with pytest.raises(NoMembership, match="no \\[membership\\]"):
        attach(run, data, tmp_path, replace(preset, membership=None))
    with pytest.raises(NoMembership, match="already"):
        attach(attached, data, tmp_path, preset)
    assert not list(tmp_path.iterdir())


def test_quantised_run_learns_from_what_it_was_quantised_from(
    run: Path, data: Path, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And keeps its own rounding; the scale is fitted on its own outputs."""
    quantise(run, data, tmp_path / "quantised", preset)
    asked: list[Path] = []

    def loaded(folder: Path) -> Checkpoint:
        asked.append(folder)
        return load_checkpoint(folder)

    monkeypatch.setattr(stage, "load_checkpoint", loaded)
    attach(tmp_path / "quantised", data, tmp_path / "out", preset, embedded_by=run)
    assert asked == [tmp_path / "quantised" / "checkpoint", run / "checkpoint"]
    served = load_outputs(tmp_path / "out" / "outputs_validation.npz")
    assert np.array_equal(served.embeddings, load_outputs(tmp_path / "quantised" / "outputs_validation.npz").embeddings)


def test_artefact_has_the_head_and_decides_as_the_run_does(attached: Path, data: Path, tmp_path: Path) -> None:
    """The file is copied as it is, and both sides of the parity go by it."""
    policy = Policy("1", 1, 1.0, (0.12, 0.12, 0.12), 1.0, 100.0, 0.5, 0.95)
    texts = [u.text for u in read_utterances(data / "test.jsonl")]
    report = export(attached / "checkpoint", tmp_path / "artefact", texts, policy, max_tokens=24)
    assert report.decisions_equal == 1.0
    assert report.max_probability_difference < 0.01
    original = (attached / "checkpoint" / MEMBERSHIP_FILE).read_bytes()
    assert (tmp_path / "artefact" / MEMBERSHIP_FILE).read_bytes() == original
    checkpoint = load_checkpoint(attached / "checkpoint")
    ids = encode(plain_tokenizer(checkpoint.tokenizer_file), texts)
    assert not np.allclose(
        checkpoint.served(run_network(checkpoint.network, ids)).logits, run_network(checkpoint.network, ids).logits
    )
    assert read_membership(tmp_path) is None


def test_two_intents_are_accepted_and_an_unsure_one_is_not() -> None:
    """What one softmax cannot do: memberships learnt from data, laid out, and one threshold for all."""
    head = fit_membership(_drawn(4000, 1), _drawn(500, 2), SETTINGS)
    test = _drawn(2000, 3)
    scope = test.targets.any(axis=1)
    laid = laid_out(head.memberships(test.embeddings[scope]), SETTINGS.reserve)
    accepted = laid >= 1.15 * SETTINGS.reserve
    accepted[np.arange(len(laid)), laid.argmax(axis=1)] = True
    assert (accepted == test.targets[scope]).all(axis=1).mean() > 0.9


def test_scale_is_what_makes_the_top_chance_honest() -> None:
    """Log-odds three times too large are divided by three."""
    rng = np.random.default_rng(6)
    chances = rng.uniform(0.05, 0.95, size=(20_000, 2))
    targets = rng.random(chances.shape) < chances
    odds = np.log(chances) - np.log1p(-chances)
    to_units = np.hstack([np.eye(2), -np.eye(2)])
    identity = MembershipHead(to_units, np.zeros(4), to_units.T, np.zeros(2), 0.1)
    scale = fit_scale(identity, Embedded(odds, targets))
    assert fit_scale(identity, Embedded(3.0 * odds, targets)) == pytest.approx(3.0 * scale, rel=0.01)
    with pytest.raises(CannotMeasure, match="in-scope"):
        fit_scale(identity, Embedded(odds, np.zeros_like(targets)))


def test_mean_of_heads_is_one_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log-odds are the mean of theirs."""
    training, calibration = _drawn(400, 1), _drawn(200, 2)
    monkeypatch.setattr(stage, "fit_scale", lambda *_: 1.0)
    both = fit_membership(training, calibration, SETTINGS)
    assert both.hidden_weights.shape == (8, 32)
    singles = [fit_membership(training, calibration, replace(SETTINGS, seeds=(seed,))) for seed in SETTINGS.seeds]
    of_both, *of_each = (logit(head.memberships(calibration.embeddings)) for head in (both, *singles))
    assert np.allclose(of_both, np.mean(of_each, axis=0), atol=0.05)
