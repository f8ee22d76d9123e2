"""The taxonomy of a model version, and a labelled utterance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model_repo.contract.errors import BadTaxonomy, BadUtterance

OOD = "ood"
"""The one reserved name: what a decision says when no intent of the taxonomy fits."""

LANGUAGES = ("en", "ja", "mix")
ORIGINS = ("live", "authored", "generated", "synthetic")


@dataclass(frozen=True)
class Taxonomy:
    """
    The intents of a model version, in the order of its logits.

    Nothing else in the code knows an intent by name: they come from the version.
    """

    intents: tuple[str, ...]
    high_risk: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if len(self.intents) < 2:
            raise BadTaxonomy(f"a taxonomy needs two intents or more, got {len(self.intents)}")
        if len(set(self.intents)) != len(self.intents):
            raise BadTaxonomy("intent names must be distinct")
        if OOD in self.intents:
            raise BadTaxonomy(f"{OOD!r} is reserved for what is outside the taxonomy")
        unknown = self.high_risk - set(self.intents)
        if unknown:
            raise BadTaxonomy(f"high-risk intents not in the taxonomy: {sorted(unknown)}")

    def index(self, intent: str) -> int:
        """Position of the intent's logit; raises BadTaxonomy for an unknown name."""
        try:
            return self.intents.index(intent)
        except ValueError:
            raise BadTaxonomy(f"unknown intent {intent!r}; known: {', '.join(self.intents)}") from None

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {"intents": list(self.intents), "high_risk": sorted(self.high_risk)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Taxonomy":
        """Inverse of ``to_json``; raises BadTaxonomy."""
        return Taxonomy(tuple(data["intents"]), frozenset(data.get("high_risk", ())))


@dataclass(frozen=True)
class LabelledUtterance:
    """
    One utterance with what a person at the desk would have to act on.

    ``intents`` is empty exactly when ``is_ood``; the first intent is the main one.
    ``origin`` says who wrote it: ``live`` customers, ``authored`` (crowd or editorial),
    ``generated`` (machine-expanded by the publisher) or ``synthetic`` (our own generator).
    """

    text: str
    intents: tuple[str, ...]
    is_ood: bool
    age_sensitive: bool | None = False
    lang: str = "en"
    source: str = "unknown"
    origin: str = "authored"
    group: str = field(default="", compare=False)
    """What must not straddle a split besides near-duplicates, and what splits are stratified by."""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise BadUtterance("text is blank")
        if self.is_ood == bool(self.intents):
            raise BadUtterance(f"intents must be empty exactly when ood is true: {self.text!r}")
        if self.lang not in LANGUAGES:
            raise BadUtterance(f"lang must be one of {', '.join(LANGUAGES)}, got {self.lang!r}")
        if self.origin not in ORIGINS:
            raise BadUtterance(f"origin must be one of {', '.join(ORIGINS)}, got {self.origin!r}")

    @property
    def main_label(self) -> str:
        """The main intent, or ``ood``."""
        return self.intents[0] if self.intents else OOD

    def to_json(self) -> dict[str, Any]:
        """The record format of the taxonomy, plus where the utterance comes from."""
        return {
            "text": self.text,
            "intents": list(self.intents),
            "ood": self.is_ood,
            "age_sensitive": self.age_sensitive,
            "lang": self.lang,
            "source": self.source,
            "origin": self.origin,
            "group": self.group,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "LabelledUtterance":
        """Inverse of ``to_json``; raises BadUtterance naming the missing field."""
        try:
            return LabelledUtterance(
                text=data["text"],
                intents=tuple(data["intents"]),
                is_ood=data["ood"],
                age_sensitive=data.get("age_sensitive", False),
                lang=data.get("lang", "en"),
                source=data.get("source", "unknown"),
                origin=data.get("origin", "authored"),
                group=data.get("group", ""),
            )
        except KeyError as missing:
            raise BadUtterance(f"a labelled utterance needs the field {missing}") from None
