"""AUROC, FPR95 and AUPR agree with scikit-learn, ties and weights included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from model_repo.contract import ranking
from model_repo.contract.errors import CannotMeasure


def sample(seed: int, n: int, is_tied: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score, is_ood and whole weights; both kinds are present and weigh something."""
    rng = np.random.default_rng(seed)
    is_ood = rng.random(n) < 0.3
    is_ood[:2] = True, False
    score = rng.normal(size=n) + is_ood
    weights = rng.integers(0, 3, n).astype(float)
    weights[:2] = 1.0
    return np.round(score, 0 if is_tied else 9), is_ood, weights


def published_fpr95(score: np.ndarray, is_ood: np.ndarray, weights: np.ndarray) -> float:
    """From scikit-learn's ROC curve with in-scope as the positive, as the ood literature has it."""
    fpr, tpr, _ = roc_curve(~is_ood, -score, sample_weight=weights, drop_intermediate=False)
    return float(fpr[np.argmax(tpr >= 0.95 - 1e-12)])


@given(st.integers(0, 2**32 - 1), st.integers(2, 80), st.booleans())
@settings(max_examples=60, deadline=None)
def test_agrees_with_scikit_learn(seed: int, n: int, is_tied: bool) -> None:
    """All three, weighted, with and without ties."""
    score, is_ood, weights = sample(seed, n, is_tied)
    assert float(ranking.auroc(score, is_ood, weights)) == pytest.approx(
        roc_auc_score(is_ood, score, sample_weight=weights), abs=1e-9
    )
    assert float(ranking.aupr(score, is_ood, weights)) == pytest.approx(
        average_precision_score(is_ood, score, sample_weight=weights), abs=1e-9
    )
    assert float(ranking.fpr_at_tpr(score, is_ood, weights)) == pytest.approx(
        published_fpr95(score, is_ood, weights), abs=1e-9
    )


def test_many_resamples_give_what_each_gives_alone() -> None:
    """A (B, n) array of weights gives B numbers, for each of the three."""
    score, is_ood, _ = sample(0, 60, is_tied=True)
    weights = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), size=5).astype(float)
    for measure in (ranking.auroc, ranking.aupr, ranking.fpr_at_tpr):
        together = measure(score, is_ood, weights)
        assert together.tolist() == pytest.approx([float(measure(score, is_ood, w)) for w in weights], abs=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_only_the_order_of_scores_counts(seed: int) -> None:
    """A rising transform of the score changes nothing."""
    score, is_ood, _ = sample(seed, 40, is_tied=False)
    for measure in (ranking.auroc, ranking.aupr, ranking.fpr_at_tpr):
        assert float(measure(score, is_ood)) == pytest.approx(float(measure(np.exp(score / 4), is_ood)), abs=1e-12)


def test_reversed_score_gives_the_complement() -> None:
    """AUROC of the opposite score is one minus the AUROC."""
    score, is_ood, _ = sample(2, 50, is_tied=True)
    assert float(ranking.auroc(-score, is_ood)) == pytest.approx(1 - float(ranking.auroc(score, is_ood)), abs=1e-12)


def test_useless_score_lets_every_ood_through() -> None:
    """A constant score has AUROC one half and FPR95 one."""
    is_ood = np.array([True, False, False, True])
    assert float(ranking.auroc(np.zeros(4), is_ood)) == 0.5
    assert float(ranking.fpr_at_tpr(np.zeros(4), is_ood)) == 1.0


def test_resample_of_one_kind_is_nan() -> None:
    """It cannot rank, and does not stop the others."""
    score, is_ood = np.array([0.0, 1.0]), np.array([False, True])
    weights = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    for measure in (ranking.auroc, ranking.fpr_at_tpr):
        assert np.isnan(measure(score, is_ood, weights)).tolist() == [True, True, False]
    assert np.isnan(ranking.aupr(score, is_ood, weights)).tolist() == [True, False, False]


def test_one_kind_only_is_refused_with_its_counts() -> None:
    """The message says how many of each there are."""
    with pytest.raises(CannotMeasure, match="got 0 ood and 3 in-scope"):
        ranking.auroc(np.zeros(3), np.zeros(3, dtype=np.bool_))
    with pytest.raises(CannotMeasure, match="got 3 ood and 0 in-scope"):
        ranking.fpr_at_tpr(np.zeros(3), np.ones(3, dtype=np.bool_))


def test_nan_scores_are_counted() -> None:
    """NaN has no place in an order."""
    with pytest.raises(CannotMeasure, match="NaN in 1 rows"):
        ranking.aupr(np.array([0.0, np.nan]), np.array([True, False]))
