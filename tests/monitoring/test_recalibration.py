"""Halves are fixed, the stretch begins with the change, and a re-fit is sent on only when it did not help."""

from dataclasses import replace

import numpy as np
import pytest

from monitoring.failure_tree import REFIT_SIGNAL
from monitoring.recalibration import Judged, fit_half, judged, recent_stretch, refitted, verdict_after
from monitoring.signals import Signal, Verdict
from tests.monitoring.labelled_windows import POLICY, changed_rows, labelled_rows
from tests.monitoring.watches import WATCHES

WATCH = WATCHES[REFIT_SIGNAL]


class TestHalves:
    def test_halves_are_fixed_by_the_number_alone(self) -> None:
        """In another order and company each prediction stays in its half."""
        numbers = np.arange(5000)
        shuffled = np.random.default_rng(0).permutation(numbers)[:3000]
        assert (fit_half(shuffled) == fit_half(numbers)[shuffled]).all()

    @pytest.mark.parametrize("step", [1, 2, 3, 7, 24, 100])
    def test_traffic_that_alternates_is_halved_all_the_same(self, step: int) -> None:
        """Every second, third, ... prediction, as two senders in turn would make them."""
        assert abs(fit_half(np.arange(0, 1000 * step, step)).mean() - 0.5) < 0.02

    def test_each_stretch_of_time_is_in_both(self) -> None:
        """No hundred predictions lie on one side."""
        assert np.abs(fit_half(np.arange(10_000)).reshape(-1, 100).mean(axis=1) - 0.5).max() <= 0.05

    def test_the_judging_half_is_not_fitted_on(self) -> None:
        """Labels that are wrong in the judging half alone do not move the temperature."""
        rows = labelled_rows(1000, 3, sharpening=2.0)
        fits = fit_half(rows["number"])
        before = refitted(POLICY, rows[fits], rows).temperature
        spoilt = rows.copy()
        spoilt["truth"][~fits] = np.roll(spoilt["truth"][~fits], 1, axis=1)
        assert refitted(POLICY, spoilt[fits], rows).temperature == before


class TestStretch:
    def test_rows_before_the_change_are_left_out(self) -> None:
        """3,000 rows as they should be, then 900 twice as sharp: a fit across the change would come to half of it."""
        rows = changed_rows(3000, 900)
        stretch = recent_stretch(rows, 1.0, 250)
        assert 700 <= len(stretch) <= 1100
        assert (stretch == rows[-len(stretch) :]).all()
        assert refitted(POLICY, stretch, rows).temperature == pytest.approx(2.0, rel=0.15)
        assert refitted(POLICY, rows, rows).temperature < 1.5

    def test_change_that_is_older_than_the_window_takes_all_of_it(self) -> None:
        """More rows fit better."""
        assert len(recent_stretch(changed_rows(0, 2500), 1.0, 250)) > 2000

    def test_order_is_that_of_the_predictions(self) -> None:
        """Labels come in another order, and so do their rows."""
        rows = changed_rows(1500, 900)
        shuffled = rows[np.random.default_rng(0).permutation(len(rows))]
        assert (recent_stretch(shuffled, 1.0, 250) == recent_stretch(rows, 1.0, 250)).all()

    def test_labels_of_the_judging_half_choose_nothing(self) -> None:
        """Spoilt, they leave the stretch as it is."""
        rows = changed_rows(1500, 900)
        spoilt, fits = rows.copy(), fit_half(rows["number"])
        spoilt["truth"][~fits, :3] = np.roll(spoilt["truth"][~fits, :3], 1, axis=1)
        assert len(recent_stretch(spoilt, 1.0, 250)) == len(recent_stretch(rows, 1.0, 250))

    def test_few_rows_are_all_taken(self) -> None:
        """None, some, and just as many as two halves need."""
        assert len(recent_stretch(labelled_rows(0, 0), 1.0, 250)) == 0
        assert len(recent_stretch(labelled_rows(300, 0), 1.0, 250)) == 300
        assert 500 <= len(recent_stretch(labelled_rows(510, 0), 1.0, 250)) <= 510


class TestVerdict:
    def test_perfect_refits_are_seldom_sent_to_a_retrain(self) -> None:
        """Of 30 with 500 rows a half, at least 9 in 10 recover; by the bare estimate it would be fewer."""
        verdicts, bare = [], []
        for seed in range(30):
            fitted, rows = labelled_rows(500, seed, 2.0), labelled_rows(500, 1000 + seed, 2.0)
            old, new = (judged(policy, rows, WATCH, 0.01) for policy in (POLICY, refitted(POLICY, fitted, fitted)))
            verdicts.append(verdict_after(old, new, WATCH) is Verdict.OK)
            bare.append(new.ece.value - 0.01 < WATCH.threshold)
        assert np.mean(verdicts) >= 0.9
        assert np.mean(verdicts) >= np.mean(bare)

    def test_change_below_the_threshold_recovers_whatever_the_rest(self) -> None:
        """Also when the re-fit changed little: there was little to change."""
        assert verdict_after(_judged(0.018, 0.3), _judged(0.019, 0.31), WATCH) is Verdict.OK

    def test_change_that_did_not_shrink_persists(self) -> None:
        """Neither a higher NLL nor a higher ECE is a recovery."""
        assert verdict_after(_judged(0.04, 0.3), _judged(0.03, 0.31), WATCH) is Verdict.BREACHED
        assert verdict_after(_judged(0.04, 0.3), _judged(0.05, 0.29), WATCH) is Verdict.BREACHED

    def test_smaller_change_persists_once_the_rows_show_it(self) -> None:
        """The lower end of the interval against what is tolerated of the reference."""
        better = _judged(0.03, 0.29)
        assert verdict_after(_judged(0.06, 0.3), better, WATCH) is Verdict.OK
        shown = Judged(replace(better.ece, low=0.01 + WATCH.tolerated + 0.001), better.nll)
        assert verdict_after(_judged(0.06, 0.3), shown, WATCH) is Verdict.BREACHED

    def test_too_few_rows_are_inconclusive(self) -> None:
        """They neither swap nor retrain."""
        few = Judged(replace(_judged(0.0, 0.1).ece, n=WATCH.minimum_rows - 1), 0.1)
        assert verdict_after(_judged(0.06, 0.3), few, WATCH) is Verdict.INCONCLUSIVE


def _judged(ece: float, nll: float) -> Judged:
    """On 500 rows, against a reference of 0.01, of an interval that shows nothing."""
    return Judged(Signal(REFIT_SIGNAL, ece, 0.0, 2 * ece, 500, Verdict.OK, 0.01, WATCH.threshold), nll)
