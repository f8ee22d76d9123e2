"""Distances agree with published implementations and brute force; quiet streams are silent, moved ones found."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import FloatArray
from model_repo.contract.reference import quantiles
from monitoring.drift import (
    ks_claim,
    ks_distance,
    ks_signal,
    ks_values,
    median_bandwidth,
    mix_claim,
    mix_signal,
    mix_values,
    mmd_signal,
    mmd_squared,
)
from monitoring.sequential import start, update
from monitoring.signals import Verdict, Watch
from tests.monitoring.watches import DETECTED, WATCHES

MMD_WATCH = Watch("up", threshold=0.005, tolerated=0.0, minimum_rows=100, rows_per_false_alarm=50_000)


def brute_force_mmd(x: FloatArray, y: FloatArray, bandwidth: float) -> float:
    """Gretton et al. 2012, equation 3, term by term."""

    def k(a: FloatArray, b: FloatArray) -> float:
        return float(np.exp(-np.sum((a - b) ** 2) / (2 * bandwidth**2)))

    m, n = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (m * n)


class TestKs:
    def test_distance_is_that_of_scipy(self) -> None:
        """Against a reference that is its own quantiles to 1e-6; against a large one to a step of its 257 quantiles."""
        rng = np.random.default_rng(0)
        values, few, many = rng.normal(0.3, 1.0, 500), rng.normal(0.0, 1.0, 257), rng.normal(0.0, 1.0, 4000)
        assert ks_distance(values, few) == pytest.approx(float(ks_2samp(values, few).statistic), abs=1e-6)
        assert ks_distance(values, quantiles(many)) == pytest.approx(float(ks_2samp(values, many).statistic), abs=0.005)

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_quiet_stream_is_silent_and_a_shifted_one_is_found(self, seed: int) -> None:
        """10,000 rows of the reference's kind raise nothing; 0.4 deviations up are found within 1,000."""
        rng = np.random.default_rng(seed)
        reference = quantiles(np.random.default_rng(100).normal(0.0, 1.0, 4000))
        cuts, claim = ks_claim(reference, WATCHES["energy_ks"])
        evidence = update(start(claim), claim, ks_values(rng.normal(0.0, 1.0, 10_000), cuts))
        assert not evidence.has_detected
        moved = rng.normal(0.4, 1.0, 1000)
        evidence = update(evidence, claim, ks_values(moved, cuts))
        assert evidence.detected_at is not None
        assert evidence.detected_at <= 11_000
        assert ks_signal("energy_ks", moved, reference, WATCHES["energy_ks"], evidence).verdict is Verdict.BREACHED

    def test_one_window_alone_needs_more_than_tolerated(self) -> None:
        """Without a followed stream, a large distance fires and a small one does not."""
        reference = quantiles(np.random.default_rng(5).normal(0.0, 1.0, 4000))
        for shift, verdict in ((0.0, Verdict.OK), (1.0, Verdict.BREACHED)):
            values = np.random.default_rng(6).normal(shift, 1.0, 2000)
            assert ks_signal("energy_ks", values, reference, WATCHES["energy_ks"]).verdict is verdict

    def test_constant_reference_is_borne(self) -> None:
        """A reference of one value has one cut, and its ties are counted as they are."""
        cuts, claim = ks_claim(np.full(257, 0.5), WATCHES["confidence_ks"])
        assert cuts.tolist() == [0.5]
        assert not update(start(claim), claim, ks_values(np.full(3000, 0.5), cuts)).has_detected


