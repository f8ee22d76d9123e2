"""Mixtures are read strictly, and the default one may ship."""

import tomllib
from pathlib import Path

import pytest

from model_repo.pipeline.data import read_taxonomy
from model_repo.pipeline.mixture import MIXTURES, Mixture, check_labels, read_mixture
from model_repo.pipeline.settings import BadPreset
from model_repo.pipeline.sources import read_sources


def _names() -> list[str]:
    return list(tomllib.loads(MIXTURES.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", _names())
def test_every_mixture_names_known_sets_and_labels(name: str) -> None:
    """No mixture waits for its run to fail."""
    mixture = read_mixture(name)
    check_labels(mixture, read_taxonomy())
    assert set(mixture.sources) <= set(read_sources())


@pytest.mark.parametrize("name", _names())
def test_mixture_takes_sets_that_do_not_ship_only_when_it_says_so(name: str) -> None:
    """What a version is trained on by default may ship."""
    mixture = read_mixture(name)
    refused = [s for s in mixture.sources if not read_sources()[s].ships]
    assert mixture.unshippable or not refused


def test_smoke_needs_nothing_but_the_generator() -> None:
    """It runs on a fresh clone, without a data folder."""
    mixture = read_mixture("smoke")
    assert mixture.generator is not None
    assert not mixture.authored
    assert not mixture.sources


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("authored = true", "needs authored and unshippable"),
        ("authored = true\nunshippable = false\ncolour = 1", "colour"),
        ("authored = false\nunshippable = false", "must have a generator"),
        ("authored = false\nsupplement = true\nunshippable = false\n[m.generator]\ncount = 5", "must have a generator"),
        ("authored = true\nunshippable = false\n[m.generator]\ncount = 5", "generator"),
        ("authored = true\nunshippable = false\n[m.composed]\ncount = 0", "count must be at least 1, got 0"),
        ("authored = true\nunshippable = false\n[m.composed]\nlongest = 9", "longest"),
        (
            "authored = true\nunshippable = false\n[m.generator]\n"
            "count = 5\nmulti = 1.5\njapanese = 0\nmixed = 0\nlabels = {faq = 1}",
            "multi must be between 0 and 1",
        ),
    ],
)
def test_mistake_in_a_mixture_is_refused_by_name(tmp_path: Path, table: str, told: str) -> None:
    """The message names the key and the limit."""
    file = tmp_path / "data.toml"
    file.write_text(f"[m]\n{table}\n", encoding="utf-8")
    with pytest.raises(BadPreset, match=told):
        read_mixture("m", file)


def test_unknown_mixture_is_refused_with_the_known_ones() -> None:
    """A typo is answered with the choice there is."""
    with pytest.raises(BadPreset, match="default"):
        read_mixture("defualt")


def test_label_outside_the_taxonomy_is_refused() -> None:
    """In a cap as in the generator's weights."""
    with pytest.raises(BadPreset, match="weather"):
        check_labels(Mixture("m", True, False, None, {"clinc150": {"weather": 3}}), read_taxonomy())
