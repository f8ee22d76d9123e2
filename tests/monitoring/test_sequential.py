"""Evidence stays within its error however often it is looked at, finds a change where one is, and bears batches."""

import numpy as np
import pytest
from scipy.integrate import quad

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import FloatArray
from monitoring import sequential
from monitoring.sequential import STAKES, Claim, confidence_sequence, e_bh, log_e_values, start, update

CLAIM = Claim(np.array([0.085]), rows_per_false_alarm=20_000)


def coin_flips(share: float, n: int, seed: int) -> FloatArray:
    """(n, 1) of independent zeros and ones."""
    return (np.random.default_rng(seed).random((n, 1)) < share).astype(np.float64)


class TestDetector:
    def test_one_row_at_a_time_is_the_recursion_of_shiryaev_and_roberts(self) -> None:
        """The batched form equals R = (R + 1)(1 + stake (x - m)), row by row, averaged over stakes and streams."""
        claim = Claim(np.array([0.3, 0.6]), rows_per_false_alarm=1e9)
        values = np.random.default_rng(0).random((50, 2))
        wealth = np.zeros((2, len(STAKES)))
        for row in values:
            wealth = (wealth + 1.0) * (1.0 + STAKES * ((row - claim.bounds) / claim.bounds)[:, None])
        np.testing.assert_allclose(np.exp(update(start(claim), claim, values).log_wealth), wealth, rtol=1e-9)

    def test_batches_make_no_difference(self) -> None:
        """Any split of the rows gives the same evidence and the same row of detection."""
        values = np.concatenate([coin_flips(0.08, 400, 1), coin_flips(0.3, 200, 2)])
        whole = update(start(CLAIM), CLAIM, values)
        evidence = start(CLAIM)
        for part in np.split(values, [1, 7, 7, 300, 450]):
            evidence = update(evidence, CLAIM, part)
        np.testing.assert_allclose(evidence.log_wealth, whole.log_wealth, rtol=1e-9)
        assert (evidence.rows, evidence.detected_at) == (whole.rows, whole.detected_at)
        assert whole.detected_at is not None

    def test_rows_that_are_not_about_a_stream_change_nothing(self) -> None:
        """NaN rows in between leave the wealth as it is."""
        values = coin_flips(0.2, 60, 3)
        gaps = np.full((60, 1), np.nan)
        woven = np.stack([values, gaps], axis=1).reshape(-1, 1)
        dense, sparse = update(start(CLAIM), CLAIM, values), update(start(CLAIM), CLAIM, woven)
        np.testing.assert_allclose(sparse.log_wealth, dense.log_wealth, rtol=1e-9)

    @pytest.mark.parametrize("seed", range(10))
    def test_quiet_stream_stays_silent_over_thousands_of_looks(self, seed: int) -> None:
        """Errors at 8% against a bound of 8.5% raise nothing in 6,000 rows, each of them a look."""
        assert not update(start(CLAIM), CLAIM, coin_flips(0.08, 6000, seed)).has_detected

    def test_false_alarms_at_the_very_bound_keep_to_their_budget(self) -> None:
        """Of 200 streams that sit on their bound for 500 rows at most 500 / 10,000 raise an alarm, and chance."""
        claim = Claim(np.array([0.2]), rows_per_false_alarm=10_000)
        alarms = sum(update(start(claim), claim, coin_flips(0.2, 500, seed)).has_detected for seed in range(200))
        assert alarms <= 10 + 6

    @pytest.mark.parametrize("seed", range(5))
    def test_late_change_is_found_as_quickly_as_an_early_one(self, seed: int) -> None:
        """Errors rising from 8% to 20% after 3,000 quiet rows are found within 500 more."""
        values = np.concatenate([coin_flips(0.08, 3000, seed), coin_flips(0.2, 1000, seed + 100)])
        found = update(start(CLAIM), CLAIM, values).detected_at
        assert found is not None
        assert 3000 < found <= 3500

    def test_bounds_of_rows_replace_those_of_the_claim(self) -> None:
        """Rows with bounds of their own are bet on against these, each by itself."""
        values, bounds = np.array([[1.0], [0.0], [1.0]]), np.array([[0.5], [0.2], [0.9]])
        wealth = np.zeros(len(STAKES))
        for value, bound in zip(values[:, 0], bounds[:, 0], strict=True):
            wealth = (wealth + 1.0) * (1.0 + STAKES * (value - bound) / bound)
        got = update(start(CLAIM), CLAIM, values, bounds)
        np.testing.assert_allclose(np.exp(got.log_wealth[0]), wealth, rtol=1e-9)
        with pytest.raises(CannotMeasure, match="bounds must be in"):
            update(start(CLAIM), CLAIM, values, bounds * 2)

    def test_detection_is_kept(self) -> None:
        """A claim that has fallen stays fallen through quiet rows that follow."""
        fallen = update(start(CLAIM), CLAIM, np.ones((50, 1)))
        later = update(fallen, CLAIM, np.zeros((500, 1)))
        assert later.detected_at == fallen.detected_at
        assert update(later, CLAIM, np.empty((0, 1))) is later

    @pytest.mark.parametrize("bound", [1e-4, 0.5, 1.0 - 1e-4])
    def test_rows_that_are_all_one_way_overflow_nothing(self, bound: float) -> None:
        """Twenty thousand of them, against any bound: wealth stays a number, and a quiet stream has little of it."""
        claim = Claim(np.array([bound]), rows_per_false_alarm=1e6)
        quiet = update(start(claim), claim, np.zeros((20_000, 1)))
        loud = update(start(claim), claim, np.ones((20_000, 1)))
        assert np.isfinite(quiet.log_wealth).all()
        assert np.isfinite(loud.log_wealth).all()
        assert quiet.detected_at is None
        assert (loud.detected_at is None) == (bound > 0.99)

    @pytest.mark.parametrize("bounds", [np.array([0.0]), np.array([1.0]), np.array([]), np.array([[0.5]])])
    def test_bound_out_of_range_is_refused(self, bounds: FloatArray) -> None:
        """A bound is above 0 and below 1."""
        with pytest.raises(CannotMeasure, match="bounds"):
            Claim(bounds, 100.0)

    def test_value_out_of_range_is_refused(self) -> None:
        """A bet on a value outside [0, 1] would prove nothing."""
        with pytest.raises(CannotMeasure, match=r"in \[0, 1\]"):
            update(start(CLAIM), CLAIM, np.array([[1.5]]))
        with pytest.raises(CannotMeasure, match=r"\(n, 1\)"):
            update(start(CLAIM), CLAIM, np.ones((3, 2)))


