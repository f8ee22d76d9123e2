"""Calibration errors agree with netcal and torchmetrics, add up over replicas, and lose their bias when debiased."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_repo.contract import calibration_error as ce
from model_repo.contract.errors import CannotMeasure

Sample = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def calibrated(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Confidences as a good model gives them, and outcomes that they are exactly right about."""
    confidence = rng.beta(6.0, 1.0, n)
    return confidence, rng.random(n) < confidence


def overconfident(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Right 10 percentage points less often than the confidence says."""
    confidence = 0.5 + 0.5 * rng.random(n)
    return confidence, rng.random(n) < confidence - 0.1


def plug_in(confidence: np.ndarray, is_correct: np.ndarray) -> float:
    """ECE in 15 equal-width bins."""
    return float(ce.expected_calibration_error(ce.bin_counts(confidence, is_correct, ce.equal_width_edges())))


class TestAgreesWithPublishedImplementations:
    def test_equal_width_ece_of_torchmetrics(self) -> None:
        """The same arrays give the same ECE to 1e-6."""
        import torch
        from torchmetrics.functional.classification import multiclass_calibration_error

        rng = np.random.default_rng(0)
        logits = rng.normal(size=(2000, 10)) * 3
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        true = rng.integers(0, 10, 2000)
        theirs = multiclass_calibration_error(
            torch.tensor(probabilities), torch.tensor(true), num_classes=10, n_bins=15, norm="l1"
        )
        ours = plug_in(probabilities.max(axis=1), probabilities.argmax(axis=1) == true)
        assert ours == pytest.approx(float(theirs), abs=1e-6)

    @pytest.mark.parametrize("make", [calibrated, overconfident])
    def test_equal_width_ece_of_netcal(self, make: Sample) -> None:
        """The same arrays give the same ECE to 1e-6."""
        from netcal.metrics import ECE

        confidence, is_correct = make(1500, np.random.default_rng(1))
        theirs = ECE(bins=15).measure(confidence, is_correct.astype(int))
        # netcal reads a one-dimensional array as the probability of the label 1: the same event, the same bins.
        assert plug_in(confidence, is_correct) == pytest.approx(float(theirs), abs=1e-6)

    def test_equal_mass_ece_of_netcal(self) -> None:
        """Distinct confidences in bins of equal mass give the same ECE to 1e-6."""
        from netcal.metrics import ECE

        confidence, is_correct = overconfident(1500, np.random.default_rng(2))
        theirs = ECE(bins=15, equal_intervals=False).measure(confidence, is_correct.astype(int))
        bins = ce.bin_counts(confidence, is_correct, ce.equal_mass_edges(confidence))
        assert float(ce.expected_calibration_error(bins)) == pytest.approx(float(theirs), abs=1e-6)

    def test_class_wise_ece_is_the_mean_of_each_class_alone(self) -> None:
        """The one-pass form equals the definition, class by class, with weights too."""
        rng = np.random.default_rng(3)
        probabilities = rng.dirichlet(np.ones(5), 300)
        targets = np.eye(5)[rng.integers(0, 5, 300)]
        weights = rng.integers(0, 3, (4, 300)).astype(float)
        by_class = [
            ce.expected_calibration_error(
                ce.bin_counts(probabilities[:, k], targets[:, k] > 0, ce.equal_width_edges(), weights)
            )
            for k in range(5)
        ]
        together = ce.class_wise_ece(probabilities, targets, weights)
        assert together.tolist() == pytest.approx(np.mean(by_class, axis=0).tolist(), abs=1e-12)


class TestDebiased:
    def test_bias_of_a_perfectly_calibrated_model(self) -> None:
        """Over 400 samples of 500 labels: the plug-in error is biased, debiasing halves that, squaring removes it."""
        rng = np.random.default_rng(4)
        plain, debiased, squared = [], [], []
        for _ in range(400):
            bins = ce.bin_counts(*calibrated(500, rng), ce.equal_width_edges())
            plain.append(float(ce.expected_calibration_error(bins)))
            debiased.append(float(ce.debiased_ece(bins)))
            squared.append(float(ce.debiased_squared_error(bins)))
        assert np.mean(plain) > 0.02
        assert 0.4 * np.mean(plain) < np.mean(debiased) < 0.7 * np.mean(plain)
        # Unbiased but for bins of one label, which it must skip.
        assert abs(np.mean(squared)) < 3 * np.std(squared) / np.sqrt(400) + 1e-4

    def test_debiased_errors_find_a_real_miscalibration(self) -> None:
        """Ten points of overconfidence: ECE 0.10 and squared error 0.01, from 2,000 labels."""
        bins = ce.bin_counts(*overconfident(2000, np.random.default_rng(5)), ce.equal_width_edges())
        assert float(ce.debiased_ece(bins)) == pytest.approx(0.10, abs=0.02)
        assert float(ce.debiased_squared_error(bins)) == pytest.approx(0.01, abs=0.004)

    def test_squared_error_is_the_published_formula(self) -> None:
        """Written out by hand for two bins, one of them with a single label."""
        bins = ce.BinCounts(np.array([5.0, 1.0]), np.array([3.0, 1.0]), np.array([2.0, 0.9]))
        by_hand = 5 / 6 * ((0.6 - 0.4) ** 2 - 0.6 * 0.4 / 4)
        assert float(ce.debiased_squared_error(bins)) == pytest.approx(by_hand, abs=1e-12)

    def test_closed_form_equals_the_simulation_it_replaces(self) -> None:
        """The folded-normal mean equals the average over simulated bin accuracies."""
        bins = ce.BinCounts(np.array([40.0, 60.0]), np.array([30.0, 54.0]), np.array([31.0, 52.0]))
        accuracy, confidence, size = bins.correct / bins.count, bins.confidence / bins.count, bins.count
        rng = np.random.default_rng(6)
        drawn = rng.normal(accuracy, np.sqrt(accuracy * (1 - accuracy) / size), (200_000, 2))
        simulated = (np.abs(drawn - confidence) * size).sum(axis=1).mean() / 100
        plain = float(ce.expected_calibration_error(bins))
        assert float(ce.debiased_ece(bins)) == pytest.approx(2 * plain - simulated, abs=5e-4)


class TestBins:
    @given(st.integers(0, 2**32 - 1), st.integers(1, 59))
    def test_bins_of_two_replicas_add_up_to_the_bins_of_their_traffic(self, seed: int, cut: int) -> None:
        """However the traffic is split, the summed bins give the ECE of all of it."""
        confidence, is_correct = overconfident(60, np.random.default_rng(seed))
        edges = ce.equal_width_edges()
        first = ce.bin_counts(confidence[:cut], is_correct[:cut], edges)
        second = ce.bin_counts(confidence[cut:], is_correct[cut:], edges)
        merged = float(ce.expected_calibration_error(first + second))
        assert merged == pytest.approx(plug_in(confidence, is_correct), abs=1e-12)

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
    def test_every_confidence_has_a_bin(self, values: list[float]) -> None:
        """Counts sum to the rows, ends and ties included, in bins of either kind; the ECE is in [0, 1]."""
        confidence = np.array(values)
        for edges in (ce.equal_width_edges(), ce.equal_mass_edges(confidence)):
            bins = ce.bin_counts(confidence, confidence > 0.5, edges)
            assert bins.count.sum() == len(values)
            assert bins.confidence.sum() == pytest.approx(confidence.sum(), abs=1e-9)
            assert 0.0 <= float(ce.expected_calibration_error(bins)) <= 1.0

    def test_equal_mass_bins_hold_equal_counts(self) -> None:
        """1,500 distinct confidences fall 100 to a bin."""
        confidence, is_correct = calibrated(1500, np.random.default_rng(7))
        bins = ce.bin_counts(confidence, is_correct, ce.equal_mass_edges(confidence))
        assert bins.count.tolist() == [100.0] * 15

    def test_tied_confidences_share_a_bin(self) -> None:
        """A tie is never cut in two, so the order of the rows plays no part."""
        edges = ce.equal_mass_edges(np.array([0.9] * 28 + [0.2] * 2))
        assert len(edges) == 3

    def test_bins_of_other_edges_cannot_be_added(self) -> None:
        """Different numbers of bins are refused."""
        confidence, is_correct = calibrated(20, np.random.default_rng(8))
        few, many = (ce.bin_counts(confidence, is_correct, ce.equal_width_edges(b)) for b in (10, 15))
        with pytest.raises(CannotMeasure, match="differ in shape"):
            few + many


class TestDegenerateInput:
    @pytest.mark.parametrize("confidence", [[1.2, 0.5], [-0.1, 0.5], [float("nan"), 0.5]])
    def test_confidence_out_of_range_is_named(self, confidence: list[float]) -> None:
        """NaN included."""
        with pytest.raises(CannotMeasure, match=r"in \[0, 1\]"):
            ce.bin_counts(np.array(confidence), np.array([True, False]), ce.equal_width_edges())

    def test_no_rows_are_refused(self) -> None:
        """No ECE of nothing."""
        with pytest.raises(CannotMeasure, match="at least one row"):
            ce.bin_counts(np.array([]), np.array([], dtype=np.bool_), ce.equal_width_edges())
        empty = ce.BinCounts(np.zeros(3), np.zeros(3), np.zeros(3))
        with pytest.raises(CannotMeasure, match="at least one row"):
            ce.expected_calibration_error(empty)

    def test_unequal_lengths_are_named(self) -> None:
        """Both lengths are in the message."""
        with pytest.raises(CannotMeasure, match="2 rows and is_correct 1"):
            ce.bin_counts(np.array([0.5, 0.6]), np.array([True]), ce.equal_width_edges())
