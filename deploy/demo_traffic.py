"""
What the demonstration sends: the manga messages that no version was trained on, and a kind of message that is new.

The new kind is about a loyalty club, which the shop did not have when the taxonomy was made.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from model_repo.contract.labels import LabelledUtterance
from model_repo.pipeline.data import read_authored
from model_repo.pipeline.splits import split

SEED = 42
AGENT_INTENT = "promotion"
"""What agents file messages about the club under, for want of an intent of its own."""

OPENINGS = ("", "hi, ", "quick one: ", "hey team, ", "sorry to bother, ", "so ")
CLUB_NAMES = ("the collectors club", "the panel club", "your loyalty club", "the reading club", "the member club")
CLUB_QUESTIONS = (
    "how do i join {club}",
    "how many points until silver level in {club}",
    "what does gold membership of {club} give me",
    "my {club} points vanished overnight, where did they go",
    "can i give my points from {club} to my sister",
    "when do points in {club} expire",
    "i want to leave {club}, how",
    "is there a yearly fee for {club}",
    "does {club} count what i bought last year",
    "what is the difference between silver and gold in {club}",
    "my level in {club} dropped to bronze, why",
    "can two people share one membership of {club}",
)
CLOSINGS = ("", "?", " please", " thx", "? cheers")


@dataclass(frozen=True)
class Labelled:
    """A message, and the label that an agent gives afterwards."""

    text: str
    intents: tuple[str, ...]
    """Empty for one that is ood."""


def ordinary() -> list[Labelled]:
    """The test and validation tenths of the authored messages (about 2,500): no version was trained on them."""
    authored = read_authored()
    parts = split(authored, SEED)
    return [_labelled(utterance) for utterance, part in zip(authored, parts, strict=True) if part != "train"]


def about_the_club() -> list[Labelled]:
    """Every message of the new kind (1,800)."""
    return [
        Labelled(opening + question.format(club=club) + closing, (AGENT_INTENT,))
        for opening, question, club, closing in itertools.product(OPENINGS, CLUB_QUESTIONS, CLUB_NAMES, CLOSINGS)
    ]


def shuffled_for_ever(messages: Sequence[Labelled], rng: random.Random) -> Iterator[Labelled]:
    """Each message once, in another order every time round."""
    while True:
        yield from rng.sample(messages, len(messages))


def _labelled(utterance: LabelledUtterance) -> Labelled:
    return Labelled(utterance.text, tuple(utterance.intents))