class TestEValues:
    def test_mean_under_the_claim_is_at_most_one(self) -> None:
        """Exactly, over all 2^10 outcomes of ten coins at the bound."""
        outcomes = (np.arange(1024)[:, None] >> np.arange(10)) & 1
        chances = np.prod(np.where(outcomes, 0.3, 0.7), axis=1)
        e_values = np.exp(log_e_values(outcomes.T.astype(float), np.full(1024, 0.3)))
        assert float(chances @ e_values) == pytest.approx(1.0, abs=1e-12)

    def test_e_bh_is_its_definition(self) -> None:
        """The k largest fall for the largest k whose k-th e-value is at least K / (alpha k)."""
        rng = np.random.default_rng(4)
        for _ in range(50):
            e_values = np.exp(rng.normal(2.0, 2.0, 7))
            ordered = np.sort(e_values)[::-1]
            k = max((k for k in range(1, 8) if ordered[k - 1] >= 7 / (0.1 * k)), default=0)
            falls = e_bh(np.log(e_values), 0.1)
            assert falls.sum() == k
            assert set(e_values[falls]) == set(ordered[:k])


class TestConfidenceSequence:
    def test_ends_are_where_the_mixture_is_twenty_to_one(self) -> None:
        """At each end the average likelihood over a uniform prior is 1 / 0.05 times the likelihood."""
        hits, n = 37.5, 50
        average, _ = quad(lambda q: q**hits * (1 - q) ** (n - hits), 0.0, 1.0, epsabs=0.0)
        for end in confidence_sequence(hits, n):
            assert average / (end**hits * (1 - end) ** (n - hits)) == pytest.approx(20.0, rel=1e-6)

    def test_holds_the_truth_at_every_look_at_once(self) -> None:
        """Of 60 streams looked at 20 times each, at most a few leave the interval at any look."""
        outside = 0
        for seed in range(60):
            running = np.cumsum(coin_flips(0.1, 1000, seed))
            ends = [confidence_sequence(float(running[n - 1]), n) for n in range(50, 1001, 50)]
            outside += not all(low <= 0.1 <= high for low, high in ends)
        assert outside <= 3 + 3

    def test_certain_streams_have_an_end_at_the_edge(self) -> None:
        """All hits, or none, reach to 1 and to 0."""
        assert confidence_sequence(20, 20)[1] == 1.0
        assert confidence_sequence(0, 20)[0] == 0.0

    def test_impossible_sum_is_refused(self) -> None:
        """More hits than rows is no sum of values in [0, 1]."""
        with pytest.raises(CannotMeasure, match="sum of 3 values"):
            confidence_sequence(4, 3)


def test_stakes_never_lose_all() -> None:
    """At the least value every stake leaves some wealth, so that one row settles nothing."""
    assert np.all(sequential.STAKES < 1.0)
