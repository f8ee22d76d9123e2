"""
Labels of authored messages that contradict a border ruling, set right: in the training split only.

Validation and test keep their writer's labels, right or wrong: nobody who has seen a model's answers touches them.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model_repo.contract.labels import LabelledUtterance
from model_repo.pipeline.sources import DATA


class BadCorrection(ValueError):
    """A correction names a message that is not there, or a label that it does not have (any more)."""


@dataclass(frozen=True)
class Correction:
    """The message by its text, what it was, what it is, and the ruling that says so."""

    text: str
    was: tuple[str, ...]
    intents: tuple[str, ...]
    reason: str


def read_corrections(file: Path = DATA / "corrections.toml") -> dict[str, Correction]:
    """By text; raises BadCorrection for a text that stands twice or a correction that changes nothing."""
    corrections: dict[str, Correction] = {}
    for table in tomllib.loads(file.read_text(encoding="utf-8"))["correction"]:
        correction = Correction(table["text"], tuple(table["was"]), tuple(table["intents"]), table["reason"])
        if correction.text in corrections:
            raise BadCorrection(f"two corrections for {correction.text!r}")
        if correction.was == correction.intents:
            raise BadCorrection(f"changes nothing: {correction.text!r}")
        corrections[correction.text] = correction
    return corrections


def correct(
    utterances: Sequence[LabelledUtterance], splits: Sequence[str], corrections: Mapping[str, Correction]
) -> tuple[list[LabelledUtterance], int]:
    """The utterances with training labels set right, and how many were; raises BadCorrection."""
    unknown = set(corrections) - {u.text for u in utterances}
    if unknown:
        raise BadCorrection(f"no authored message reads {min(unknown)!r}")
    corrected, applied = [], 0
    for utterance, part in zip(utterances, splits, strict=True):
        correction = corrections.get(utterance.text)
        if correction is None or part != "train":
            corrected.append(utterance)
            continue
        if utterance.intents != correction.was:
            raise BadCorrection(f"{utterance.text!r} has {utterance.intents}, the correction expects {correction.was}")
        corrected.append(replace(utterance, intents=correction.intents, is_ood=not correction.intents))
        applied += 1
    return corrected, applied
