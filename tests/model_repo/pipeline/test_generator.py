"""The generator is a function of its seed, never repeats itself, and labels what it writes."""

from collections import Counter

import pytest

from model_repo.pipeline.data import read_taxonomy
from model_repo.pipeline.generator import GeneratorSettings, GrammarTooSmall, generate
from model_repo.pipeline.grammar import Family, Grammar, read_grammar
from model_repo.pipeline.sources import DATA
from model_repo.pipeline.splits import normalise

GRAMMAR = read_grammar(DATA / "grammar")
LABELS = dict.fromkeys((*read_taxonomy().intents, "ood"), 1.0)
SETTINGS = GeneratorSettings(count=400, multi=0.3, japanese=0.1, mixed=0.2, labels=LABELS)


def test_same_seed_same_messages_and_another_seed_others() -> None:
    """Nothing but the seed decides."""
    made = generate(GRAMMAR, SETTINGS, seed=42)
    assert made == generate(GRAMMAR, SETTINGS, seed=42)
    assert {u.text for u in made} != {u.text for u in generate(GRAMMAR, SETTINGS, seed=7)}


def test_no_two_messages_differ_in_a_number_only() -> None:
    """Distinct after normalising."""
    made = generate(GRAMMAR, SETTINGS, seed=1)
    assert len({normalise(u.text) or u.text for u in made}) == len(made) == SETTINGS.count


def test_kinds_come_in_the_shares_asked_for() -> None:
    """Within a few points; a language without a family for a label makes them differ slightly."""
    made = generate(GRAMMAR, SETTINGS, seed=3)
    langs = Counter(u.lang for u in made)
    assert sum(len(u.intents) > 1 for u in made) / len(made) == pytest.approx(0.3, abs=0.1)
    assert langs["mix"] / len(made) == pytest.approx(0.2, abs=0.1)
    assert {u.main_label for u in made} == set(LABELS)
    assert {u.origin for u in made} == {"synthetic"}


def test_joined_intents_are_distinct_and_never_ood() -> None:
    """Out of scope stands alone, and nobody asks the same thing twice in a message."""
    joined = [u for u in generate(GRAMMAR, SETTINGS, seed=5) if len(u.intents) > 1]
    assert joined
    assert all(len(set(u.intents)) == len(u.intents) and not u.is_ood for u in joined)


def test_family_that_stands_alone_is_never_joined() -> None:
    """A greeting in front of a request adds no label, so a greeting is no part of a joined message."""
    families = (
        Family(("talk",), tuple(f"hello number {w}" for w in ("one", "two", "three")), alone=True),
        Family(("buy",), tuple(f"sell me a {w}" for w in ("pear", "plum", "fig", "date"))),
        Family(("ask",), tuple(f"what is a {w}" for w in ("pear", "plum", "fig", "date"))),
    )
    slots = {"joint": (" and ",), "opening": ("hi ",), "closing": (" thanks",)}
    settings = GeneratorSettings(12, multi=0.5, japanese=0.0, mixed=0.0, labels={"talk": 1, "buy": 1, "ask": 1})
    made = generate(Grammar(families, slots), settings, seed=2)
    assert {u.intents for u in made if len(u.intents) > 1} <= {("buy", "ask"), ("ask", "buy")}


def test_grammar_that_is_too_small_says_so() -> None:
    """It stops, with what it could make."""
    grammar = Grammar((Family(("a",), ("just this",), alone=True, noise=False),), {})
    with pytest.raises(GrammarTooSmall, match="1 different messages of the 5"):
        generate(grammar, GeneratorSettings(5, 0.0, 0.0, 0.0, {"a": 1.0}), seed=0)
