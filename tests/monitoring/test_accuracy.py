"""An accuracy that falls by three points is found within 2,500 labels, however it falls; a quiet one is silent."""

import numpy as np
import pytest

from model_repo.contract.outputs import BoolArray, FloatArray
from monitoring.accuracy import CERTAINTY, ErrorReference, accuracy_claim, accuracy_rows, error_reference
from monitoring.segments import memberships_of
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


class TestSegments:
    """Errors that gather in one segment are bet on there."""

    SHARES = (0.5, 0.3, 0.12, 0.08)

    def segmented(self, n: int, seed: int, lost: float = 0.0) -> tuple[FloatArray, BoolArray, dict[str, BoolArray]]:
        """Four channels; the third loses a share of its hits."""
        confidence, is_correct = stream(n, seed)
        rng = np.random.default_rng([seed, 1])
        channels = rng.choice(["web", "app", "mail", "kiosk"], n, p=self.SHARES)
        is_lost = (channels == "mail") & (rng.random(n) < lost)
        return confidence, is_correct & ~is_lost, memberships_of("channel", channels.tolist())

    def detected_at(self, seed: int, with_segments: bool, lost: float) -> float:
        """Rows until it is found, at most 5,000; with_segments says whether the segments are known."""
        confidence, is_correct, memberships = self.segmented(5000, 1000 + seed)
        reference = error_reference(confidence, is_correct, memberships if with_segments else None)
        claim = accuracy_claim(reference, WATCH)
        confidence, is_correct, memberships = self.segmented(5000, seed, lost)
        rows = accuracy_rows(confidence, is_correct, reference, WATCH, memberships)
        found = update(start(claim), claim, *rows).detected_at
        return np.inf if found is None else found

    def test_small_segment_gone_wrong_is_found_sooner(self) -> None:
        """A quarter of the hits of an eighth of the traffic, three points of all accuracy: half the labels or fewer."""
        with_segments, without = (
            np.median([self.detected_at(seed, known, lost=0.27) for seed in range(5)]) for known in (True, False)
        )
        assert with_segments < 0.75 * without

    def test_quiet_segments_stay_silent(self) -> None:
        """Each is a sample too."""
        assert all(self.detected_at(seed, True, lost=0.0) == np.inf for seed in range(5))

    def test_segments_of_a_few_rows_or_of_most_of_them_are_left_alone(self) -> None:
        """The one is known too little, the other is everything."""
        confidence, is_correct = stream(1000, 1)
        channels = ["rare"] * 99 + ["some"] * 400 + ["most"] * 501
        reference = error_reference(confidence, is_correct, memberships_of("channel", channels))
        assert list(reference.segments) == ["channel=some"]

    def test_segment_that_is_new_or_gone_is_no_row_of_any(self) -> None:
        """Only the segments of the reference are bet on; a row that is in none says nothing of them."""
        reference = error_reference(*self.segmented(5000, 1))
        values, bounds = accuracy_rows(
            np.array([0.8]), np.array([False]), reference, WATCH, {"channel=fax": np.array([True])}
        )
        assert values.shape == bounds.shape == (1, 2 + len(reference.segments))
        assert np.isnan(values[0, 2:]).all()
