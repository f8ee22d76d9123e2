"""Records become the arrays that signals are made of, at the temperature that is asked for."""

import numpy as np
import pytest

from model_repo.contract.costs import cost_matrix
from model_repo.contract.decision import softmax
from monitoring.label_choice import ChosenLabel, with_labels
from monitoring.observations import Records, prediction_dtype
from monitoring.rows import (
    confidence_at,
    decided_labels,
    is_in_scope,
    labelled_rows,
    segment_memberships,
    stage_times,
    unlabelled_rows,
)
from tests.monitoring.event_logs import BEGAN, TAXONOMY

LOGITS = np.array([[3.0, 0.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.0, 2.0], [0.5, 0.4, 0.0]])
TRUTHS = [("refund",), ("hello", "parcel"), ("hello",), ()]


def predictions() -> Records:
    """Four: right, right with two intents of which one was accepted, wrong, and rightly ood."""
    records = np.zeros(4, dtype=prediction_dtype(3))
    records["number"] = [1, 2, 3, 4]
    records["at"] = BEGAN
    records["logits"] = LOGITS
    records["top"] = LOGITS.argmax(axis=1)
    records["is_ood"] = [False, False, False, True]
    records["accepted"] = np.eye(3, dtype=bool)[records["top"]] & ~records["is_ood"][:, None]
    records["confidence"] = softmax(LOGITS, 2.0).max(axis=1)
    records["energy"] = [-5.0, -4.0, -3.0, -1.0]
    records["lang"] = [0, 0, 1, 2]
    records["channel"] = [b"web", b"app", b"web", b""]
    records["is_high_risk"] = [True, False, False, False]
    records["n_tokens"] = [3, 5, 7, 9]
    for column, stage in enumerate(("tokenize_ms", "queue_ms", "inference_ms", "total_ms")):
        records[stage] = np.arange(4) + 10 * column
    return records


def labelled() -> Records:
    """All of them with their label."""
    labels = [ChosenLabel(f"r{index}", truth, BEGAN + 1, "agent") for index, truth in enumerate(TRUTHS)]
    return with_labels(predictions(), labels, TAXONOMY)


def test_probabilities_are_those_of_the_temperature() -> None:
    """Recomputed from the logits, while decisions stay as they were answered."""
    costs = np.ones((4, 4)) - np.eye(4)
    for temperature in (1.0, 2.0):
        rows = labelled_rows(labelled(), temperature, costs)
        np.testing.assert_allclose(rows.probabilities, softmax(LOGITS, temperature), rtol=1e-6)
        assert rows.top.tolist() == [0, 1, 2, 0]
        assert rows.is_ood.tolist() == [False, False, False, True]
    assert rows.is_in_scope.tolist() == [True, True, True, False]
    assert rows.is_correct.tolist() == [True, True, False, False]
    np.testing.assert_allclose(confidence_at(labelled(), 2.0), labelled()["confidence"], rtol=1e-6)
    assert confidence_at(labelled()[:0], 2.0).shape == (0,)


def test_costs_are_by_the_matrix_of_the_version() -> None:
    """The second misses a parcel, the third takes a greeting for a parcel, the last is rightly ood."""
    costs = cost_matrix({"default": 1, "missed": {"parcel": 3}, "mistaken": {"hello": {"parcel": 0.5}}}, TAXONOMY)
    assert labelled_rows(labelled(), 1.0, costs).costs.tolist() == [0.0, 3.0, 0.5, 0.0]


def test_unlabelled_rows_are_what_was_answered() -> None:
    """Confidence as it was sent, ood as the last decided label."""
    vectors = np.ones((2, 5), dtype=np.float16)
    rows = unlabelled_rows(predictions(), vectors)
    assert rows.decided.tolist() == decided_labels(predictions()).tolist() == [0, 1, 2, 3]
    assert rows.confidence.tolist() == predictions()["confidence"].tolist()
    assert (rows.length.tolist(), rows.language.tolist()) == ([3, 5, 7, 9], [0, 0, 1, 2])
    assert rows.embeddings is vectors


def test_stages_are_in_the_order_of_the_latency_signals() -> None:
    """Tokenizer, queue, inference; and the whole."""
    times, total = stage_times(predictions())
    assert times.tolist() == [[0, 10, 20], [1, 11, 21], [2, 12, 22], [3, 13, 23]]
    assert total.tolist() == [30, 31, 32, 33]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("intent=refund", [0]),
        ("intent=hello", [1, 2]),
        ("intent=parcel", [1]),
        ("decided=hello", [1]),
        ("decided=parcel", [2]),
        ("lang=en", [0, 1]),
        ("lang=ja", [2]),
        ("high_risk=yes", [0]),
        ("high_risk=no", [1, 2]),
        ("channel=web", [0, 2]),
        ("channel=app", [1]),
    ],
)
def test_rows_are_in_the_segments_they_belong_to(name: str, rows: list[int]) -> None:
    """An utterance with two intents is in both; a segment without rows is not named, nor is a missing channel."""
    scope = labelled()[is_in_scope(labelled())]
    memberships = segment_memberships(scope, TAXONOMY)
    assert np.flatnonzero(memberships[name]).tolist() == rows
    assert len(memberships) == 12


def test_window_of_no_rows_gives_arrays_of_none() -> None:
    """Nothing of it fails, so that what measures can say that there was nothing."""
    none = labelled()[:0]
    assert len(labelled_rows(none, 1.0, np.zeros((4, 4)))) == 0
    assert len(unlabelled_rows(none, np.empty((0, 0))).decided) == 0
    assert stage_times(none)[0].shape == (0, 3)
    assert segment_memberships(none, TAXONOMY) == {}
