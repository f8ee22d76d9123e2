"""Quality measures agree with scikit-learn, with weights and without, and refuse what they cannot measure."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss

from model_repo.contract import metrics
from model_repo.contract.errors import CannotMeasure

N, K = 400, 6


def sample(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (N, K), true class (N,), targets (N, K) with one or two intents."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(N, K)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = np.array([rng.choice(K, p=row) for row in probabilities])
    targets = np.eye(K, dtype=np.bool_)[true] | (rng.random((N, K)) < 0.05)
    return probabilities, true, targets


class TestAgreesWithScikitLearn:
    def test_macro_f1(self) -> None:
        """Macro-F1 is scikit-learn's, on whole-number weights too."""
        probabilities, true, _ = sample(0)
        top = probabilities.argmax(axis=1)
        assert float(metrics.macro_f1(true, top)) == pytest.approx(f1_score(true, top, average="macro"), abs=1e-12)
        weights = np.random.default_rng(1).integers(0, 4, N).astype(float)
        expected = f1_score(true, top, average="macro", sample_weight=weights)
        assert float(metrics.macro_f1(true, top, weights)) == pytest.approx(expected, abs=1e-12)

    def test_micro_f1_of_several_intents(self) -> None:
        """Micro-F1 is scikit-learn's for multi-label arrays."""
        probabilities, _, targets = sample(2)
        accepted = probabilities > 0.3
        expected = f1_score(targets, accepted, average="micro")
        assert float(metrics.micro_f1(accepted, targets)) == pytest.approx(expected, abs=1e-12)

    def test_nll_and_brier(self) -> None:
        """NLL is scikit-learn's log loss; Brier is the squared distance to the one-hot truth."""
        probabilities, true, _ = sample(3)
        one_hot = np.eye(K)[true]
        assert float(metrics.nll(probabilities, one_hot)) == pytest.approx(log_loss(true, probabilities), abs=1e-12)
        by_hand = np.mean([np.sum((p - y) ** 2) for p, y in zip(probabilities, one_hot, strict=True)])
        assert float(metrics.brier(probabilities, one_hot)) == pytest.approx(by_hand, abs=1e-12)

    def test_brier_is_that_of_scikit_learn_and_torchmetrics(self) -> None:
        """Of ten classes, on the same arrays."""
        import torch
        from sklearn.metrics import brier_score_loss
        from torchmetrics.functional.regression import mean_squared_error

        rng = np.random.default_rng(0)
        probabilities, true = rng.dirichlet(np.ones(10), 2000), rng.integers(0, 10, 2000)
        one_hot = np.eye(10)[true]
        ours = float(metrics.brier(probabilities, one_hot))
        labels = list(range(10))
        theirs = brier_score_loss(true, probabilities, labels=labels, scale_by_half=False)
        assert ours == pytest.approx(theirs, abs=1e-12)
        # Theirs is the mean over rows and classes.
        squared = mean_squared_error(torch.tensor(probabilities), torch.tensor(one_hot))
        assert ours == pytest.approx(10 * float(squared), abs=1e-6)

    def test_brier_of_two_classes_is_twice_the_binary_one(self) -> None:
        """With two classes the sum over both is twice scikit-learn's binary score."""
        from sklearn.metrics import brier_score_loss

        rng = np.random.default_rng(4)
        chance = rng.random(N)
        outcome = rng.random(N) < chance
        pair = np.stack([1 - chance, chance], axis=1)
        expected = 2 * brier_score_loss(outcome, chance)
        assert float(metrics.brier(pair, np.eye(2)[outcome.astype(int)])) == pytest.approx(expected, abs=1e-12)


