"""Templates are checked when they are read, and expand to messages without a trace of their making."""

import random
from pathlib import Path

import pytest

from model_repo.pipeline.data import read_taxonomy
from model_repo.pipeline.grammar import BadGrammar, Family, Grammar, expand, read_grammar
from model_repo.pipeline.sources import DATA


def _folder(tmp_path: Path, family: str) -> Path:
    (tmp_path / "slots.toml").write_text('fruit = ["pear", "plum"]\n', encoding="utf-8")
    (tmp_path / "talk.toml").write_text(f"[[family]]\n{family}\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("family", "told"),
    [
        ('intents = ["a"]\ntemplates = ["a {nut} please"]', "no slot nut"),
        ('intents = ["a"]\ntemplates = ["a [pear|plum please"]', "brackets do not pair"),
        ('intents = ["a"]\ntemplates = ["pear"]\ncolour = "red"', "colour"),
        ('intents = ["a"]\ntemplates = ["pear"]\nlang = "fr"', "'fr'"),
        ('intents = ["a"]\ntemplates = []', "needs a template"),
    ],
)
def test_mistake_in_a_grammar_is_refused_by_name(tmp_path: Path, family: str, told: str) -> None:
    """What the generator could not expand never reaches it."""
    with pytest.raises(BadGrammar, match=told):
        read_grammar(_folder(tmp_path, family))


def test_choices_nest_and_may_be_empty() -> None:
    """Every path through the brackets can be taken, and none leaves a double space."""
    grammar = Grammar((), {"fruit": ("pear",)})
    template = "a [ripe |[red|green] |]{fruit}"
    made = {expand(template, grammar, random.Random(seed)) for seed in range(60)}
    assert made == {"a ripe pear", "a red pear", "a green pear", "a pear"}


def test_two_slots_of_a_message_differ() -> None:
    """Nobody asks whether to read a book or the same book."""
    grammar = Grammar((), {"fruit": ("pear", "plum", "fig", "date")})
    for seed in range(50):
        one, other = expand("{fruit} or {fruit}", grammar, random.Random(seed)).split(" or ")
        assert one != other


def test_every_shipped_template_leaves_no_trace_of_the_grammar() -> None:
    """No bracket, no unfilled slot, no blank message."""
    grammar = read_grammar(DATA / "grammar")
    rng = random.Random(1)
    for family in grammar.families:
        for template in family.templates:
            text = expand(template, grammar, rng)
            assert text
            if "{gibberish}" not in template:
                assert not set("[]{}|") & set(text), template


def test_shipped_families_carry_intents_of_the_taxonomy_in_every_language() -> None:
    """English, Japanese and mixed text exists for each intent and for ood."""
    taxonomy = read_taxonomy()
    families: tuple[Family, ...] = read_grammar(DATA / "grammar").families
    assert {intent for f in families for intent in f.intents} == set(taxonomy.intents)
    for lang in ("en", "ja", "mix"):
        mains = {f.intents[0] if f.intents else "ood" for f in families if f.lang == lang}
        assert mains == {*taxonomy.intents, "ood"}
