"""Public sets beside the authored messages: what is known of each, our reading of its labels, its rows."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_repo.contract.labels import LANGUAGES, OOD, ORIGINS, Taxonomy

DATA = Path(__file__).parents[1] / "data"
DROP = "drop"
ADAPTED = "adapted"
"""The entry of a label map that says what a search means once its goods are changed to manga."""


class BadSources(ValueError):
    """The table of sources or the label map has an unknown key, label target, origin or language."""


@dataclass(frozen=True)
class Source:
    """One public set, and whether a version trained on it may ship."""

    name: str
    repository: str
    licence: str
    ships: bool
    reason: str
    origin: str
    files: tuple[str, ...]
    lang: str = "en"
    lang_field: bool = False
    """True when each row names its own language."""
    age_known: bool = True
    """False when rows may be age-sensitive and nobody looked."""
    splits: tuple[str, ...] = ()
    """The publisher's splits to read; empty for all."""


@dataclass(frozen=True)
class SourceRow:
    """One row of a public set with the label we read into it."""

    text: str
    label: str
    """The publisher's, or ``topic_N``."""
    target: str
    """An intent of the taxonomy, or ood."""
    lang: str


LabelMap = Mapping[str, Mapping[str, str]]


def read_sources(file: Path = DATA / "sources.toml") -> dict[str, Source]:
    """Every public set the mixture may name, by folder; raises BadSources."""
    sources = {}
    for name, table in tomllib.loads(file.read_text(encoding="utf-8")).items():
        try:
            settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
            source = Source(name=name, **settings)
        except TypeError as error:
            raise BadSources(f"{file.name}: [{name}] {error}") from None
        if source.origin not in ORIGINS or source.lang not in LANGUAGES:
            raise BadSources(f"{file.name}: [{name}] has origin {source.origin!r} and lang {source.lang!r}")
        sources[name] = source
    return sources


def read_label_map(taxonomy: Taxonomy, file: Path = DATA / "label_map.toml") -> LabelMap:
    """Publisher's label -> intent, ood or drop, by set; raises BadSources for a target the taxonomy lacks."""
    label_map: LabelMap = tomllib.loads(file.read_text(encoding="utf-8"))
    allowed = {*taxonomy.intents, OOD, DROP}
    for name, table in label_map.items():
        for label, target in table.items():
            if target not in allowed:
                known = ", ".join(sorted(allowed))
                raise BadSources(f"{file.name}: [{name}] {label} = {target!r}; a target is one of {known}")
    return label_map


def read_rows(source: Source, folder: Path, label_map: LabelMap) -> Iterator[SourceRow]:
    """
    Rows of a set with a usable label, in file order: several labels are kept only when they mean one target.

    Raises FileNotFoundError naming the missing file.
    """
    table = label_map[source.name]
    for name in source.files:
        with (folder / source.name / name).open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if source.splits and row["split"] not in source.splits:
                    continue
                labels = _labels(row)
                targets = {target_of(table, label) for label in labels}
                if len(targets) == 1 and (target := targets.pop()) != DROP:
                    lang = row["lang"] if source.lang_field else source.lang
                    yield SourceRow(" ".join(row["text"].split()), labels[0], target, lang)


def target_of(table: Mapping[str, str], label: str) -> str:
    """What a publisher's label means to us."""
    return table.get(label, table.get("default", DROP))


def _labels(row: Mapping[str, Any]) -> list[str]:
    """The publisher's labels, unlisted when there are none; small talk has a topic number, which says more."""
    return [f"topic_{row['topic']}"] if "topic" in row else row["labels"] or ["default"]
