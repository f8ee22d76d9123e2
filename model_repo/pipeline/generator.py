"""
Synthetic messages of our own writing, for where text is thin: exact labels by construction, one seed for all of them.

A message is one template, or two or three templates of different intents joined the way people join them, typed by
one of several hands. It is training text; only the smoke preset is judged by it, and proves no more than that it runs.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from model_repo.contract.labels import OOD, LabelledUtterance
from model_repo.pipeline.grammar import JOINTS, Family, Grammar, expand
from model_repo.pipeline.splits import normalise
from model_repo.pipeline.typing_noise import roughen

SOURCE = "generator"
TRIES = 40
"""Draws for each message wanted, before the grammar is called too small."""


class GrammarTooSmall(ValueError):
    """The grammar cannot make that many different messages."""


@dataclass(frozen=True)
class GeneratorSettings:
    """How many messages, and of what kinds."""

    count: int
    multi: float
    """Share with two or three intents."""
    japanese: float
    mixed: float
    labels: Mapping[str, float]
    """Weight of each intent, and of ood, among messages with one label."""


def generate(grammar: Grammar, settings: GeneratorSettings, seed: int) -> list[LabelledUtterance]:
    """
    ``settings.count`` messages, no two equal after normalising (so none differs in a number only).

    Raises GrammarTooSmall.
    """
    rng = random.Random(seed)
    made: dict[str, LabelledUtterance] = {}
    for _ in range(settings.count * TRIES):
        if len(made) == settings.count:
            return list(made.values())
        utterance = _draw(grammar, settings, rng)
        if utterance is not None:
            made.setdefault(normalise(utterance.text) or utterance.text, utterance)
    raise GrammarTooSmall(
        f"{len(made)} different messages of the {settings.count} asked for; add templates or ask for fewer"
    )


def _draw(grammar: Grammar, settings: GeneratorSettings, rng: random.Random) -> LabelledUtterance | None:
    plain = 1.0 - settings.japanese - settings.mixed
    lang = rng.choices(["en", "ja", "mix"], weights=[plain, settings.japanese, settings.mixed])[0]
    if rng.random() < settings.multi:
        return _joined(grammar, settings, lang, rng)
    label = rng.choices(list(settings.labels), weights=list(settings.labels.values()))[0]
    family = _family_of(grammar, label, lang, rng)
    return None if family is None else _single(grammar, family, rng)


def _single(grammar: Grammar, family: Family, rng: random.Random) -> LabelledUtterance:
    text = expand(rng.choice(family.templates), grammar, rng)
    if family.noise:
        text = roughen(text if family.alone else _addressed(text, family.lang, grammar, rng), rng)
    return _utterance(text, family.intents, family.age_sensitive, family.lang)


def _joined(grammar: Grammar, settings: GeneratorSettings, lang: str, rng: random.Random) -> LabelledUtterance | None:
    """Two requests (three in one of seven) of different intents; a mixed message may take one part of each language."""
    parts: list[Family] = []
    for _ in range(3 if rng.random() < 1 / 7 else 2):
        part_lang = rng.choice(["mix", "en", "ja"]) if lang == "mix" else lang
        taken = {intent for part in parts for intent in part.intents}
        weights = {label: w for label, w in settings.labels.items() if label != OOD and label not in taken}
        label = rng.choices(list(weights), weights=list(weights.values()))[0]
        family = _family_of(grammar, label, part_lang, rng, joinable=True)
        if family is None:
            return None
        parts.append(family)
    if lang == "mix" and len({part.lang for part in parts}) == 1 and parts[0].lang != "mix":
        return None
    texts = [expand(rng.choice(part.templates), grammar, rng) for part in parts]
    text = texts[0] + "".join(rng.choice(grammar.slots[JOINTS[lang]]) + more for more in texts[1:])
    intents = tuple(intent for part in parts for intent in part.intents)
    text = roughen(_addressed(text, lang, grammar, rng), rng)
    return _utterance(text, intents, any(part.age_sensitive for part in parts), lang)


def _family_of(grammar: Grammar, label: str, lang: str, rng: random.Random, joinable: bool = False) -> Family | None:
    """A family whose main label it is, the likelier the more templates it has; None where the language has none."""
    families = [
        f
        for f in grammar.families
        if f.lang == lang
        and (f.intents[0] if f.intents else OOD) == label
        and not (joinable and (f.alone or len(f.intents) > 1))
    ]
    return rng.choices(families, weights=[len(f.templates) for f in families])[0] if families else None


def _addressed(text: str, lang: str, grammar: Grammar, rng: random.Random) -> str:
    """Now and then a greeting in front, which adds no label, or a thank-you behind."""
    japanese = lang == "ja" or (lang == "mix" and rng.random() < 0.4)
    if rng.random() < 0.15:
        text = rng.choice(grammar.slots["opening_ja" if japanese else "opening"]) + text
    if not japanese and rng.random() < 0.12:
        text += rng.choice(grammar.slots["closing"])
    return text


def _utterance(text: str, intents: tuple[str, ...], age_sensitive: bool, lang: str) -> LabelledUtterance:
    return LabelledUtterance(
        text=text,
        intents=intents,
        is_ood=not intents,
        age_sensitive=age_sensitive,
        lang=lang,
        source=SOURCE,
        origin="synthetic",
        group=SOURCE,
    )
