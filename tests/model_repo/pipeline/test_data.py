"""The data stage keeps what judges apart, names what is missing, and leaves a folder that training can read."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from model_repo.contract.labels import LabelledUtterance, Taxonomy
from model_repo.pipeline.composing import ComposingSettings
from model_repo.pipeline.data import (
    AUTHORED,
    SUPPLEMENT,
    build,
    composed_messages,
    digest,
    find_data_folder,
    gather,
    keep_apart,
    read_authored,
    read_taxonomy,
    spread,
)
from model_repo.pipeline.dataset import read_utterances
from model_repo.pipeline.grammar import read_grammar
from model_repo.pipeline.mixture import Mixture
from model_repo.pipeline.sources import DATA

GRAMMAR = read_grammar(DATA / "grammar")


def _utterance(text: str) -> LabelledUtterance:
    return LabelledUtterance(text, ("faq",), False)


def _mixture(unshippable: bool = False) -> Mixture:
    sources = {"clinc150": {"ood": 3}, "bitext_customer_support": {"faq": 3}}
    return Mixture("m", authored=True, unshippable=unshippable, generator=None, sources=sources)


def _clinc(folder: Path) -> Path:
    (folder / "clinc150").mkdir()
    for name in ("train", "val", "oos_train", "oos_train_plus", "oos_val"):
        rows = [{"text": f"how deep is lake {name} {i}", "labels": ["oos"], "split": name} for i in range(2)]
        file = folder / "clinc150" / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_authored_messages_are_all_there_in_eighteen_voices() -> None:
    """As the datasheet counts them."""
    authored = read_authored()
    datasheet = (DATA / "manga_authored" / "DATASHEET.md").read_text(encoding="utf-8")
    assert f"**How many?** {len(authored):,}, in eighteen files" in datasheet
    assert len({u.group for u in authored}) == 18
    assert {u.main_label for u in authored} == {*read_taxonomy().intents, "ood"}


def test_supplement_is_all_there_in_its_voices() -> None:
    """As its datasheet counts it."""
    supplement = read_authored(SUPPLEMENT)
    datasheet = (DATA / SUPPLEMENT / "DATASHEET.md").read_text(encoding="utf-8")
    assert f"**How many?** {len(supplement):,}, in twenty-six files" in datasheet
    assert len({u.group for u in supplement}) == 26
    assert {u.main_label for u in supplement} == {*read_taxonomy().intents, "ood"}


def test_supplement_only_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What judges is authored text as before; the version may ship. On a part of each voice, for time."""
    whole = {name: read_authored(name) for name in (AUTHORED, SUPPLEMENT)}
    parts = {name: [u for i, u in enumerate(rows) if i % 20 == 0] for name, rows in whole.items()}
    parts[SUPPLEMENT].append(replace(parts[AUTHORED][0], source=SUPPLEMENT, intents=("faq",)))
    monkeypatch.setattr("model_repo.pipeline.data.read_authored", lambda name=AUTHORED: parts[name])
    monkeypatch.setattr("model_repo.pipeline.data.read_corrections", dict)
    report = build(None, tmp_path)
    of_supplement = {name: part.by_source.get(SUPPLEMENT, 0) for name, part in report.splits.items()}
    assert 0.98 * len(parts[SUPPLEMENT]) < of_supplement["train"] < len(parts[SUPPLEMENT])
    assert (of_supplement["validation"], of_supplement["test"]) == (0, 0)
    assert set(report.splits["test"].by_source) == {AUTHORED}
    assert sum(part.by_source[AUTHORED] for part in report.splits.values()) == len(parts[AUTHORED])
    assert report.near_duplicates_crossing_splits == 0
    assert report.ships


def test_missing_sets_are_named_with_the_place_where_they_are_published(capsys: pytest.CaptureFixture[str]) -> None:
    """The stage goes on with what it has."""
    gathered = gather(_mixture(), None, read_taxonomy(), GRAMMAR, seed=1)
    assert gathered.utterances == []
    assert "clinc150 is missing; published in the repository clinc/oos-eval" in capsys.readouterr().out


def test_set_whose_licence_forbids_shipping_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    """The reason is told; asked for, it is merely missing here."""
    folder = _clinc(tmp_path)
    refused = gather(_mixture(), folder, read_taxonomy(), GRAMMAR, seed=1)
    assert [note for note in refused.notes if "bitext_customer_support left out: CDLA-Sharing" in note]
    asked = gather(_mixture(unshippable=True), folder, read_taxonomy(), GRAMMAR, seed=1)
    assert [note for note in asked.notes if "bitext_customer_support is missing" in note]


