"""Public sets are read for what they are, and the outputs of a model are computed once."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_repo.store import LoadedVersion, Store
from monitoring.replay_text import (
    CLINC150,
    CUT,
    CUT_AFTER,
    FEWEST_NEW,
    HINT3,
    MULTIDOGO,
    NEW,
    OWN,
    corpus_of,
    read_texts,
)
from monitoring.service_replay import ROOT

OWN_ROWS = [
    {"text": "where is my order, and is there a code for box sets?", "intents": ["order_tracking", "promotion"]},
    {"text": "will it rain tomorrow in osaka?", "intents": []},
]


def written(folder: Path) -> tuple[Path, list[Path]]:
    """Sets of a few lines, and messages of the shop."""
    many = [{"text": f"sing {index}", "labels": ["sing"]} for index in range(FEWEST_NEW)]
    sets = {
        "clinc150/oos_test.jsonl": [{"text": "how deep is the sea", "labels": ["oos"]}],
        "clinc150/test.jsonl": [*many, {"text": "hum a tune", "labels": ["hum"]}, {"text": "hi", "labels": ["hello"]}],
        "hint3_curekart/all.jsonl": [
            {"text": "where is my parcel", "labels": ["ORDER_STATUS"], "split": "test"},
            {"text": "a training example", "labels": ["ORDER_STATUS"], "split": "train"},
            {"text": "my address is wrong", "labels": ["MODIFY_ADDRESS"], "split": "test"},
        ],
        "hint3_sofmattress/all.jsonl": [
            {"text": f"try it {index}", "labels": ["100_NIGHT_TRIAL_OFFER"], "split": "train"}
            for index in range(FEWEST_NEW)
        ],
        "multidogo/fastfood.jsonl": [
            {"text": "a bill please", "labels": ["viewbillsintent"], "split": "dev"},
            {"text": "seen in training", "labels": ["viewbillsintent"], "split": "train"},
            {"text": "hello", "labels": ["openinggreeting"], "split": "test"},
        ],
    }
    strong, weak = {"target": "order_tracking", "fit": "strong"}, {"target": "order_tracking", "fit": "weak"}
    maps = {
        "clinc150": {"hello": {"target": "chitchat", "fit": "strong"}, "*": {"target": "ood", "fit": "strong"}},
        "hint3_curekart": {"ORDER_STATUS": strong, "MODIFY_ADDRESS": weak},
        "hint3_sofmattress": {"100_NIGHT_TRIAL_OFFER": {"target": "promotion", "fit": "weak"}},
        "multidogo": {
            "openinggreeting": {"target": "chitchat", "fit": "strong"},
            "*": {"target": "ood", "fit": "strong"},
        },
    }
    for name, rows in {**sets, "own.jsonl": [{**row, "lang": "en"} for row in OWN_ROWS]}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "label_map.json").write_text(json.dumps({"datasets": maps}), encoding="utf-8")
    return folder, [folder / "own.jsonl"]


def test_each_message_is_taken_for_what_it_is(tmp_path: Path) -> None:
    """Held-out rows of what is mapped for certain; an intent of too few messages is left out."""
    texts = read_texts(*written(tmp_path))
    by_part: dict[str, list[str]] = {}
    for one in texts:
        by_part.setdefault(one.part, []).append(one.text)
    assert by_part[OWN] == [row["text"] for row in OWN_ROWS]
    assert by_part[CUT] == [str(row["text"])[:CUT_AFTER] for row in OWN_ROWS]
    assert by_part[HINT3] == ["where is my parcel"]
    assert by_part[CLINC150] == ["how deep is the sea"]
    assert by_part[MULTIDOGO] == ["a bill please"]
    assert {part for part in by_part if part.startswith(NEW)} == {
        f"{NEW}clinc150 sing",
        f"{NEW}hint3_sofmattress 100_NIGHT_TRIAL_OFFER",
    }
    assert [one.labels for one in texts[:2]] == [("order_tracking", "promotion"), ("ood",)]
    assert {one.filed_under for one in texts if "TRIAL" in one.part} == {"promotion"}


@pytest.fixture(scope="module")
def version() -> LoadedVersion:
    """The one that ships."""
    return Store(ROOT / "model_repo" / "versions").load("1")


def test_outputs_are_those_of_the_version_and_are_kept(tmp_path: Path, version: LoadedVersion) -> None:
    """A second look reads them; other texts are computed anew."""
    texts = read_texts(*written(tmp_path))
    corpus = corpus_of(texts, version, tmp_path / "cache")
    (of_hint3,) = corpus.of(HINT3)
    assert corpus.taxonomy.intents[corpus.outputs.logits[of_hint3].argmax()] == "order_tracking"
    assert corpus.truth[0].nonzero()[0].tolist() == sorted(map(corpus.taxonomy.index, OWN_ROWS[0]["intents"]))
    assert corpus.truth[1].nonzero()[0].tolist() == [len(corpus.taxonomy.intents)]
    assert corpus.n_tokens[0] > corpus.n_tokens[2]
    assert corpus.of(CUT).tolist() == [2, 3]
    (kept,) = (tmp_path / "cache").iterdir()
    before = kept.stat().st_mtime_ns
    again = corpus_of(texts, version, tmp_path / "cache")
    assert np.array_equal(again.outputs.embeddings, corpus.outputs.embeddings)
    assert kept.stat().st_mtime_ns == before
    corpus_of([replace(texts[0], text="hello"), *texts[1:]], version, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2
