"""Two authored requests in one message."""

from model_repo.contract.labels import LabelledUtterance
from model_repo.pipeline.composing import LONGEST, ComposingSettings, compose

SLOTS = {"joint": (", and ",), "joint_ja": ("。あと、",), "joint_mix": (" - ",)}


def said(text: str, *intents: str, lang: str = "en", age: bool | None = False) -> LabelledUtterance:
    return LabelledUtterance(
        text=text,
        intents=intents,
        is_ood=not intents,
        age_sensitive=age,
        lang=lang,
        source="test",
        origin="authored",
        group="test",
    )


def test_two_requests_become_one_message_that_carries_both_intents() -> None:
    """The first loses its full stop, the second its capital letter, and the age of either counts."""
    parts = [said("Where is my box.", "order_tracking"), said("Pick one for a child.", "recommendation", age=True)]
    made = {u.text: u for u in compose(parts, ComposingSettings(2), SLOTS, seed=1)}
    assert set(made) == {"Where is my box, and pick one for a child.", "Pick one for a child, and where is my box."}
    for utterance in made.values():
        assert set(utterance.intents) == {"order_tracking", "recommendation"}
        assert utterance.age_sensitive is True
        assert utterance.origin == "synthetic"


def test_an_unknown_age_stays_unknown() -> None:
    """Nothing is said about an age that nobody looked at."""
    parts = [said("Where is my box", "order_tracking", age=None), said("Any codes today", "promotion")]
    assert {u.age_sensitive for u in compose(parts, ComposingSettings(2), SLOTS, seed=1)} == {None}


def test_what_is_no_half_of_a_message_is_passed_over() -> None:
    """Messages of several intents, out of scope, too long, or of an intent that stands alone."""
    parts = [
        said("Where is my box", "order_tracking"),
        said("Any codes today", "promotion"),
        said("Hello there", "chitchat"),
        said("A refund and a code", "return_request", "promotion"),
        said("Fix my bicycle"),
        said("x" * (LONGEST + 1), "faq"),
    ]
    made = compose(parts, ComposingSettings(50, alone=("chitchat",)), SLOTS, seed=3)
    assert {frozenset(u.intents) for u in made} == {frozenset({"order_tracking", "promotion"})}
    assert len(made) == 2


def test_languages_are_not_joined_to_each_other() -> None:
    """A Japanese request is joined to a Japanese one."""
    parts = [
        said("Where is my box", "order_tracking"),
        said("Any codes today", "promotion"),
        said("返品したい", "return_request", lang="ja"),
        said("送料はいくら", "faq", lang="ja"),
    ]
    made = compose(parts, ComposingSettings(4), SLOTS, seed=5)
    assert {(u.lang, "。あと、" in u.text) for u in made} == {("en", False), ("ja", True)}


def test_the_same_seed_gives_the_same_messages() -> None:
    """And another seed others."""
    topics = ("order_tracking", "promotion", "faq", "checkout_help")
    parts = [said(f"request {word} please", topics[i % 4]) for i, word in enumerate("abcdefghijkl")]
    first, again, other = (compose(parts, ComposingSettings(10), SLOTS, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len({u.text for u in first}) == 10


def test_one_request_alone_gives_nothing() -> None:
    """There is no second one to put behind it."""
    assert compose([said("Where is my box", "order_tracking")], ComposingSettings(5), SLOTS, seed=1) == []
