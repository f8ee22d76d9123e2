"""Public text is adapted or refused, set by set."""

import random

import pytest

from model_repo.pipeline.adapt import adapt, ask_for_manga
from model_repo.pipeline.grammar import read_grammar
from model_repo.pipeline.sources import DATA, SourceRow

GRAMMAR = read_grammar(DATA / "grammar")


def _row(text: str, target: str = "ood", label: str = "label") -> SourceRow:
    return SourceRow(text, label, target, "en")


def _adapt(source: str, row: SourceRow, means_manga: str = "", seed: int = 0) -> SourceRow | None:
    return adapt(source, row, means_manga, GRAMMAR, random.Random(seed))


def test_search_for_other_goods_is_ood_or_becomes_a_search_for_manga() -> None:
    """About half keep their goods; the rest lose them and keep the price."""
    row = _row("i am looking for a velvet sofa cover, and price lower than 40.00 dollars")
    made = [_adapt("webshop_goals", row, "product_discovery", seed) for seed in range(40)]
    adapted = [m for m in made if m is not None and m.target == "product_discovery"]
    assert 5 < len(adapted) < 35
    assert all("sofa" not in m.text and m.text.endswith("price lower than 40.00 dollars") for m in adapted)
    assert all(m == row for m in made if m is not None and m.target == "ood")


def test_adapted_search_keeps_its_opening_words() -> None:
    """The frame is the publisher's, the goods are ours."""
    text = ask_for_manga("can you find me", "can you find me a lamp", GRAMMAR, random.Random(1))
    assert text.startswith("can you find me ")
    assert "lamp" not in text


@pytest.mark.parametrize(
    ("source", "text", "target", "label"),
    [
        ("webshop_goals", "i need a comic book box for my shelf", "ood", "x"),
        ("wands_queries", "dragon", "ood", "x"),
        ("multidogo", "a large one", "ood", "orderdrinkintent"),
        ("multidogo", "i would like to buy three of them", "ood", "startorder"),
        ("multidogo", "ok go on with that", "chitchat", "thankyou"),
        ("nlupp_hotels", "can i change the date please", "ood", "change"),
        ("bitext_customer_support", "how do i open a platinum account", "faq", "create_account"),
    ],
)
def test_text_that_could_belong_to_this_shop_is_refused(source: str, text: str, target: str, label: str) -> None:
    """Or that says nothing by itself."""
    assert _adapt(source, _row(text, target, label)) is None


def test_order_numbers_of_another_shop_become_ours() -> None:
    """Twelve digits in every line would teach the router to count digits."""
    row = _adapt("bitext_customer_support", _row("where is purchase 998877665544", "order_tracking"))
    assert row is not None
    assert row.text.startswith("where is purchase ")
    assert "998877665544" not in row.text


def test_set_without_an_adapter_passes_as_it_is() -> None:
    """Most sets need nothing."""
    row = _row("how tall is the tallest tower")
    assert _adapt("clinc150", row) == row
