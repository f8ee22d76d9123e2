"""The fitted temperature is the one that was put in, and another temperature leaves decisions as they were."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from model_repo.contract.decision import accept, softmax
from model_repo.contract.errors import CannotMeasure
from model_repo.contract.metrics import top_in_set
from model_repo.contract.temperature import (
    TEMPERATURES,
    fit_shares_temperature,
    fit_temperature,
    is_at_a_bound,
    moved_thresholds,
    top_nll,
)
from model_repo.pipeline.truth import truth_of
from tests.model_repo.pipeline.simulated import TAXONOMY, simulated


def in_scope(n: int, seed: int, sharpening: float, several_share: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and targets of a simulated model."""
    outputs, utterances = simulated(n, seed, sharpening, ood_share=0.0, several_share=several_share)
    return outputs.logits, truth_of(utterances, TAXONOMY).targets


class TestFit:
    @pytest.mark.parametrize("sharpening", [0.5, 1.0, 2.5])
    def test_temperature_undoes_a_known_sharpening(self, sharpening: float) -> None:
        """To 10%, from 4,000 rows."""
        assert fit_temperature(*in_scope(4000, 1, sharpening)) == pytest.approx(sharpening, rel=0.1)

    @pytest.mark.parametrize("sharpening", [0.4, 1.0, 3.0])
    @pytest.mark.parametrize("n", [60, 250, 2000])
    def test_it_is_the_minimum_that_scipy_finds(self, n: int, sharpening: float) -> None:
        """To four decimals."""
        logits, targets = in_scope(n, n, sharpening, several_share=0.2)
        is_correct = top_in_set(logits.argmax(axis=1), targets)
        found = minimize_scalar(
            lambda log_temperature: top_nll(logits, is_correct, float(np.exp(log_temperature))),
            bounds=np.log(TEMPERATURES),
            method="bounded",
            options={"xatol": 1e-9},
        )
        assert fit_temperature(logits, targets) == pytest.approx(float(np.exp(found.x)), abs=1e-4)

    def test_huge_logits_do_not_break_the_fit(self) -> None:
        """Logits of +-1000 give a finite temperature within its bounds."""
        logits = np.array([[1000.0, -1000.0], [-1000.0, 1000.0], [1000.0, -1000.0]])
        targets = np.array([[True, False], [True, False], [True, False]])
        assert 0.05 <= fit_temperature(logits, targets) <= 20.0001

    def test_rows_of_one_kind_end_at_a_bound(self) -> None:
        """Always right wants certainty, never right wants none: both end where the search does."""
        logits = np.array([[1.0, 0.0]] * 5)
        right, wrong = np.array([[True, False]] * 5), np.array([[False, True]] * 5)
        assert fit_temperature(logits, right) == pytest.approx(TEMPERATURES[0], rel=1e-3)
        assert fit_temperature(logits, wrong) == pytest.approx(TEMPERATURES[1], rel=1e-3)

    def test_only_an_end_of_the_search_is_a_bound(self) -> None:
        """Both ends are; what a fit finds between them is not."""
        assert [is_at_a_bound(t) for t in (*TEMPERATURES, 0.06, 1.0, 19.0)] == [True, True, False, False, False]
        assert not is_at_a_bound(fit_temperature(*in_scope(500, 1, 1.0)))

    def test_shares_are_fitted_where_the_top_intent_has_no_temperature(self) -> None:
        """A network that splits its probability as the shares do, sharpened by 2: that is undone."""
        rng = np.random.default_rng(0)
        targets = rng.random((2000, 4)) < 0.5
        targets[~targets.any(axis=1), 0] = True
        noisy = np.log(np.where(targets, 1.0, 0.02)) + rng.normal(0.0, 0.1, targets.shape)
        assert is_at_a_bound(fit_temperature(2.0 * noisy, targets))
        plain = fit_shares_temperature(noisy, targets)
        assert fit_shares_temperature(2.0 * noisy, targets) == pytest.approx(2.0 * plain, rel=1e-3)

    def test_nothing_to_fit_on_is_said(self) -> None:
        """No row, no temperature."""
        with pytest.raises(CannotMeasure, match="in-scope"):
            fit_temperature(np.empty((0, 2)), np.empty((0, 2), dtype=bool))
        with pytest.raises(CannotMeasure, match="in-scope"):
            fit_shares_temperature(np.empty((0, 2)), np.empty((0, 2), dtype=bool))


class TestMovedThresholds:
    THRESHOLDS = np.array([0.15, 0.2, 0.1, 0.3])

    @pytest.mark.parametrize(("before", "after"), [(1.0, 1.8), (1.6, 0.7), (1.0, 1.0), (1.3, 1.0)])
    def test_accepted_sets_stay_on_rows_that_it_has_not_seen(self, before: float, after: float) -> None:
        """In 98 of 100 rows; under the old thresholds many times more would change."""
        seen, fresh = (in_scope(3000, seed, before, several_share=0.3)[0] for seed in (1, 2))
        wanted = accept(softmax(fresh, before), self.THRESHOLDS)
        moved = moved_thresholds(seen, self.THRESHOLDS, before, after)
        assert wanted.sum(axis=1).max() > 1
        changed = (accept(softmax(fresh, after), moved) != wanted).any(axis=1).mean()
        assert changed <= 0.02
        if before != after:
            assert (accept(softmax(fresh, after), self.THRESHOLDS) != wanted).any(axis=1).mean() > 5 * changed

    def test_two_intents_keep_every_decision(self) -> None:
        """There the rule is exact, seen rows or not."""
        rng = np.random.default_rng(3)
        seen, fresh = rng.normal(size=(50, 2)) * 3.0, rng.normal(size=(2000, 2)) * 3.0
        thresholds = np.array([0.2, 0.35])
        moved = moved_thresholds(seen[:0], thresholds, 1.0, 1.7)
        assert (accept(softmax(fresh, 1.7), moved) == accept(softmax(fresh, 1.0), thresholds)).all()

    def test_intent_without_rows_follows_the_odds(self) -> None:
        """0.2 has odds of 1/4; at twice the temperature their square root, 1/2."""
        assert moved_thresholds(np.empty((0, 2)), np.array([0.2, 0.5]), 1.0, 2.0) == pytest.approx([1 / 3, 0.5])

    def test_threshold_that_accepts_nothing_goes_on_so(self) -> None:
        """1 stays 1, whatever the temperature and however large the logits."""
        rows = np.array([[1000.0, -1000.0], [3.0, 1.0]])
        for after in (0.05, 0.5, 20.0):
            assert moved_thresholds(rows, np.array([1.0, 1.0]), 1.0, after).tolist() == [1.0, 1.0]

    def test_thresholds_stay_what_a_policy_allows(self) -> None:
        """In (0, 1], also for a jump over the whole range of temperatures and rows at its ends."""
        rows = np.random.default_rng(4).normal(size=(300, 4)) * 30.0
        for before, after in ((0.05, 20.0), (20.0, 0.05)):
            moved = moved_thresholds(rows, np.array([1e-9, 0.01, 0.5, 1.0]), before, after)
            assert ((moved > 0.0) & (moved <= 1.0)).all()

    def test_arrays_that_do_not_fit_are_refused(self) -> None:
        """A threshold an intent."""
        with pytest.raises(CannotMeasure, match=r"\(5, 3\)"):
            moved_thresholds(np.zeros((5, 3)), np.full(2, 0.5), 1.0, 2.0)
