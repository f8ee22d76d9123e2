"""ECE signals agree with netcal, and a temperature error is found while a calibrated stream stays silent."""

import numpy as np
import pytest

from model_repo.contract.calibration_error import (
    bin_counts,
    debiased_ece,
    equal_mass_edges,
    equal_width_edges,
    expected_calibration_error,
)
from model_repo.contract.decision import softmax
from model_repo.contract.errors import CannotMeasure
from model_repo.contract.outputs import BoolArray, FloatArray
from monitoring.calibration import (
    CALIBRATION_SIGNALS,
    GapReference,
    calibration_signals,
    gap_claim,
    gap_reference,
    gap_rows,
)
from monitoring.sequential import Claim, Evidence, start, update
from monitoring.signals import Signal, Verdict
from tests.monitoring.watches import DETECTED, NOTHING, WATCHES


def stream(n: int, seed: int, temperature: float = 1.0, intents: int = 5) -> tuple[FloatArray, FloatArray]:
    """Probabilities and one-hot labels of a model that is calibrated at temperature 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 1.0, (n, intents))
    logits[np.arange(n), rng.integers(0, intents, n)] += 4.0
    chances = softmax(logits)
    labels = np.minimum((chances.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), intents - 1)
    return softmax(logits, temperature), np.eye(intents)[labels]


def correctness(probabilities: FloatArray, targets: FloatArray) -> BoolArray:
    return np.asarray(probabilities.argmax(axis=1) == targets.argmax(axis=1))


def signals_of(probabilities: FloatArray, targets: FloatArray, evidence: Evidence | None) -> dict[str, Signal]:
    is_correct = correctness(probabilities, targets) if len(targets) else np.zeros(0, dtype=bool)
    references = dict.fromkeys(CALIBRATION_SIGNALS, 0.005)
    rng = np.random.default_rng(0)
    signals = calibration_signals(probabilities, is_correct, targets, WATCHES, references, evidence, rng)
    return {signal.name: signal for signal in signals}


class TestNumbers:
    def test_plug_in_behind_the_signals_is_that_of_netcal(self) -> None:
        """The bins of a window give netcal's ECE, of equal width and of equal mass, to 1e-6."""
        from netcal.metrics import ECE

        probabilities, targets = stream(1200, 1, temperature=0.6)
        confidence, is_correct = probabilities.max(axis=1), correctness(probabilities, targets)
        for edges, is_equal_width in ((equal_width_edges(), True), (equal_mass_edges(confidence), False)):
            theirs = ECE(bins=15, equal_intervals=is_equal_width).measure(confidence, is_correct.astype(int))
            ours = expected_calibration_error(bin_counts(confidence, is_correct, edges))
            assert float(ours) == pytest.approx(float(theirs), abs=1e-6)

    def test_signals_are_debiased_and_hold_the_truth(self) -> None:
        """The value is the debiased ECE of the window, inside the plug-in's interval; a perfect model's holds zero."""
        probabilities, targets = stream(800, 2)
        confidence, is_correct = probabilities.max(axis=1), correctness(probabilities, targets)
        got = signals_of(probabilities, targets, NOTHING)
        expected = debiased_ece(bin_counts(confidence, is_correct, equal_width_edges()))
        assert tuple(got) == CALIBRATION_SIGNALS
        assert got["ece"].value == pytest.approx(float(expected), abs=1e-12)
        assert got["ece"].low <= 1e-9
        assert all(signal.low <= signal.value <= signal.high for signal in got.values())

    def test_empty_window_is_inconclusive(self) -> None:
        """No labels, no number."""
        got = signals_of(np.empty((0, 5)), np.empty((0, 5)), DETECTED)
        assert {signal.verdict for signal in got.values()} == {Verdict.INCONCLUSIVE}
        with pytest.raises(CannotMeasure):
            gap_reference(np.empty(0), np.empty(0, dtype=bool))


class TestEvidence:
    def reference(self) -> GapReference:
        """Of 3,000 rows of the calibrated stream."""
        probabilities, targets = stream(3000, 3)
        return gap_reference(probabilities.max(axis=1), correctness(probabilities, targets))

    def after(self, parts: list[tuple[FloatArray, FloatArray]]) -> Evidence:
        """The evidence after these parts, one after the other."""
        reference = self.reference()
        claim = gap_claim(reference, WATCHES["ece"])
        evidence = start(claim)
        for probabilities, targets in parts:
            is_correct = correctness(probabilities, targets)
            values, bounds = gap_rows(probabilities.max(axis=1), is_correct, reference, WATCHES["ece"])
            evidence = update(evidence, claim, values, bounds)
        return evidence

    @pytest.mark.parametrize("seed", [11, 12, 13])
    def test_calibrated_stream_stays_silent(self, seed: int) -> None:
        """4,000 labels, each a look, raise nothing."""
        assert not self.after([stream(4000, seed)]).has_detected

    @pytest.mark.parametrize(("temperature", "seed"), [(0.5, 21), (0.5, 22), (1.7, 23), (1.7, 24)])
    def test_temperature_error_is_found_within_2500_labels(self, temperature: float, seed: int) -> None:
        """Too sure and too unsure alike, after a quiet start; the signal then breaches."""
        evidence = self.after([stream(1000, seed), stream(2500, seed + 10, temperature)])
        assert evidence.detected_at is not None
        assert 1000 < evidence.detected_at <= 3500
        probabilities, targets = stream(2500, seed + 10, temperature)
        assert signals_of(probabilities, targets, evidence)["ece"].verdict is Verdict.BREACHED

    def test_gaps_that_cancel_out_are_found_by_range(self) -> None:
        """Too sure where confident and too unsure elsewhere has no gap over all rows, and is found all the same."""
        reference = GapReference(np.array([0.7]), np.zeros(3), np.array([1.0, 0.5, 0.5]), np.zeros(3))
        claim = gap_claim(reference, WATCHES["ece"])
        confidence = np.tile([0.6, 0.9], 1000)
        is_correct = np.random.default_rng(4).random(2000) < np.tile([0.75, 0.75], 1000)
        assert abs(float((confidence - is_correct).mean())) < 0.02
        values, bounds = gap_rows(confidence, is_correct, reference, WATCHES["ece"])
        assert update(start(claim), claim, values, bounds).has_detected

    def test_errors_of_the_sure_are_found_before_the_gaps(self) -> None:
        """Confidence that went from 0.97 to 0.998 where one in thirty errs: the mean has hardly moved."""
        rng = np.random.default_rng(5)
        confidence, is_correct = np.full(5000, 0.97), rng.random(5000) < 0.97
        reference = gap_reference(np.append(confidence, 0.5), np.append(is_correct, True), ranges=1)
        values, bounds = gap_rows(np.full(800, 0.998), rng.random(800) < 0.967, reference, WATCHES["ece"])
        claim = gap_claim(reference, WATCHES["ece"])
        assert update(start(claim), claim, values, bounds).has_detected
        without = gap_claim(reference, WATCHES["ece"])
        of_gaps = Claim(without.bounds[:-1], without.rows_per_false_alarm)
        assert not update(start(of_gaps), of_gaps, values[:, :-1]).has_detected
