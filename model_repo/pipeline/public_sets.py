"""Public benchmark sets with their publishers' own labels, as train / validation / test of labelled utterances."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model_repo.contract.labels import LabelledUtterance, Taxonomy
from model_repo.pipeline.splits import split

REJECTED = ("oos", "NO_NODES_DETECTED")
"""What the publishers write where no intent of theirs fits."""


@dataclass(frozen=True)
class PublicSet:
    """A benchmark ready to train on: its own taxonomy, and where its test figures are read."""

    name: str
    taxonomy: Taxonomy
    train: Sequence[LabelledUtterance]
    validation: Sequence[LabelledUtterance]
    test: Sequence[LabelledUtterance]


def load_public_set(name: str, data: Path) -> PublicSet:
    """
    ``clinc150``, ``mixsnips``, ``hint3_curekart`` or ``hint3_sofmattress`` out of the folder of public text.

    Raises KeyError for another name and FileNotFoundError naming the missing folder.
    """
    folder = data / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder.name} is not in the data folder (--data or MANGA_DATA)")
    return _LOADERS[name](folder)


def _clinc150(folder: Path) -> PublicSet:
    """The full set, as upstream splits it; of the out-of-scope training text the part oos_train_plus alone."""
    train = [*_read(folder / "train.jsonl"), *_read(folder / "oos_train_plus.jsonl")]
    validation = [*_read(folder / "val.jsonl"), *_read(folder / "oos_val.jsonl")]
    test = [*_read(folder / "test.jsonl"), *_read(folder / "oos_test.jsonl")]
    return _public_set("clinc150", train, validation, test)


def _mixsnips(folder: Path) -> PublicSet:
    train, validation, test = (_read(folder / f"{part}.jsonl") for part in ("train", "dev", "test"))
    return _public_set("mixsnips", train, validation, test)


def _hint3(folder: Path) -> PublicSet:
    """
    Bot training examples to train on, live customer messages to test on. There is no validation part upstream:
    a tenth of the training examples is held out. No out-of-scope utterance is ever trained on.
    """
    rows = _read(folder / "all.jsonl")
    examples = [u for u in rows if u.group == "train"]
    parts = split(examples, seed=42, tenths=(9, 1, 0))
    train = [u for u, part in zip(examples, parts, strict=True) if part == "train"]
    held_out = [u for u, part in zip(examples, parts, strict=True) if part != "train"]
    return _public_set(folder.name, train, held_out, [u for u in rows if u.group == "test"])


_LOADERS: dict[str, Callable[[Path], PublicSet]] = {
    "clinc150": _clinc150,
    "mixsnips": _mixsnips,
    "hint3_curekart": _hint3,
    "hint3_sofmattress": _hint3,
}


def _public_set(
    name: str,
    train: Sequence[LabelledUtterance],
    validation: Sequence[LabelledUtterance],
    test: Sequence[LabelledUtterance],
) -> PublicSet:
    intents = sorted({intent for u in train for intent in u.intents})
    return PublicSet(name, Taxonomy(tuple(intents)), train, validation, _known(test, frozenset(intents)))


def _known(test: Sequence[LabelledUtterance], intents: frozenset[str]) -> list[LabelledUtterance]:
    """Test utterances whose intent was never in training count as ood: no system could name it."""
    return [u if set(u.intents) <= intents else replace(u, intents=(), is_ood=True) for u in test]


def _read(file: Path) -> list[LabelledUtterance]:
    with file.open(encoding="utf-8") as lines:
        return [_utterance(json.loads(line), file.parent.name) for line in lines if line.strip()]


def _utterance(row: dict[str, Any], source: str) -> LabelledUtterance:
    labels = tuple(label for label in row["labels"] if label not in REJECTED)
    return LabelledUtterance(
        text=row["text"],
        intents=labels,
        is_ood=not labels,
        age_sensitive=None,
        source=source,
        origin="live" if "live" in row.get("origin", "") else "authored",
        group=row["split"],
    )