class TestWeights:
    @given(st.integers(0, 2**32 - 1))
    @settings(max_examples=25, deadline=None)
    def test_whole_weights_equal_repeated_rows(self, seed: int) -> None:
        """Every measure gives the same for a weight of w as for w copies of the row."""
        rng = np.random.default_rng(seed)
        probabilities, true, targets = (part[:30] for part in sample(seed % 1000))
        top, accepted = probabilities.argmax(axis=1), probabilities > 0.3
        weights = rng.multinomial(30, np.full(30, 1 / 30)).astype(float)
        copies = np.repeat(np.arange(30), weights.astype(int))
        shares = metrics.shares(targets)
        pairs = [
            (metrics.accuracy(top == true, weights), metrics.accuracy((top == true)[copies])),
            (metrics.macro_f1(true, top, weights), metrics.macro_f1(true[copies], top[copies])),
            (metrics.micro_f1(accepted, targets, weights), metrics.micro_f1(accepted[copies], targets[copies])),
            (metrics.exact_match(accepted, targets, weights), metrics.exact_match(accepted[copies], targets[copies])),
            (metrics.brier(probabilities, shares, weights), metrics.brier(probabilities[copies], shares[copies])),
            (metrics.nll(probabilities, shares, weights), metrics.nll(probabilities[copies], shares[copies])),
        ]
        for weighted, repeated in pairs:
            assert float(weighted) == pytest.approx(float(repeated), abs=1e-9)

    def test_many_resamples_give_what_each_gives_alone(self) -> None:
        """A (B, n) array of weights gives B numbers, one a row."""
        probabilities, true, _ = sample(5)
        top = probabilities.argmax(axis=1)
        weights = np.random.default_rng(6).integers(0, 3, (7, N)).astype(float)
        together = metrics.macro_f1(true, top, weights)
        assert together.shape == (7,)
        assert together.tolist() == pytest.approx([float(metrics.macro_f1(true, top, w)) for w in weights])

    @given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(5, 8))
    def test_grouped_sums_are_a_weighted_bincount(self, groups: list[int], n_groups: int) -> None:
        """Empty groups, at either end too, sum to zero."""
        weights = np.arange(1.0, len(groups) + 1)
        expected = np.bincount(groups, weights, minlength=n_groups)
        assert metrics.grouped_sums(weights, np.array(groups), n_groups).tolist() == pytest.approx(expected.tolist())


class TestDegenerateInput:
    def test_no_rows_are_refused(self) -> None:
        """A mean of nothing is an error, not NaN."""
        with pytest.raises(CannotMeasure, match="at least one row"):
            metrics.accuracy(np.array([], dtype=np.bool_))
        with pytest.raises(CannotMeasure, match="at least one row"):
            metrics.macro_f1(np.array([], dtype=int), np.array([], dtype=int))

    def test_unequal_lengths_are_named(self) -> None:
        """The message gives both lengths."""
        with pytest.raises(CannotMeasure, match="'true': 2, 'predicted': 3"):
            metrics.macro_f1(np.array([0, 1]), np.array([0, 1, 1]))
        with pytest.raises(CannotMeasure, match=r"\(1, 2\) and \(2, 2\)"):
            metrics.micro_f1(np.ones((1, 2), dtype=np.bool_), np.ones((2, 2), dtype=np.bool_))

    def test_wrong_number_of_weights_is_named(self) -> None:
        """Weights must end in the number of rows."""
        with pytest.raises(CannotMeasure, match="number of rows, 2"):
            metrics.accuracy(np.array([True, False]), np.ones((5, 3)))

    def test_recall_of_a_label_nobody_carries_is_refused(self) -> None:
        """Zero of zero is not a recall."""
        with pytest.raises(CannotMeasure, match="none of 2"):
            metrics.recall(np.array([True, False]), np.array([False, False]))
        with pytest.raises(CannotMeasure, match="none of 2"):
            metrics.precision(np.array([False, False]), np.array([True, False]))

    def test_resample_without_the_label_is_nan(self) -> None:
        """Inside a bootstrap a resample may lack the label: that one is NaN, the others count."""
        weights = np.array([[0.0, 2.0], [1.0, 1.0]])
        given_weights = metrics.recall(np.array([True, True]), np.array([True, False]), weights)
        assert np.isnan(given_weights).tolist() == [True, False]

    def test_certain_and_wrong_costs_a_finite_nll(self) -> None:
        """A probability of zero on the truth costs 708 nats, not infinity."""
        assert float(metrics.nll(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]))) == pytest.approx(708.4, abs=0.1)
