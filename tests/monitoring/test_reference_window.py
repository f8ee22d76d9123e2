"""A reference is frozen: it comes from the version, or from a stretch of production that was pinned."""

import numpy as np
import pytest

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.reference import QUANTILES, ReferenceProfile, quantiles
from monitoring.errors import BadState
from monitoring.label_choice import ChosenLabel, with_labels
from monitoring.observations import STAGES, Records, labelled_dtype, prediction_dtype
from monitoring.reference_window import Reference, as_traffic, confusion_of, from_version, pin
from monitoring.windows import Window
from tests.monitoring.event_logs import BEGAN, KEY, TAXONOMY


def predictions() -> Records:
    """Four of them, of which the last was decided ood."""
    records = np.zeros(4, dtype=prediction_dtype(3))
    records["number"] = [1, 2, 3, 4]
    records["at"] = BEGAN
    records["top"] = [0, 1, 2, 1]
    records["is_ood"] = [False, False, False, True]
    records["confidence"] = [0.9, 0.8, 0.7, 0.4]
    records["energy"] = [-5.0, -4.0, -3.0, -1.0]
    records["lang"] = [0, 0, 1, 2]
    records["n_tokens"] = [3, 5, 7, 9]
    for stage in STAGES:
        records[stage] = [1.0, 2.0, 3.0, 4.0]
    return records


def window() -> Window:
    """All of them labelled: two right, one wrong, one rightly ood."""
    truths = [("refund",), ("hello", "parcel"), ("hello", "refund"), ()]
    labels = [ChosenLabel(f"r{index}", truth, BEGAN + 1, "agent") for index, truth in enumerate(truths)]
    records = predictions()
    vectors = np.arange(6, dtype=np.float16).reshape(3, 2)
    return Window(KEY, TAXONOMY, records, with_labels(records, labels, TAXONOMY), vectors)


def assert_same(left: Reference, right: Reference) -> None:
    """Field by field."""
    assert (left.key, left.origin) == (right.key, right.origin)
    for name, array in left.profile.to_arrays().items():
        np.testing.assert_array_equal(array, right.profile.to_arrays()[name])
    np.testing.assert_array_equal(left.labelled, right.labelled)
    np.testing.assert_array_equal(left.latencies_ms, right.latencies_ms)


def test_pinned_reference_describes_the_stretch() -> None:
    """The same distributions as a version's profile, and the latencies that only production has."""
    pinned = pin(window(), np.random.default_rng(0))
    profile = pinned.profile
    assert (pinned.origin, pinned.key, profile.n) == ("production", KEY, 4)
    assert profile.energy_quantiles[[0, -1]].tolist() == [-5.0, -1.0]
    assert profile.confidence_quantiles.shape == (QUANTILES,)
    assert profile.lang_counts.tolist() == [2, 1, 1]
    assert profile.embeddings.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert pinned.latencies_ms.tolist() == [[float(row)] * 4 for row in (1, 2, 3, 4)]
    assert len(pinned.labelled) == 4


def test_confusion_has_one_true_label_an_utterance() -> None:
    """The decided one when it is among the true ones, else the first of them; ood last."""
    confusion = confusion_of(window().labelled, 4)
    expected = np.zeros((4, 4), dtype=int)
    expected[0, 0] = expected[1, 1] = expected[0, 2] = expected[3, 3] = 1
    assert confusion.tolist() == expected.tolist()


def test_labels_drawn_unevenly_do_not_bend_the_mix_of_decisions() -> None:
    """Ten labels of what was decided as the first label, two of the second, none of the third: the traffic decides."""
    labelled_only = np.array([[9, 0, 0], [1, 2, 0], [0, 0, 0]])
    traffic = as_traffic(labelled_only, np.array([50, 40, 10]))
    assert traffic.sum(axis=0).tolist() == [50, 40, 10]
    assert traffic.tolist() == [[45, 0, 0], [5, 40, 0], [0, 0, 10]]
    assert as_traffic(labelled_only, np.array([7, 0, 0])).tolist() == [[7, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_pinned_mix_is_that_of_all_predictions() -> None:
    """Although only the one that was decided ood has a label."""
    full = window()
    pinned = pin(Window(KEY, TAXONOMY, full.predictions, full.labelled[3:], full.embeddings), np.random.default_rng(0))
    assert pinned.profile.confusion.sum(axis=0).tolist() == [1, 1, 1, 1]


def test_reference_survives_being_saved() -> None:
    """Pinned or of the version, what is read back is what was saved."""
    pinned = pin(window(), np.random.default_rng(0))
    assert_same(Reference.from_bytes(pinned.to_bytes()), pinned)
    ramp = quantiles(np.linspace(0.0, 1.0, 50))
    counts = np.ones(4, dtype=np.int64)
    profile = ReferenceProfile(50, ramp, ramp, ramp, counts, np.eye(4, dtype=np.int64), counts[:3], np.ones((2, 2)))
    versions = from_version(KEY, TAXONOMY, profile)
    assert (versions.origin, len(versions.labelled), versions.latencies_ms.shape) == ("version", 0, (0, len(STAGES)))
    assert_same(Reference.from_bytes(versions.to_bytes()), versions)


def test_damaged_reference_is_refused() -> None:
    """It is not taken for an empty one."""
    with pytest.raises(BadState, match="reference"):
        Reference.from_bytes(b"damaged")
    with pytest.raises(BadState, match="reference"):
        Reference.from_bytes(pin(window(), np.random.default_rng(0)).to_bytes()[:200])


def test_stretch_without_labels_cannot_be_pinned() -> None:
    """A profile says how labels are distributed."""
    bare = Window(KEY, TAXONOMY, predictions(), np.empty(0, dtype=labelled_dtype(3)), np.empty((0, 0), np.float16))
    with pytest.raises(CannotMeasure, match="4 and 0"):
        pin(bare, np.random.default_rng(0))
