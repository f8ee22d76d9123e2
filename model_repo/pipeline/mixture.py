"""Which text makes a data set: a named table of ``presets/data.toml``."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_repo.contract.labels import OOD, Taxonomy
from model_repo.pipeline.composing import ComposingSettings
from model_repo.pipeline.generator import GeneratorSettings
from model_repo.pipeline.settings import PRESETS, BadPreset

MIXTURES = PRESETS / "data.toml"
KEYS = {"authored", "supplement", "unshippable", "composed", "generator", "sources"}


@dataclass(frozen=True)
class Mixture:
    """What goes into the splits. Public text only ever goes into training."""

    name: str
    authored: bool
    """False makes all three splits of generated text."""
    unshippable: bool
    """True lets sets in whose licence forbids shipping: for measuring only."""
    generator: GeneratorSettings | None
    sources: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Public set -> label -> most utterances of it."""
    composed: ComposingSettings | None = None
    """Messages of two intents put together from authored training messages."""
    supplement: bool = False
    """Whether the authored messages that only train are among them."""


def read_mixture(name: str, file: Path = MIXTURES) -> Mixture:
    """Read one table; raises BadPreset naming the key."""
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    if name not in tables:
        raise BadPreset(f"no mixture {name!r} in {file.name}; known: {', '.join(tables)}")
    table: dict[str, Any] = tables[name]
    odd = set(table) - KEYS
    if odd or "authored" not in table or "unshippable" not in table:
        got, known = ", ".join(sorted(table)), ", ".join(sorted(KEYS))
        raise BadPreset(f"{file.name}: [{name}] needs authored and unshippable, and may have of {known}; got {got}")
    added = any(table.get(key) for key in ("supplement", "sources", "composed"))
    if not table["authored"] and ("generator" not in table or added):
        raise BadPreset(f"{file.name}: [{name}] without authored messages must have a generator, and nothing else")
    return Mixture(
        name=name,
        authored=table["authored"],
        unshippable=table["unshippable"],
        generator=_generator(table["generator"], f"{file.name}: [{name}.generator]") if "generator" in table else None,
        sources=table.get("sources", {}),
        composed=_composing(table["composed"], f"{file.name}: [{name}.composed]") if "composed" in table else None,
        supplement=table.get("supplement", False),
    )


def check_labels(mixture: Mixture, taxonomy: Taxonomy) -> None:
    """Raises BadPreset for a label that is no intent of the taxonomy, nor ood."""
    named = {label for caps in mixture.sources.values() for label in caps}
    named |= set(mixture.generator.labels) if mixture.generator else set()
    named |= set(mixture.composed.alone) if mixture.composed else set()
    unknown = named - {*taxonomy.intents, OOD}
    if unknown:
        raise BadPreset(f"mixture {mixture.name!r} names labels the taxonomy lacks: {', '.join(sorted(unknown))}")


def _composing(table: Mapping[str, Any], where: str) -> ComposingSettings:
    try:
        settings = ComposingSettings(**{**table, "alone": tuple(table.get("alone", ()))})
    except TypeError as error:
        raise BadPreset(f"{where} {error}") from None
    if settings.count < 1:
        raise BadPreset(f"{where}: count must be at least 1, got {settings.count}")
    return settings


def _generator(table: Mapping[str, Any], where: str) -> GeneratorSettings:
    try:
        settings = GeneratorSettings(**table)
    except TypeError as error:
        raise BadPreset(f"{where} {error}") from None
    shares = {"multi": settings.multi, "japanese": settings.japanese, "mixed": settings.mixed}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise BadPreset(f"{where}: {name} must be between 0 and 1, got {share}")
    if settings.count < 1 or settings.japanese + settings.mixed > 1:
        raise BadPreset(f"{where}: count must be at least 1, and japanese + mixed at most 1")
    return settings
