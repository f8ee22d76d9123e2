"""Drawn streams are what they say: nothing is wrong with a quiet one, and a change is as large as its name."""

import numpy as np
import pytest

from monitoring.drawn_streams import KEY, OOD_SHARE, POLICY, QUIET, TAXONOMY, Change, DrawnStream
from monitoring.observations import Records
from monitoring.rows import confidence_at, is_in_scope, stage_times

ROWS = 20_000


def labelled(change: Change = QUIET) -> Records:
    """The same random numbers for every change."""
    return DrawnStream(np.random.default_rng(3)).draw(ROWS, change).labelled


@pytest.fixture(scope="module")
def quiet() -> Records:
    """Nothing changed."""
    return labelled()


def scope_mean(records: Records, field: str) -> float:
    return float(records[is_in_scope(records)][field].mean())


def test_quiet_stream_is_calibrated(quiet: Records) -> None:
    """Confidence is right about the labels of what is in scope, and recorded as its logits give it."""
    assert scope_mean(quiet, "confidence") == pytest.approx(scope_mean(quiet, "is_correct"), abs=0.006)
    np.testing.assert_allclose(quiet["confidence"], confidence_at(quiet, POLICY.temperature), rtol=1e-5)
    assert float((~is_in_scope(quiet)).mean()) == pytest.approx(OOD_SHARE, abs=0.006)
    assert 0.5 < float(quiet["truth"][quiet["is_ood"], -1].mean()) < 0.95


def test_records_are_as_the_journey_makes_them(quiet: Records) -> None:
    """Nothing is accepted exactly when ood; stages sum to the whole; numbers go on from one stretch to the next."""
    assert (quiet["accepted"].any(axis=1) == ~quiet["is_ood"]).all()
    times, total = stage_times(quiet)
    np.testing.assert_allclose(times.sum(axis=1), total, rtol=1e-5)
    stream = DrawnStream(np.random.default_rng(4))
    first, second = stream.draw(10), stream.draw(5)
    assert first.predictions["number"].tolist() + second.predictions["number"].tolist() == list(range(1, 16))
    assert (first.key, first.taxonomy) == (KEY, TAXONOMY)
    assert set(first.embeddings.numbers) <= set(first.predictions["number"])


@pytest.mark.parametrize(
    ("change", "field", "moves_by"),
    [
        (Change(lost_accuracy=0.0317), "is_correct", -0.03),
        (Change(lost_accuracy=0.254, lost_intent=5), "is_correct", -0.03),
        (Change(sharpness=1.35), "confidence", 0.03),
        (Change(temperature=0.74), "confidence", 0.03),
        (Change(delay_ms=4.0), "total_ms", 4.0),
        (Change(delay_ms=4.0), "queue_ms", 4.0),
    ],
)
def test_change_is_as_large_as_it_says(quiet: Records, change: Change, field: str, moves_by: float) -> None:
    """Within the error of twenty thousand rows."""
    assert scope_mean(labelled(change), field) - scope_mean(quiet, field) == pytest.approx(moves_by, rel=0.2)


def test_other_temperature_is_another_revision(quiet: Records) -> None:
    """The same logits, answered under another policy: another stream."""
    revised = DrawnStream(np.random.default_rng(3)).draw(ROWS, Change(temperature=0.74))
    assert (revised.key.policy, revised.key.version) == ("1.2", KEY.version)
    np.testing.assert_array_equal(revised.labelled["logits"], quiet["logits"])
    np.testing.assert_array_equal(revised.labelled["truth"], quiet["truth"])


def test_mix_moves_as_it_says(quiet: Records) -> None:
    """Ten points from the first intent to the last; or twice as many utterances that are ood."""
    moved = labelled(Change(moved_prior=0.1))["truth"].mean(axis=0) - quiet["truth"].mean(axis=0)
    assert moved[[0, 7]].tolist() == pytest.approx([-0.09, 0.09], abs=0.02)
    assert float(labelled(Change(ood_share=0.16))["truth"][:, -1].mean()) == pytest.approx(0.16, abs=0.01)
