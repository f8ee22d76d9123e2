"""What versions bring is read once, and what is not there yet is looked for again."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_repo.contract.errors import BadCosts, ContractError
from monitoring.drawn_streams import POLICY, TAXONOMY
from monitoring.sources import ASK_AGAIN_S, StoreSources
from tests.monitoring.drawn_log import make_repository


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    """A mistake about one intent is dear."""
    file = tmp_path / "costs.toml"
    file.write_text("default = 1.0\n[missed]\nintent_3 = 5.0\n")
    return file


def test_taxonomy_and_policies_of_a_version(tmp_path: Path, costs: Path) -> None:
    """By the names that events carry."""
    store = make_repository(tmp_path / "repo")
    sources = StoreSources(store, costs)
    assert sources.taxonomy("1") == TAXONOMY
    assert sources.policy("1", "1.1") == POLICY
    assert sources.deployment_number() == 1
    store.add_policy(replace(POLICY, revision=2, temperature=1.5))
    assert sources.policy("1", "1.2").temperature == 1.5
    for unknown in ("1.9", "2.1", "1.x", ""):
        with pytest.raises(ContractError):
            sources.policy("1", unknown)


def test_version_that_comes_later_is_found(tmp_path: Path, costs: Path) -> None:
    """But not looked for with every chunk: a damaged one would be read whole each time."""
    now = [0.0]
    store = make_repository(tmp_path / "repo")
    weights = tmp_path / "repo" / "1" / "model.onnx"
    whole = weights.read_bytes()
    weights.write_bytes(b"damaged")
    sources = StoreSources(store, costs, lambda: now[0])
    assert sources.taxonomy("1") is None
    weights.write_bytes(whole)
    now[0] = ASK_AGAIN_S - 1.0
    assert sources.taxonomy("1") is None
    now[0] = ASK_AGAIN_S
    assert sources.taxonomy("1") == TAXONOMY


@pytest.mark.parametrize("version", ["2", "..", "../repo/1", "", "."])
def test_version_that_events_make_up_is_none(tmp_path: Path, costs: Path, version: str) -> None:
    """Whatever it is called."""
    make_repository(tmp_path / "repo")
    assert StoreSources(make_repository(tmp_path / "other"), costs).taxonomy(version) is None


def test_costs_are_of_the_table(tmp_path: Path, costs: Path) -> None:
    """By the intents of the version."""
    matrix = StoreSources(make_repository(tmp_path / "repo"), costs).costs(TAXONOMY)
    assert (matrix[3, 0], matrix[0, 3], matrix[3, 3]) == (5.0, 1.0, 0.0)


def test_costs_of_other_intents_are_even_and_said_to_be(
    tmp_path: Path, costs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a taxonomy."""
    costs.write_text("[missed]\nrefund = 5.0\n")
    sources = StoreSources(make_repository(tmp_path / "repo"), costs)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            np.testing.assert_array_equal(sources.costs(TAXONOMY), 1.0 - np.eye(9))
    assert len(caplog.records) == 1


def test_costs_that_cannot_be_read_are_a_refusal(tmp_path: Path, costs: Path) -> None:
    """At start."""
    store = make_repository(tmp_path / "repo")
    costs.write_text("default = ")
    for file in (costs, tmp_path / "missing.toml"):
        with pytest.raises(BadCosts, match=file.name):
            StoreSources(store, file)


def test_deployment_that_cannot_be_read_is_none(tmp_path: Path, costs: Path) -> None:
    """What served before goes on."""
    sources = StoreSources(make_repository(tmp_path / "repo"), costs)
    (tmp_path / "repo" / "deployment.json").write_text("{")
    assert sources.deployment_number() is None