def test_public_text_is_capped_and_keeps_its_provenance(tmp_path: Path) -> None:
    """Three of ten rows, labelled and named."""
    gathered = gather(_mixture(), _clinc(tmp_path), read_taxonomy(), GRAMMAR, seed=1)
    assert len(gathered.utterances) == 3
    assert {(u.source, u.origin, u.is_ood) for u in gathered.utterances} == {("clinc150", "authored", True)}


def test_near_duplicates_of_what_judges_are_dropped() -> None:
    """And repetitions of what is already there; the rest stays in order."""
    candidates = [
        _utterance("how long does a parcel to norway take, please?"),
        _utterance("Do you take cheques"),
        _utterance("do you take cheques?"),
        _utterance("is there an app for old phones"),
    ]
    held_out = ["how long does a parcel to norway take please"]
    kept, dropped = keep_apart(candidates, ["is there an app for old phones?", *held_out], held_out)
    assert [u.text for u in kept] == ["Do you take cheques"]
    assert dropped == {"duplicates": 3, "near_duplicates_of_held_out": 0}
    close = [_utterance("how long does a parcel to norway take, pleases")]
    assert keep_apart(close, held_out, held_out) == ([], {"duplicates": 0, "near_duplicates_of_held_out": 1})


def test_nothing_that_judges_is_composed_into_training() -> None:
    """Half of a held-out message behind another one is too unlike it for the near-duplicate filter to see."""
    mixture = Mixture("m", True, False, generator=None, composed=ComposingSettings(200))
    authored = [
        LabelledUtterance(f"{part} message {i} about {intent}", (intent,), False)
        for part in ("train", "validation", "test")
        for intent in ("faq", "promotion")
        for i in range(6)
    ]
    composed = composed_messages(mixture, authored, [u.text.split()[0] for u in authored], GRAMMAR, seed=1)
    assert composed
    assert not [u.text for u in composed if "validation" in u.text or "test" in u.text]
    assert composed_messages(_mixture(), authored, ["train"] * len(authored), GRAMMAR, seed=1) == []


def test_cap_is_spread_over_the_labels_of_the_publisher() -> None:
    """A label of a hundred rows does not drown one of two."""
    by_label = {"big": [_utterance(f"b{i}") for i in range(100)], "small": [_utterance("s0"), _utterance("s1")]}
    taken = [u.text for u in spread(by_label, 6, random.Random(0))]
    assert len(taken) == 6
    assert {"s0", "s1"} <= set(taken)


def test_data_folder_comes_from_the_option_then_from_the_environment(tmp_path: Path) -> None:
    """A folder that is named and not there is an error, not an empty mixture."""
    other = tmp_path / "other"
    other.mkdir()
    assert find_data_folder(None, {}) is None
    assert find_data_folder(None, {"MANGA_DATA": str(tmp_path)}) == tmp_path
    assert find_data_folder(other, {"MANGA_DATA": str(tmp_path)}) == other
    with pytest.raises(FileNotFoundError, match="MANGA_DATA"):
        find_data_folder(None, {"MANGA_DATA": str(tmp_path / "gone")})


@pytest.mark.slow
def test_smoke_leaves_a_folder_that_training_can_read(tmp_path: Path) -> None:
    """Three splits without a straddling near-duplicate, a taxonomy, a report with digests, and a card."""
    report = build(None, tmp_path, seed=42, preset="smoke")
    assert report.near_duplicates_crossing_splits == 0
    for name, counts in report.splits.items():
        rows = read_utterances(tmp_path / f"{name}.jsonl")
        assert len(rows) == counts.total > 0
        assert {u.source for u in rows} == {"generator"}
        assert report.sha256[f"{name}.jsonl"] == digest(tmp_path / f"{name}.jsonl")
    taxonomy = Taxonomy.from_json(json.loads((tmp_path / "taxonomy.json").read_text(encoding="utf-8")))
    assert taxonomy == read_taxonomy()
    assert {*taxonomy.intents, "ood"} == set(report.splits["test"].by_label)
    assert "# Data card: mixture `smoke`" in (tmp_path / "data_card.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "data_report.json").read_text(encoding="utf-8"))["seed"] == 42
