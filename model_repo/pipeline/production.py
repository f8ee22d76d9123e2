"""
Labels of production: utterances of customers with what turned out to be right, added to the training split alone.

One JSON object a line, in the record format of the taxonomy: ``text``, ``intents``, ``ood``, ``lang``, and
``age_sensitive`` where it is known; other fields are for people. What judges stays as it was, so that a version
trained on them can be compared with those before.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_repo.contract.errors import BadUtterance
from model_repo.contract.labels import LANGUAGES, LabelledUtterance, Taxonomy

SOURCE = "production"
ORIGIN = "live"
LONGEST = 2000
"""Characters, as the service admits them."""


def read_production(file: Path, taxonomy: Taxonomy) -> list[LabelledUtterance]:
    """
    Every line, in order; raises BadUtterance naming the first line and field that is wrong, and FileNotFoundError.

    Nothing is passed over: half a file of labels would train on what somebody did not mean.
    """
    utterances = []
    with file.open(encoding="utf-8") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    utterances.append(_utterance(line, taxonomy, f"{file.name}, line {number}"))
        except UnicodeDecodeError as wrong:
            raise BadUtterance(f"{file.name} is not UTF-8: {wrong}") from wrong
    return utterances


def _utterance(line: str, taxonomy: Taxonomy, where: str) -> LabelledUtterance:
    try:
        row = json.loads(line)
    except ValueError as wrong:
        raise BadUtterance(f"{where}: not JSON: {wrong}") from wrong
    if not isinstance(row, dict):
        raise BadUtterance(f"{where}: must be a JSON object, got {type(row).__name__}")
    for field, fault in _faults(row, taxonomy).items():
        if fault:
            raise BadUtterance(f"{where}: {field} {fault}")
    return LabelledUtterance(
        text=row["text"],
        intents=tuple(row["intents"]),
        is_ood=row["ood"],
        age_sensitive=row.get("age_sensitive"),
        lang=row["lang"],
        source=SOURCE,
        origin=ORIGIN,
        group=SOURCE,
    )


def _faults(row: Mapping[str, Any], taxonomy: Taxonomy) -> dict[str, str]:
    """What is wrong with each field; nothing for one that is well."""
    intents, ood, lang, age = (row.get(name) for name in ("intents", "ood", "lang", "age_sensitive"))
    is_ood_well = isinstance(ood, bool) and ood != bool(intents)
    return {
        "text": _text_fault(row.get("text")),
        "intents": _intents_fault(intents, taxonomy),
        "ood": "" if is_ood_well else _said("true exactly when intents is empty, else false", ood),
        "lang": "" if lang in LANGUAGES else _said(f"one of {', '.join(LANGUAGES)}", lang),
        "age_sensitive": "" if age is None or isinstance(age, bool) else _said("true, false or null", age),
    }


def _text_fault(text: object) -> str:
    if isinstance(text, str) and text.strip() and len(text) <= LONGEST:
        return ""
    if isinstance(text, str) and text.strip():
        return f"must have at most {LONGEST} characters, got {len(text)}"
    return _said("a text that is not blank", text)


def _intents_fault(intents: object, taxonomy: Taxonomy) -> str:
    if not isinstance(intents, Sequence) or isinstance(intents, str):
        return _said("a list of intents", intents)
    unknown = [intent for intent in intents if intent not in taxonomy.intents]
    if unknown:
        return f"must be of the taxonomy ({', '.join(taxonomy.intents)}), got {unknown[0]!r}"
    return "" if len(set(intents)) == len(intents) else f"names an intent twice: {', '.join(intents)}"


def _said(allowed: str, got: object) -> str:
    return f"must be {allowed}, got {got!r:.60}"
