"""One command makes a version that serves: every stage, on generated text."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from model_repo.__main__ import main
from model_repo.pipeline.dataset import read_utterances
from model_repo.pipeline.version import digest_of_version
from model_repo.store import Store
from service.backends.onnx import OnnxBackend
from service.tokenizer import UtteranceTokenizer


@pytest.mark.slow
def test_smoke_preset_runs_every_stage_and_leaves_a_version_that_answers(tmp_path: Path) -> None:
    """Data, training, calibration, export, evaluation, card and promotion; then an utterance through the artefact."""
    main(["run", "--preset", "smoke", "--out", str(tmp_path)])
    store = Store(tmp_path / "versions")
    champion = store.deployment().champion
    version = store.load(champion.version)
    policy = store.policy(champion.version, champion.policy_revision, champion.policy_sha256)
    policy.check_fits(version.manifest.taxonomy)

    figures = version.manifest.metrics["overall"]
    assert figures["intents.accuracy"]["n"] > 100
    # Ten intents: chance is 0.1, and one epoch is far beyond it.
    assert figures["intents.accuracy"]["low"] > 0.3
    assert version.manifest.training["parity"]["decisions_equal"] >= 0.97
    assert version.manifest.training["n_train"] > 1000
    card = version.file("model_card.md").read_text(encoding="utf-8")
    assert "generator" in card
    assert len(digest_of_version(version.manifest)) == 64
    spread = json.loads((tmp_path / "seeds.json").read_text(encoding="utf-8"))
    assert version.manifest.precision == "int8"
    # The version is the run that was trained on in 8 bits, and rounding cost little.
    assert spread["quantised"]["intents.accuracy"] == pytest.approx(figures["intents.accuracy"]["value"], abs=0.01)
    assert spread["by_seed"]["42"]["intents.accuracy"] < figures["intents.accuracy"]["value"] + 0.1
    assert store.reference(champion.version).n > 100

    tokenizer = UtteranceTokenizer(version.file("tokenizer.json"), version.manifest.max_tokens)
    backend = OnnxBackend(version.folder)
    outputs = backend.infer([tokenizer.encode("where is my parcel?")])
    assert outputs.logits.shape == (1, len(version.manifest.taxonomy.intents))
    assert outputs.is_finite()


def test_version_that_ships_is_whole_and_names_no_path_of_a_machine() -> None:
    """Every digest of the champion holds, and its records say nothing of where it was made."""
    store = Store(Path(__file__).parents[2] / "model_repo" / "versions")
    champion = store.deployment().champion
    version = store.load(champion.version)
    store.policy(champion.version, champion.policy_revision, champion.policy_sha256)
    for name in ("manifest.json", "model_card.md", "metrics.json"):
        text = (version.folder / name).read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(home|root|tmp|mnt|Users)/", text)


def test_version_3_is_the_network_of_version_2() -> None:
    """Its card gives the figures of version 2: on any machine both give the same logits, to the last bit."""
    repository = Path(__file__).parents[2] / "model_repo"
    store = Store(repository / "versions")
    files = sorted((repository / "data" / "manga_authored").glob("*.jsonl"))
    messages = [utterance.text for file in files for utterance in read_utterances(file)][::60]
    logits = []
    for name in ("2", "3"):
        version = store.load(name)
        tokenizer = UtteranceTokenizer(version.file("tokenizer.json"), version.manifest.max_tokens)
        logits.append(OnnxBackend(version.folder).infer([tokenizer.encode(text) for text in messages]).logits)
    assert len(messages) > 150
    np.testing.assert_array_equal(logits[0], logits[1])
