"""Windows hold the latest rows of their own stream, in order, and keep up with labels that come later."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from monitoring.label_choice import ChosenLabel, with_labels
from monitoring.label_join import Joined, StreamJoined
from monitoring.observations import NO_EMBEDDINGS, Embeddings, Limits, Records, StreamKey, prediction_dtype
from monitoring.windows import Ring, StreamWindows, WindowSet
from tests.monitoring.event_logs import BEGAN, KEY, TAXONOMY

LIMITS = Limits(predictions=10, recent=5, labelled=3, embeddings=2)


def predictions(*numbers: int) -> Records:
    """One a second; the top intent is the number modulo 3."""
    records = np.zeros(len(numbers), dtype=prediction_dtype(3))
    records["number"] = numbers
    records["at"] = BEGAN + np.array(numbers)
    records["top"] = np.array(numbers) % 3
    return records


def labelled(*numbers: int, intent: str = "hello", delay: float = 10.0) -> Records:
    """Those predictions with one label, so many seconds later."""
    labels = [ChosenLabel(f"r{number}", (intent,), BEGAN + number + delay, "agent") for number in numbers]
    return with_labels(predictions(*numbers), labels, TAXONOMY)


def chunk(
    records: Records,
    labels: Records | None = None,
    corrected: Records | None = None,
    embeddings: Embeddings = NO_EMBEDDINGS,
    key: StreamKey = KEY,
    gone_up_to: int = 0,
) -> StreamJoined:
    """What a chunk brought to a stream."""
    none = labelled()
    labels = none if labels is None else labels
    corrected = none if corrected is None else corrected
    return StreamJoined(key, TAXONOMY, records, embeddings, labels, corrected, gone_up_to, Counter())


@pytest.mark.parametrize("sizes", [[1] * 9, [2, 3, 4], [4, 5], [0, 9], [5, 5], [13], [3, 11, 2]])
def test_ring_holds_the_latest_rows_in_order(sizes: list[int]) -> None:
    """However the rows are cut into pushes, also when one push is larger than the ring."""
    ring, pushed = Ring(5, np.int64), 0
    for size in sizes:
        ring.push(np.arange(pushed, pushed + size))
        pushed += size
    expected = list(range(max(0, pushed - 5), pushed))
    assert ring.latest().tolist() == expected
    assert ring.latest(2).tolist() == expected[-2:]
    assert (ring.latest(0).tolist(), ring.latest(99).tolist(), len(ring)) == ([], expected, len(expected))
    assert (ring.oldest(2).tolist(), ring.oldest(0).tolist(), ring.oldest(99).tolist()) == (expected[:2], [], expected)


def test_window_does_not_change_afterwards() -> None:
    """What a signal was measured on stays as it was."""
    windows = StreamWindows(KEY, TAXONOMY, LIMITS)
    windows.push(chunk(predictions(1, 2)))
    window = windows.latest()
    windows.push(chunk(predictions(3, 4, 5, 6), labelled(2)))
    assert window.predictions["number"].tolist() == [1, 2]
    assert not window.predictions["is_labelled"].any()


def test_window_by_count_takes_the_latest() -> None:
    """Predictions and labels each by their own number; all there is when there are fewer."""
    windows = StreamWindows(KEY, TAXONOMY, LIMITS)
    windows.push(chunk(predictions(*range(1, 9)), labelled(8, 1, 4, 6)))
    window = windows.latest(predictions=2, labelled=1)
    assert (window.predictions["number"].tolist(), window.labelled["number"].tolist()) == ([7, 8], [6])
    assert windows.latest(100, 100).labelled["number"].tolist() == [1, 4, 6]


def test_window_by_time_goes_by_the_answer_and_by_the_label() -> None:
    """A label counts when it is given, however old its prediction is."""
    windows = StreamWindows(KEY, TAXONOMY, LIMITS)
    windows.push(chunk(predictions(1, 2, 3), np.concatenate([labelled(2, delay=1.0), labelled(1, delay=60.0)])))
    window = windows.since(BEGAN + 62.0, 60.5)
    assert (window.predictions["number"].tolist(), window.labelled["number"].tolist()) == ([2, 3], [2, 1])
    window = windows.since(BEGAN + 62.0, 10.0)
    assert (window.predictions["number"].tolist(), window.labelled["number"].tolist()) == ([], [1])


def test_label_share_is_of_predictions_of_an_age() -> None:
    """Those still too young to have a label are left out."""
    windows = StreamWindows(KEY, TAXONOMY, LIMITS)
    windows.push(chunk(predictions(1, 2, 3, 4, 5)))
    windows.push(chunk(predictions(), labelled(1, 3, 77)))
    assert windows.label_share(BEGAN + 10.0, min_age_s=7.0, max_age_s=100.0) == (3, 2)
    assert windows.label_share(BEGAN + 10.0, min_age_s=0.0, max_age_s=6.0) == (1, 0)
    assert windows.label_share(BEGAN, min_age_s=50.0, max_age_s=60.0) == (0, 0)


def test_what_the_join_has_forgotten_leaves_the_window() -> None:
    """Predictions older than a label may be; their labels stay in the window of labels."""
    windows = StreamWindows(KEY, TAXONOMY, LIMITS)
    windows.push(chunk(predictions(1, 2, 3), labelled(1, 2)))
    windows.push(chunk(predictions(4), gone_up_to=2))
    window = windows.latest()
    assert (window.predictions["number"].tolist(), window.labelled["number"].tolist()) == ([3, 4], [1, 2])
    windows.push(chunk(predictions(5, 6, 7, 8)))
    assert windows.latest().predictions["number"].tolist() == [4, 5, 6, 7, 8]


def test_corrected_label_replaces_the_first_in_its_place() -> None:
    """The later of two corrections stays; one of a row that has left changes nothing."""
    windows = StreamWindows(KEY, TAXONOMY, LIMITS)
    windows.push(chunk(predictions(1, 2, 3, 4), labelled(1, 2, 3, 4)))
    corrections = np.concatenate([labelled(3, intent="parcel"), labelled(3, intent="refund"), labelled(1)])
    windows.push(chunk(predictions(), corrected=corrections))
    held = windows.latest().labelled
    assert held["number"].tolist() == [2, 3, 4]
    assert held["is_correct"].tolist() == [False, True, True]
    assert held["truth"].argmax(axis=1).tolist() == [1, 0, 1]


def embeddings(*numbers: int) -> Embeddings:
    """Each prediction's number twice."""
    vectors: NDArray[np.float16] = np.array([[number, number] for number in numbers], dtype=np.float16)
    return Embeddings(np.array(numbers, dtype=np.int64), vectors)


