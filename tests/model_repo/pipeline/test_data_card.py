"""Counts count, and the card says where everything came from."""

from dataclasses import replace

from model_repo.contract.labels import LabelledUtterance
from model_repo.pipeline.data_card import DataReport, count, render_card
from model_repo.pipeline.sources import read_sources

ROWS = [
    LabelledUtterance("a", ("faq", "promotion"), False, False, "mix", "manga_authored", "authored"),
    LabelledUtterance("b", ("faq",), False, True, "en", "clinc150", "authored"),
    LabelledUtterance("c", (), True, None, "en", "webshop_goals", "authored"),
    LabelledUtterance("d", (), True, False, "ja", "generator", "synthetic"),
]


def _report(ships: bool = True) -> DataReport:
    counts = count(ROWS)
    return DataReport(
        "m", 42, ships, {"train": counts, "test": count(ROWS[:1])}, ["x is missing"], {}, 3, 0, {"f": "00"}
    )


def test_message_with_two_intents_counts_under_both() -> None:
    """And once in the total."""
    counts = count(ROWS)
    assert counts.total == 4
    assert counts.by_label == {"faq": 2, "ood": 2, "promotion": 1}
    assert (counts.multi_share, counts.ood_share, counts.mixed_share) == (0.25, 0.5, 0.25)


def test_unknown_age_is_no_age() -> None:
    """The share is over the messages where somebody looked."""
    assert count(ROWS).age_sensitive_share == 1 / 3


def test_empty_split_has_no_shares() -> None:
    """Nothing divides by zero."""
    assert count([]).ood_share == 0.0


def test_card_names_every_public_source_with_its_licence() -> None:
    """And none that is not in the set."""
    card = render_card(_report(), read_sources())
    assert "| clinc150 | clinc/oos-eval | CC BY 3.0 | yes |" in card
    assert "| webshop_goals | princeton-nlp/WebShop | MIT | yes |" in card
    assert "multidogo" not in card
    assert "- x is missing" in card
    assert "training labels corrected by hand: 3" in card


def test_card_says_when_a_version_must_not_ship() -> None:
    """Measured on share-alike text, kept at home."""
    assert "must not ship" in render_card(_report(ships=False), read_sources())
    assert "may ship" in render_card(_report(), read_sources())


def test_labels_of_production_are_counted_and_keep_a_version_at_home() -> None:
    """What was read, added and left out; text of customers is not for publication."""
    fates = {"read": 1200, "added": 1100, "duplicates": 80, "near_duplicates_of_held_out": 20}
    card = render_card(replace(_report(ships=False), production=fates), read_sources())
    expected = "1,200 read, 1,100 added, 80 duplicates, 20 near duplicates of held out"
    assert f"- labels of production, for the training split alone: {expected}" in card
    assert "must not ship: it holds messages of customers" in card
    assert "production" not in render_card(_report(), read_sources())
