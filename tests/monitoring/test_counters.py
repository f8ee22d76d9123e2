"""Counts add up: of chunks to a process, of processes to a fleet, over restarts to what they were."""

import numpy as np
import pytest

from model_repo.contract.calibration_error import BINS, BinCounts
from monitoring.counters import DELAY_EDGES_S, RETIRED, Counters, StreamCounters
from monitoring.errors import BadState
from monitoring.observations import StreamKey
from tests.monitoring.event_logs import KEY

OTHER = StreamKey("2", "2.1", "shadow")


def some(seed: int) -> StreamCounters:
    """Counters with something in every place."""
    rng = np.random.default_rng(seed)
    bins = BinCounts(*(rng.integers(1, 9, BINS).astype(float) for _ in range(3)))
    delays = rng.integers(0, 5, len(DELAY_EDGES_S))
    return StreamCounters(predictions=5 + seed, closed_labelled=3, closed_unlabelled=1, calibration=bins, delays=delays)


def assert_same(left: Counters, right: Counters) -> None:
    """By what is saved, which is everything."""
    assert left.to_json() == right.to_json()


def test_sum_is_the_same_in_any_order() -> None:
    """Streams of one name are added, others stand beside each other."""
    a = Counters(malformed=1, streams={KEY: some(1)})
    b = Counters(malformed=2, labels_read=7, streams={KEY: some(2), OTHER: some(3)})
    both = a + b
    assert (both.malformed, both.labels_read) == (3, 7)
    assert both.streams[KEY].predictions == 13
    assert (
        both.streams[KEY].calibration.count.tolist() == (some(1).calibration.count + some(2).calibration.count).tolist()
    )
    assert_same(both, Counters(streams={KEY: StreamCounters(), OTHER: StreamCounters()}) + b + a)


def test_counters_survive_being_saved() -> None:
    """What is read back is what was saved; what cannot be read is said so."""
    counters = Counters(future_schema=4, streams={KEY: some(1), OTHER: some(2)})
    assert_same(Counters.from_json(counters.to_json()), counters)
    for damaged in (b"{", b"{}", b'{"streams": [["1", "1.1", "champion", {}]]}'):
        with pytest.raises(BadState, match="counters"):
            Counters.from_json(damaged)


def test_retired_streams_stay_in_the_sum() -> None:
    """Forgetting a stream takes nothing from what was counted."""
    counters = Counters(streams={KEY: some(1), OTHER: some(2)}).retire((KEY,)).retire((OTHER,))
    assert set(counters.streams) == {RETIRED}
    assert counters.streams[RETIRED].predictions == some(1).predictions + some(2).predictions


def test_join_ratio_is_of_predictions_whose_time_is_up() -> None:
    """None before there is any."""
    assert StreamCounters().join_ratio is None
    assert some(1).join_ratio == 0.75


@pytest.mark.parametrize("q", [0.05, 0.5, 0.95])
def test_delay_quantile_is_off_by_a_fifth_at_most(q: float) -> None:
    """Read from a histogram, against the delays themselves."""
    delays = np.random.default_rng(5).lognormal(5.0, 2.0, 4000)
    counts = np.bincount(np.searchsorted(DELAY_EDGES_S, delays, "right") - 1, minlength=len(DELAY_EDGES_S))
    quantile = StreamCounters(delays=counts).delay_quantile_s(q)
    assert quantile == pytest.approx(np.quantile(delays, q), rel=0.2)


def test_delay_quantile_says_when_there_is_none() -> None:
    """No label yet, or a delay beyond the last edge."""
    beyond = np.zeros(len(DELAY_EDGES_S), dtype=np.int64)
    beyond[-1] = 3
    assert StreamCounters().delay_quantile_s(0.5) is None
    assert StreamCounters(delays=beyond).delay_quantile_s(0.5) == float("inf")