def test_embeddings_are_those_of_the_window() -> None:
    """Of the sampled ones, the latest, as far as their prediction is in the window."""
    windows = StreamWindows(KEY, TAXONOMY, LIMITS)
    windows.push(chunk(predictions(1, 2, 3), embeddings=embeddings(1, 2)))
    windows.push(chunk(predictions(4, 5), embeddings=embeddings(4)))
    assert windows.latest().embeddings.tolist() == [[2.0, 2.0], [4.0, 4.0]]
    assert windows.latest(predictions=2).embeddings.tolist() == [[4.0, 4.0]]
    assert windows.latest(predictions=1).embeddings.shape == (0, 2)


def test_embeddings_after_a_number_are_those_not_yet_looked_at() -> None:
    """By the number of their prediction, oldest first; none before the first."""
    windows = StreamWindows(KEY, TAXONOMY, LIMITS)
    assert len(windows.embeddings_after(0)) == 0
    windows.push(chunk(predictions(1, 2, 3), labelled(1), embeddings=embeddings(1, 2)))
    windows.push(chunk(predictions(4, 5), embeddings=embeddings(4)))
    assert windows.embeddings_after(0).numbers.tolist() == [2, 4]
    assert windows.embeddings_after(2).vectors.tolist() == [[4.0, 4.0]]
    assert len(windows.embeddings_after(4)) == 0
    assert windows.held == (5, 1)


def test_new_version_or_policy_begins_with_nothing() -> None:
    """What one stream has seen is not in the window of another; a dropped stream is gone."""
    other = StreamKey("1", "1.2", "champion")
    windows = WindowSet(LIMITS)
    counts: Counter[str] = Counter()
    windows.push(Joined((chunk(predictions(1, 2)),), (), counts))
    windows.push(Joined((chunk(predictions(3), key=other),), (), counts))
    assert windows.stream_keys() == [KEY, other]
    assert windows.stream(other).latest().predictions["number"].tolist() == [3]
    assert windows.stream(KEY).latest().predictions["number"].tolist() == [1, 2]
    windows.push(Joined((), (KEY,), counts))
    assert windows.stream_keys() == [other]
    with pytest.raises(KeyError):
        windows.stream(KEY)
