"""The card of a version names all of its text."""

import pytest

from model_repo.pipeline import composing, generator
from model_repo.pipeline.data import AUTHORED, SUPPLEMENT
from model_repo.pipeline.sources import read_sources
from model_repo.pipeline.version import OWN_LICENCE, card_sources

OWN = {AUTHORED: "authored", SUPPLEMENT: "authored", generator.SOURCE: "synthetic", composing.SOURCE: "synthetic"}


@pytest.mark.parametrize("source", OWN)
def test_text_of_our_own_stands_on_the_card(source: str) -> None:
    """Whatever the data stage can put into a split, with its origin and rows."""
    splits = {"train": {"by_source": {source: 7}}, "validation": {"by_source": {}}, "test": {"by_source": {}}}
    (row,) = card_sources({"splits": splits})
    assert (row.origin, row.licence, row.rows, row.use) == (OWN[source], OWN_LICENCE, 7, "train")


def test_text_of_customers_stands_on_the_card_as_theirs() -> None:
    """It is not ours to give away."""
    splits = {"train": {"by_source": {"production": 9}}, "validation": {"by_source": {}}, "test": {"by_source": {}}}
    (row,) = card_sources({"splits": splits})
    assert (row.origin, row.rows, row.use) == ("live", 9, "train")
    assert row.licence != OWN_LICENCE
    assert "not for publication" in row.licence


def test_public_text_stands_on_the_card_with_its_licence() -> None:
    """As the publisher gives it."""
    splits = {"train": {"by_source": {"clinc150": 3}}, "validation": {"by_source": {}}, "test": {"by_source": {}}}
    (row,) = card_sources({"splits": splits})
    assert row.licence == read_sources()["clinc150"].licence != OWN_LICENCE
