"""The measurement of the whole tree sees what it is to measure."""

from monitoring.bench_tree import TreeRun
from monitoring.drawn_streams import Change
from monitoring.failure_tree import load
from monitoring.stream_watch import WatchSettings

TREE = load()
SETTINGS = WatchSettings(window_predictions=1500, window_labelled=500, pin_predictions=1500, pin_labelled=1500)


def test_quiet_run_begins_nothing_and_a_slow_one_its_diagnosis() -> None:
    """Once, after two walks that fire, counted in rows since the pinned stretch."""
    run = TreeRun(7, TREE, SETTINGS)
    assert list(run.go_on(3000, 500)) == []
    begun = list(run.go_on(3000, 500, Change(delay_ms=4.0)))
    assert [one.diagnosis for one in begun] == ["latency_up/tune_batching"]
    assert begun[0].branch == "latency_up"
    assert 3500 < begun[0].row <= 5000
