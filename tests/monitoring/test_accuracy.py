"""An accuracy that falls by three points is found within 2,500 labels, however it falls; a quiet one is silent."""

import numpy as np
import pytest

from model_repo.contract.outputs import BoolArray, FloatArray
from monitoring.accuracy import CERTAINTY, ErrorReference, accuracy_claim, accuracy_rows, error_reference
from monitoring.sequential import Evidence, start, update
from tests.monitoring.watches import WATCHES

WATCH = WATCHES["accuracy"]


def stream(n: int, seed: int, lost: float = 0.0) -> tuple[FloatArray, BoolArray]:
    """A calibrated model that is right 92% of the time, mostly sure; a share of its hits may be lost."""
    rng = np.random.default_rng(seed)
    confidence = 0.3 + 0.7 * rng.beta(4.0, 0.5, n)
    return confidence, (rng.random(n) < confidence) & (rng.random(n) >= lost)


@pytest.fixture(scope="module")
def reference() -> ErrorReference:
    """Of 5,000 rows."""
    return error_reference(*stream(5000, seed=1000))


def follow(reference: ErrorReference, parts: list[tuple[FloatArray, BoolArray]]) -> Evidence:
    """The evidence after these parts, one after the other."""
    claim = accuracy_claim(reference, WATCH)
    evidence = start(claim)
    for confidence, is_correct in parts:
        evidence = update(evidence, claim, *accuracy_rows(confidence, is_correct, reference, WATCH))
    return evidence


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_quiet_stream_stays_silent(reference: ErrorReference, seed: int) -> None:
    """10,000 labels, each a look, raise nothing."""
    assert not follow(reference, [stream(10_000, seed)]).has_detected


@pytest.mark.parametrize("seed", [11, 12, 13, 14])
def test_mistaken_labels_are_found_within_2500(reference: ErrorReference, seed: int) -> None:
    """Three points of accuracy lost after a quiet start."""
    evidence = follow(reference, [stream(2000, seed), stream(2500, seed + 10, lost=0.033)])
    assert evidence.detected_at is not None
    assert 2000 < evidence.detected_at <= 4500


def test_fall_that_confidence_foresees_is_found_too(reference: ErrorReference) -> None:
    """Messages that became harder, with a confidence that is honest about it, are a fall all the same."""
    confidence = np.full(2500, 0.8)
    is_correct = np.random.default_rng(5).random(2500) < confidence
    assert follow(reference, [(confidence, is_correct)]).has_detected


def test_reference_without_an_error_is_not_taken_for_perfect() -> None:
    """One error where there was none among 100 refutes nothing."""
    reference = error_reference(np.linspace(0.5, 1.0, 100), np.ones(100, dtype=bool))
    assert 0.0 < reference.errors(np.array([0.99]))[0] < 0.1
    assert reference.all_errors == pytest.approx(1.0 - (1.0 - CERTAINTY) ** (1 / 100))
    assert not follow(reference, [(np.array([0.99]), np.array([False]))]).has_detected


def test_errors_are_known_by_confidence(reference: ErrorReference) -> None:
    """A calibrated model errs as often as it says; no less often than that is taken for certain."""
    confidence = np.array([0.5, 0.7, 0.9, 0.99])
    assert reference.errors(confidence) == pytest.approx(1.0 - confidence, rel=0.25)
