"""
Messages of intents that a model does not know, among its own and ordinary noise, out of the folder of public text.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monitoring.service_replay import Asked

NOISE = 100
"""Messages of either kind."""
IN_SCOPE = 1_250
SPLIT_SEED = 7
"""Of the two halves of CLINC150's intents; the rules of ``clusters`` were chosen on the first."""
NEW = "new: "


@dataclass(frozen=True)
class Message:
    """One message and what it is."""

    asked: Asked
    truth: str
    """The publisher's label after where it is from, as in ``new: spelling``."""


def halves(intents: Sequence[str]) -> dict[str, list[str]]:
    """The intents that the rules were chosen on, and the others."""
    mixed = [intents[index] for index in np.random.default_rng(SPLIT_SEED).permutation(len(intents))]
    return {"chosen-on": mixed[: len(mixed) // 2], "held-out": mixed[len(mixed) // 2 :]}


def clinc150(data: Path) -> tuple[dict[str, list[Message]], list[Message]]:
    """The test messages of each intent, and the noise of a draw that has some."""
    intents: dict[str, list[Message]] = {}
    for number, row in enumerate(_rows(data / "clinc150" / "test.jsonl")):
        intent = row["labels"][0]
        intents.setdefault(intent, []).append(Message(Asked(f"clinc-{number}", row["text"]), NEW + intent))
    rng = np.random.default_rng(SPLIT_SEED)
    noise = []
    for name, file in (("ood", data / "clinc150" / "oos_test.jsonl"), ("chat", data / "ms_chitchat_en" / "all.jsonl")):
        rows = list(_rows(file))
        noise += [
            Message(Asked(f"{name}-{number}", rows[number]["text"]), f"noise: {name}")
            for number in rng.choice(len(rows), NOISE, replace=False)
        ]
    return intents, noise


def is_unknown(data: Path, intent: str) -> bool:
    """Whether the map of the public sets sends the intent to ood, as far as it sends it anywhere."""
    labels = json.loads((data / "label_map.json").read_text(encoding="utf-8"))["datasets"]["clinc150"]
    return bool(labels.get(intent, {"target": "ood"})["target"] == "ood")


def in_scope_messages(data: Path, file: Path | None) -> list[Message]:
    """Messages of the model's own domain, its own ood included."""
    files = [file] if file else sorted((data / "manga_authored").glob("*.jsonl"))
    rows = [row for one in files for row in _rows(one)]
    if file is None:
        rows = [rows[index] for index in np.random.default_rng(SPLIT_SEED).choice(len(rows), IN_SCOPE, replace=False)]
    return [
        Message(Asked(f"own-{number}", row["text"]), f"own: {(row['intents'] or ['ood'])[0]}")
        for number, row in enumerate(rows)
    ]


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
