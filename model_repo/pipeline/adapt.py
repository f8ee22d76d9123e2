"""
Public text made to fit a manga shop, or refused: goods become manga, brands and placeholders go, fragments stay out.

Neighbouring shops' goods are ood here, so their text is either near-ood as it stands or adapted by changing the goods.
"""

import random
import re
from collections.abc import Callable
from dataclasses import replace

from model_repo.contract.labels import OOD
from model_repo.pipeline.grammar import Grammar, expand
from model_repo.pipeline.sources import SourceRow


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(patterns) + r")\b", re.IGNORECASE)


BOOKISH = _words("manga", "comics?", "books?", "novels?", "anime", "kindle", "reading")
SEARCH = re.compile(
    r"((?:i'?m |i am |)(?:looking|searching) for|(?:i'?m|i am) interested in"
    r"|(?:i need|i want|i would like|i'd like)(?: to (?:buy|find|get|order))?"
    r"|(?:can you |please )?(?:find|show|get) me|search for)\s",
    re.IGNORECASE,
)
PRICE = re.compile(
    r"\b(?:(?:and |with )?(?:an? )?price |under |less than |lower than |cheaper than )[^.]*?\d+(?:\.\d+)?(?: dollars)?",
    re.IGNORECASE,
)
MANGA = (
    "{title} {edition}",
    "{genre} manga",
    "copy of {title}",
    "{genre} {edition}",
    "{title} volume {vol}",
    "manga by {author}",
    "{genre} series that is complete",
    "hardcover of {title}",
    "{title} {vol} to {vol_high}",
    "artbook by {author}",
)
COURTESY = _words(
    "hi", "hello", "hey", "hai", "good (?:morning|evening|afternoon|day|night)", "thanks?", "thank ?(?:you|u)",
    "thx", "bye+", "welcome", "nice (?:day|to meet)", "great day",
)  # fmt: skip
HOTEL = _words(
    "hotel", "rooms?", "suite", "spa", "gym", "pool", "restaurant", "check[- ]?out time", "breakfast", "massage",
    "guests", "lobby", "shuttle",
)  # fmt: skip
INSTRUMENT = _words("key ?boards?", "pianos?", "psre?", "instruments?", "guitars?", "drums?", "ypt")
NOT_OURS = re.compile(
    r"mattress|pillow|protein|whey|supplement|vitamin|capsule|tablet|fitness|diet|foam|\bbed\b|lockdown|covid"
    r"|pandemic|pin ?code|premium|platinum|gold|freemium|\bpro\b|standard|free account|<\w+>",
    re.IGNORECASE,
)
BRANDS = _words("curekart", "cure kart", "sof mattress", "sof")
LONG_NUMBER = re.compile(r"\b\d{6,}\b")


def adapt(source: str, row: SourceRow, means_manga: str, grammar: Grammar, rng: random.Random) -> SourceRow | None:
    """
    The row as it may be trained on, or None when it says nothing by itself.

    ``means_manga`` is the target of a search whose goods were changed to manga; empty where the label map has none.
    """
    keep = KEEP.get(source)
    if keep is not None and not keep(row):
        return None
    if means_manga and rng.random() < 0.5 and (frame := SEARCH.match(row.text)):
        return replace(row, text=ask_for_manga(frame[1], row.text, grammar, rng), target=means_manga)
    if source in SUPPORT:
        text = BRANDS.sub("you", row.text)
        return replace(row, text=LONG_NUMBER.sub(lambda _: expand("{order}", grammar, rng), text))
    return row


def ask_for_manga(frame: str, text: str, grammar: Grammar, rng: random.Random) -> str:
    """A search's opening words and price limit kept, and something of this shop between them."""
    price = PRICE.search(text)
    return frame + " " + expand(rng.choice(MANGA), grammar, rng) + (" " + price[0] if price else "")


def _is_dialogue(row: SourceRow) -> bool:
    """Greetings that greet, and requests of four words or more; an order for an instrument must name one."""
    words = len(row.text.split())
    if row.target != OOD:
        return words <= 8 and bool(COURTESY.search(row.text))
    return words >= 4 and (row.label != "startorder" or bool(INSTRUMENT.search(row.text)))


def _is_goods(row: SourceRow) -> bool:
    """Two words or more, none about books: "dinosaur" alone could be a manga."""
    return len(row.text.split()) >= 2 and not BOOKISH.search(row.text)


def _is_hotel(row: SourceRow) -> bool:
    """Only what speaks of a hotel is recognisably of another service."""
    return len(row.text.split()) >= 4 and bool(HOTEL.search(row.text))


def _is_ours(row: SourceRow) -> bool:
    """No goods of theirs, no tiers of an account, no placeholder of the publisher's."""
    return not NOT_OURS.search(row.text)


KEEP: dict[str, Callable[[SourceRow], bool]] = {
    "webshop_goals": _is_goods,
    "wands_queries": _is_goods,
    "esci_us_sample": _is_goods,
    "multidogo": _is_dialogue,
    "nlupp_hotels": _is_hotel,
    "bitext_customer_support": _is_ours,
    "hint3_curekart": _is_ours,
    "hint3_sofmattress": _is_ours,
}
SUPPORT = frozenset({"bitext_customer_support", "hint3_curekart", "hint3_sofmattress"})
"""Sets that speak to another shop's desk: their brand becomes "you", their twelve-digit order numbers ours."""
