"""Priors are found from decisions alone: exactly where the decisions are exact, and within chance elsewhere."""

import numpy as np
import pytest
from scipy.special import softmax

from model_repo.contract.errors import CannotMeasure
from monitoring.drift import mix_claim, mix_values
from monitoring.priors import bbse, em_priors, prior_shift_signal
from monitoring.sequential import start, update
from monitoring.signals import Verdict
from tests.monitoring.watches import WATCHES

CONFUSION = np.array([[380, 10, 5, 5], [12, 270, 10, 8], [6, 4, 180, 10], [5, 5, 10, 80]])
"""True by decided, 1,000 rows."""
PRIORS = CONFUSION.sum(axis=1) / CONFUSION.sum()
CHANCES = CONFUSION / CONFUSION.sum(axis=1, keepdims=True)
MOVED = PRIORS + np.array([-0.1, 0.0, 0.0, 0.1])


def decisions(priors: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Decided labels of a stream with these priors and the reference's mistakes."""
    return np.random.default_rng(seed).choice(4, n, p=priors @ CHANCES)


class TestEstimates:
    def test_bbse_inverts_the_confusion(self) -> None:
        """Expected decisions give the priors back exactly."""
        np.testing.assert_allclose(bbse(CONFUSION, 1000 * MOVED @ CHANCES), MOVED, atol=1e-9)

    def test_bbse_gives_no_negative_priors(self) -> None:
        """Decisions that no priors explain give the nearest that do."""
        priors = bbse(CONFUSION, np.array([0, 0, 0, 50]))
        assert np.all(priors >= 0.0)
        assert priors.sum() == pytest.approx(1.0)

    def test_em_finds_the_priors_of_a_calibrated_model(self) -> None:
        """Two Gaussians at priors of 0.8 and 0.2, seen by a model that was trained at even ones."""
        rng = np.random.default_rng(0)
        labels = (rng.random(5000) < 0.2).astype(int)
        x = rng.normal(np.where(labels, 1.0, -1.0), 1.0)
        priors = em_priors(softmax(np.stack([-x, x], axis=1), axis=1), np.array([0.5, 0.5]))
        assert priors[1] == pytest.approx(0.2, abs=0.03)

    def test_shapes_that_do_not_fit_are_refused(self) -> None:
        """The message says what is allowed."""
        with pytest.raises(CannotMeasure, match="4 counts"):
            bbse(CONFUSION, np.array([1, 2]))
        with pytest.raises(CannotMeasure, match="square"):
            bbse(CONFUSION[:2], np.array([1, 2]))
        with pytest.raises(CannotMeasure, match=r"\(n, 4\)"):
            em_priors(np.ones((3, 2)) / 2, PRIORS)


class TestSignal:
    def test_quiet_stream_is_silent_and_priors_moved_by_ten_points_are_found(self) -> None:
        """10,000 decisions raise nothing; ten points moved are found within 2,000, without a label."""
        watch = WATCHES["prior_shift"]
        claim = mix_claim(CONFUSION.sum(axis=0), watch)
        evidence = update(start(claim), claim, mix_values(decisions(PRIORS, 10_000, 1), 4))
        assert not evidence.has_detected
        moved = decisions(MOVED, 2000, 2)
        evidence = update(evidence, claim, mix_values(moved, 4))
        assert evidence.has_detected
        signal = prior_shift_signal("prior_shift", CONFUSION, moved, watch, evidence, np.random.default_rng(3))
        assert signal.verdict is Verdict.BREACHED
        assert signal.low <= 0.1 <= signal.high

    def test_no_decisions_no_number(self) -> None:
        """An empty window is inconclusive."""
        watch = WATCHES["prior_shift"]
        claim = mix_claim(CONFUSION.sum(axis=0), watch)
        none = np.zeros(0, dtype=np.int64)
        signal = prior_shift_signal("prior_shift", CONFUSION, none, watch, start(claim), np.random.default_rng(0))
        assert (signal.verdict, signal.n) == (Verdict.INCONCLUSIVE, 0)
