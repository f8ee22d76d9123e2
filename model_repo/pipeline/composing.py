"""
Messages of two intents, put together from authored messages of one: two requests in one breath.

Messages that people wrote with two intents are few; two people's sentences behind one another are not quite how one
person writes, so these only ever go into training.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model_repo.contract.labels import LabelledUtterance
from model_repo.pipeline.grammar import JOINTS
from model_repo.pipeline.splits import normalise

LONGEST = 90
"""Characters of a part; longer ones are no half of a message."""
SOURCE = "composed"
TRIES = 20
"""Draws for each message asked for, before the text is called too little."""


@dataclass(frozen=True)
class ComposingSettings:
    """What is put together."""

    count: int
    alone: tuple[str, ...] = ()
    """Intents that are left out, since another request beside them takes the label away: a greeting in front, say."""


def compose(
    utterances: Sequence[LabelledUtterance],
    settings: ComposingSettings,
    slots: Mapping[str, Sequence[str]],
    seed: int,
) -> list[LabelledUtterance]:
    """
    ``settings.count`` different messages, each of two short ``utterances`` of one intent and language, joined.

    Fewer when the utterances do not give so many; utterances of several intents, of none, or long ones are passed over.
    """
    rng = random.Random(f"{seed} {SOURCE}")
    short = (u for u in utterances if len(u.intents) == 1 and len(u.text) <= LONGEST)
    parts = [u for u in short if u.intents[0] not in settings.alone]
    by_lang: dict[str, list[LabelledUtterance]] = {}
    for part in parts:
        by_lang.setdefault(part.lang, []).append(part)
    made: dict[str, LabelledUtterance] = {}
    for _ in range(settings.count * TRIES if len(parts) > 1 else 0):
        if len(made) == settings.count:
            break
        first = rng.choice(parts)
        second = rng.choice(by_lang[first.lang])
        if first.intents != second.intents:
            joined = _joined(first, second, rng.choice(slots[JOINTS[first.lang]]))
            made.setdefault(normalise(joined.text) or joined.text, joined)
    return list(made.values())


def _joined(first: LabelledUtterance, second: LabelledUtterance, joint: str) -> LabelledUtterance:
    """The first loses its closing mark, which the joint brings; the second begins small, as people type."""
    ages = (first.age_sensitive, second.age_sensitive)
    sensitive = True if True in ages else None if None in ages else False
    return LabelledUtterance(
        text=first.text.rstrip(" .!。！") + joint + second.text[:1].lower() + second.text[1:],
        intents=first.intents + second.intents,
        is_ood=False,
        age_sensitive=sensitive,
        lang=first.lang,
        source=SOURCE,
        origin="synthetic",
        group=SOURCE,
    )