class TestMix:
    COUNTS = np.array([900, 50, 90])

    def test_value_is_the_share_that_changed(self) -> None:
        """Half of the languages swapped is half of total variation."""
        signal = mix_signal("language_shift", np.array([0, 0, 1, 1]), np.array([5, 0, 5]), WATCHES["language_shift"])
        assert signal.value == pytest.approx(0.5)
        assert signal.verdict is Verdict.INCONCLUSIVE

    def test_quiet_mix_is_silent_and_a_moved_one_is_found(self) -> None:
        """10,000 rows raise nothing; ten points moved from the first kind to the last are found within 1,000."""
        rng, watch = np.random.default_rng(7), WATCHES["language_shift"]
        shares = self.COUNTS / self.COUNTS.sum()
        claim = mix_claim(self.COUNTS, watch)
        evidence = update(start(claim), claim, mix_values(rng.choice(3, 10_000, p=shares), 3))
        assert not evidence.has_detected
        moved = rng.choice(3, 1000, p=shares + np.array([-0.1, 0.0, 0.1]))
        evidence = update(evidence, claim, mix_values(moved, 3))
        assert evidence.has_detected
        assert mix_signal("language_shift", moved, self.COUNTS, watch, evidence).verdict is Verdict.BREACHED

    def test_reference_without_rows_is_refused(self) -> None:
        """No rows, no shares."""
        with pytest.raises(CannotMeasure, match="reference counts"):
            mix_signal("language_shift", np.array([0]), np.zeros(3, dtype=int), WATCHES["language_shift"], DETECTED)


class TestMmd:
    def test_estimate_is_the_published_one(self) -> None:
        """The one-product form equals the double sums to 1e-9, with sides of unequal size."""
        rng = np.random.default_rng(8)
        x, y = rng.normal(0.0, 1.0, (21, 4)), rng.normal(0.5, 1.0, (15, 4))
        bandwidth = median_bandwidth(x)
        assert mmd_squared(x, y, bandwidth) == pytest.approx(brute_force_mmd(x, y, bandwidth), abs=1e-9)

    def test_squared_mmd_is_that_of_torchmetrics(self) -> None:
        """Its estimate from kernel matrices, which scikit-learn makes, for as many rows on either side."""
        import torch
        from sklearn.metrics.pairwise import rbf_kernel
        from torchmetrics.image.kid import maximum_mean_discrepancy

        rng = np.random.default_rng(5)
        x, y = rng.normal(size=(150, 8)), rng.normal(0.3, 1.2, size=(150, 8))
        gamma = 1.0 / (2.0 * 2.5**2)
        kernels = [torch.tensor(rbf_kernel(one, other, gamma=gamma)) for one, other in ((x, x), (x, y), (y, y))]
        assert mmd_squared(x, y, 2.5) == pytest.approx(float(maximum_mean_discrepancy(*kernels)), abs=1e-6)

    def test_estimate_is_unbiased(self) -> None:
        """Over 200 pairs of one kind its mean is zero within chance; a biased estimate would be off by 0.05."""
        rng = np.random.default_rng(9)
        values = [mmd_squared(rng.normal(size=(20, 3)), rng.normal(size=(20, 3)), 2.0) for _ in range(200)]
        assert abs(float(np.mean(values))) < 4 * float(np.std(values)) / np.sqrt(200)

    def test_null_pairs_are_silent_and_moved_embeddings_found(self) -> None:
        """Ten windows of the reference's kind do not fire; one and a half deviations along one of 16 axes do."""
        rng = np.random.default_rng(10)
        reference = rng.normal(size=(150, 16))
        for _ in range(10):
            quiet = mmd_signal("embedding_mmd", reference, rng.normal(size=(100, 16)), MMD_WATCH, rng)
            assert quiet.verdict is Verdict.OK
        moved = rng.normal(size=(100, 16)) + np.eye(16)[0] * 1.5
        signal = mmd_signal("embedding_mmd", reference, moved, MMD_WATCH, rng)
        assert signal.verdict is Verdict.BREACHED
        assert signal.low < signal.value < signal.high

    def test_collapsed_reference_is_refused(self) -> None:
        """Embeddings that are all the same give no bandwidth, rather than a division by zero."""
        with pytest.raises(CannotMeasure, match="the same"):
            median_bandwidth(np.ones((5, 2)))
