"""A cost table fits its taxonomy or is refused; the dearest unmet label sets the price."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from model_repo.contract.costs import cost_matrix, utterance_costs
from model_repo.contract.errors import BadCosts, CannotMeasure
from model_repo.contract.labels import Taxonomy

TAXONOMY = Taxonomy(("refund", "hello", "human"))
PRESET = Path(__file__).parents[3] / "model_repo" / "presets" / "costs.toml"


class TestCostMatrix:
    def test_single_cells_win_over_rows_and_factors(self) -> None:
        """A named cell is taken as it stands; the diagonal is free."""
        table = {
            "default": 2.0,
            "missed": {"human": 8},
            "decided": {"ood": 1.5},
            "mistaken": {"human": {"refund": 5}},
        }
        assert cost_matrix(table, TAXONOMY).tolist() == [
            [0.0, 2.0, 2.0, 3.0],
            [2.0, 0.0, 2.0, 3.0],
            [5.0, 8.0, 0.0, 12.0],
            [2.0, 2.0, 2.0, 0.0],
        ]

    def test_empty_table_charges_one_a_mistake(self) -> None:
        """So any taxonomy has a business error: the share of mistakes."""
        costs = cost_matrix({}, TAXONOMY)
        assert costs.sum() == 12.0
        assert np.diag(costs).tolist() == [0.0] * 4

    @pytest.mark.parametrize(
        ("table", "named"),
        [
            ({"missed": {"refnud": 1}}, "refnud"),
            ({"mistaken": {"refund": {"bye": 1}}}, "bye"),
            ({"defualt": 1}, "defualt"),
            ({"default": -1}, "default"),
            ({"missed": {"human": float("nan")}}, r"missed\.human"),
            ({"missed": {"human": "much"}}, r"missed\.human"),
        ],
    )
    def test_wrong_table_is_refused_by_name(self, table: dict[str, object], named: str) -> None:
        """Unknown labels and keys, and costs that are no costs."""
        with pytest.raises(BadCosts, match=named):
            cost_matrix(table, TAXONOMY)

    def test_shipped_table_puts_a_missed_escalation_above_all(self) -> None:
        """No mistake on another label costs as much as the cheapest way to miss an escalation."""
        table = tomllib.loads(PRESET.read_text(encoding="utf-8"))
        taxonomy = Taxonomy(tuple(label for label in table["missed"] if label != "ood"))
        costs = cost_matrix(table, taxonomy)
        row = taxonomy.index("escalation")
        missed = np.delete(costs[row], row)
        assert missed.min() > np.delete(costs, row, axis=0).max()


class TestUtteranceCosts:
    COSTS = cost_matrix({"missed": {"human": 8}, "mistaken": {"ood": {"hello": 0.5}}}, TAXONOMY)

    def price(self, carried: list[bool], accepted: list[bool], decided: int) -> float:
        """The cost of one decision."""
        arrays = np.array([carried]), np.array([accepted]), np.array([decided])
        return float(utterance_costs(*arrays, self.COSTS)[0])

    def test_dearest_unmet_intent_sets_the_price(self) -> None:
        """A request for a person that was met by the other intent alone costs as if it had been missed."""
        assert self.price([True, False, True], [True, False, False], 0) == 8.0

    def test_all_intents_met_costs_nothing_whatever_is_on_top(self) -> None:
        """Extra intents are free."""
        assert self.price([False, False, True], [True, False, True], 0) == 0.0

    def test_rejected_request_is_charged_in_the_ood_column(self) -> None:
        """Nothing is accepted, so every carried intent is unmet."""
        assert self.price([True, False, False], [False, False, False], 3) == 1.0

    def test_ood_utterance_is_charged_by_what_it_was_taken_for(self) -> None:
        """And costs nothing when rejected."""
        assert self.price([False, False, False], [False, True, False], 1) == 0.5
        assert self.price([False, False, False], [False, False, False], 3) == 0.0

    def test_costs_of_another_taxonomy_are_refused(self) -> None:
        """The shape gives it away."""
        with pytest.raises(CannotMeasure, match=r"\(3, 3\)"):
            utterance_costs(np.eye(2, dtype=np.bool_), np.eye(2, dtype=np.bool_), np.array([0, 1]), self.COSTS)
