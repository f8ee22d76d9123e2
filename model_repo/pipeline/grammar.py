"""
Templates and slots of the synthetic generator: TOML read once and checked, and the expansion of one template.

A template may hold ``[one|of|these]`` (nested, an empty choice allowed) and ``{slot}``; a slot's values may hold both.
Numbers (``{vol}``, ``{order}``, ...) and ``{gibberish}`` are drawn, not listed.
"""

import random
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_repo.contract.labels import LANGUAGES

CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{(\w+)\}")
JOINTS = {"en": "joint", "ja": "joint_ja", "mix": "joint_mix"}
"""By language, the slot of what people put between two requests."""


class BadGrammar(ValueError):
    """A template names a slot that does not exist, or a family has an unknown key or language."""


@dataclass(frozen=True)
class Family:
    """Templates that carry the same labels."""

    intents: tuple[str, ...]
    """Empty for ood."""
    templates: tuple[str, ...]
    lang: str = "en"
    age_sensitive: bool = False
    alone: bool = False
    """Never joined with another family, nor given an opening: a greeting, or a message that has two intents already."""
    noise: bool = True
    """False where a typo would destroy what the message is: code, injections, gibberish."""


@dataclass(frozen=True)
class Grammar:
    """Every family, and the values of every listed slot."""

    families: tuple[Family, ...]
    slots: Mapping[str, tuple[str, ...]]


def read_grammar(folder: Path) -> Grammar:
    """Read ``slots.toml`` and every other TOML file of the folder; raises BadGrammar naming file and key."""
    slots = {name: tuple(values) for name, values in _toml(folder / "slots.toml").items()}
    families = [
        _family(table, file.name)
        for file in sorted(folder.glob("*.toml"))
        if file.name != "slots.toml"
        for table in _toml(file)["family"]
    ]
    grammar = Grammar(tuple(families), slots)
    _refuse_unknown_slots(grammar)
    return grammar


def expand(template: str, grammar: Grammar, rng: random.Random) -> str:
    """One message of the template. The same value never fills two slots of a message while others are left."""
    return re.sub(r"  +", " ", _expand(template, grammar, rng, set())).strip()


def _expand(template: str, grammar: Grammar, rng: random.Random, used: set[str]) -> str:
    text = template
    while CHOICE.search(text):
        text = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)

    def fill(match: re.Match[str]) -> str:
        value = _draw(match[1], grammar, rng)
        for _ in range(5):
            if value not in used:
                break
            value = _draw(match[1], grammar, rng)
        used.add(value)
        return _expand(value, grammar, rng, used)

    return SLOT.sub(fill, text)


def _draw(slot: str, grammar: Grammar, rng: random.Random) -> str:
    return DRAWN[slot](rng) if slot in DRAWN else rng.choice(grammar.slots[slot])


def _order_number(rng: random.Random) -> str:
    """Order numbers in the shapes customers type them."""
    n = rng.randint(1000, 99999)
    short = f"{n % 10}-{n % 9000 + 1000}"
    return rng.choice(
        [f"{n}", f"#{n}", f"{n % 100}-{n}", f"MA-{n}", f"no. {n}", f"#{short}", f"{n}-{rng.choice('ABKX')}"]
    )


def _price(rng: random.Random) -> str:
    n = rng.randint(4, 90)
    return rng.choice([f"${n}", f"£{n}", f"{n} euros", f"${n}.99", f"{n} bucks", f"€{n}", f"{n}.50"])


def _gibberish(rng: random.Random) -> str:
    """Keyboard mash, symbols or stray syllables."""
    rows = ["asdfghjkl", "qwertyuiop", "zxcvbnm", "!?#*%&@", "xkcdqzjv", "あqwのzけ", "0123456789", "blorpniyuk"]
    row = rng.choice(rows)
    return "".join(rng.choice(row) for _ in range(rng.randint(3, 12)))


DRAWN: Mapping[str, Callable[[random.Random], str]] = {
    "vol": lambda rng: str(rng.randint(1, 24)),
    "vol_high": lambda rng: str(rng.randint(25, 42)),
    "small": lambda rng: str(rng.randint(2, 9)),
    "day": lambda rng: str(rng.randint(4, 20)),
    "kid_age": lambda rng: str(rng.randint(6, 16)),
    "points": lambda rng: str(rng.randint(2, 60) * 50),
    "percent": lambda rng: f"{rng.choice([5, 10, 15, 20, 25, 30, 50])}%",
    "yen": lambda rng: str(rng.randint(5, 60) * 100),
    "year": lambda rng: str(rng.randint(1970, 2024)),
    "price": _price,
    "order": _order_number,
    "gibberish": _gibberish,
}


def _family(table: Mapping[str, Any], file: str) -> Family:
    try:
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
        family = Family(**settings)
    except TypeError as error:
        raise BadGrammar(f"{file}: a family {error}") from None
    if family.lang not in LANGUAGES:
        raise BadGrammar(f"{file}: lang must be one of {', '.join(LANGUAGES)}, got {family.lang!r}")
    if not family.templates:
        raise BadGrammar(f"{file}: a family needs a template")
    return family


def _refuse_unknown_slots(grammar: Grammar) -> None:
    texts = [
        *(t for f in grammar.families for t in f.templates),
        *(v for values in grammar.slots.values() for v in values),
    ]
    known = set(grammar.slots) | set(DRAWN)
    for text in texts:
        unknown = set(SLOT.findall(text)) - known
        if unknown:
            raise BadGrammar(f"no slot {', '.join(sorted(unknown))} for {text!r}")
        if "[" in (rest := _without_choices(text)) or "]" in rest:
            raise BadGrammar(f"brackets do not pair in {text!r}")


def _without_choices(text: str) -> str:
    while CHOICE.search(text):
        text = CHOICE.sub("", text)
    return text


def _toml(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text(encoding="utf-8"))
