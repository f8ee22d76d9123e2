"""The measurement over replayed text sees what it is to measure, and says no more than its runs do."""

from collections.abc import Mapping

import pytest
from scipy.stats import binom

from monitoring.bench_replay import Begun, Run, Watcher, changed_runs, interval, line, quiet_run, recorded_latencies
from monitoring.failure_tree import load
from monitoring.replay_changes import CHANGES, PINNED, Change, Replay, changed_of, pinned, stream_of, stretches
from monitoring.stream_watch import WatchSettings
from tests.monitoring.event_logs import WrittenLog, prediction
from tests.monitoring.made_up_corpus import made_up_replay

TREE = load()
SETTINGS = WatchSettings(window_predictions=1500, window_labelled=500, pin_predictions=PINNED, pin_labelled=PINNED)
BY_NAME: Mapping[str, Change] = {change.name: change for change in CHANGES}


@pytest.fixture(scope="module")
def replay() -> Replay:
    """The same for all tests."""
    return made_up_replay()


def test_quiet_run_begins_nothing(replay: Replay) -> None:
    """A few thousand rows of it."""
    assert quiet_run(replay, TREE, SETTINGS, 7, 3_000) == []


def test_the_reference_grows_as_the_sidecars_does(replay: Replay) -> None:
    """With what it is to have grown by when a change comes 17,000 rows after the first pin, and not before."""
    watcher, stream = Watcher(TREE, replay, WatchSettings()), stream_of(replay, 7)
    watcher.take(pinned(stream, replay))
    sizes = []
    for stretch in stretches(stream, replay.quiet, 3 * PINNED, "quiet"):
        watcher.take(stretch)
        reference = watcher._watches._reference(replay.policy.version)
        assert reference is not None
        sizes.append(reference.profile.n)
    assert sizes == [PINNED] * (len(sizes) - 1) + [4 * PINNED]


def test_a_change_comes_when_it_is_told_to(replay: Replay) -> None:
    """After so many quiet rows, from which the rows of its diagnosis count."""
    change = BY_NAME["slower"]
    [run] = changed_runs(replay, TREE, SETTINGS, 11, [change], 500)
    watcher, stream = Watcher(TREE, replay, SETTINGS), stream_of(replay, 11)
    parts = [pinned(stream, replay), *stretches(stream, replay.quiet, 500, "quiet")]
    parts += stretches(stream, run.right.phase, run.begun[-1].row, "changed")
    begun = [(number, diagnosis) for number, part in enumerate(parts) for diagnosis in watcher.take(part)]
    assert begun[-1] == (len(parts) - 1, run.begun[-1].diagnosis)


def test_changes_are_found_each_from_the_same_beginning(replay: Replay) -> None:
    """A run ends with its own branch; another change of the seed is not touched by it."""
    slower, priors = (BY_NAME[name] for name in ("slower", "priors"))
    both = changed_runs(replay, TREE, SETTINGS, 11, [slower, priors])
    alone = changed_runs(replay, TREE, SETTINGS, 11, [priors])
    assert both[1].begun == alone[0].begun
    assert [run.begun[-1].diagnosis for run in both] == [run.right.diagnosis for run in both]
    assert all(0 < run.begun[-1].row <= 3_000 for run in both)
    assert not any(run.early for run in both)


def test_the_watcher_walks_only_when_that_could_change_something(replay: Replay) -> None:
    """The pinned stretch is the reference, and no walk."""
    watcher = Watcher(TREE, replay, SETTINGS)
    assert watcher.take(pinned(stream_of(replay, 1), replay)) == []


def test_a_line_counts_the_right_branch_apart_from_others(replay: Replay) -> None:
    """In time, by delay, and whatever else came; what came before the change is named."""
    change = BY_NAME["labels"]
    right = changed_of(change, replay, 1)
    runs = [
        Run(right, (), (Begun("accuracy_down/retrain", 1_000),)),
        Run(right, (), (Begun("ece_up/refit_calibrator", 500), Begun("accuracy_down/relabel_segment", 2_750))),
        Run(right, (Begun("latency_up/roll_back", 250),), ()),
    ]
    told = line(change, runs)
    assert "1 of 3 [0.01, 0.91]" in told
    assert "2 of 3 [0.09, 0.99]" in told
    assert "   2750   never    2,500" in told
    assert "before the change 1" in told
    assert told.count("accuracy_down/retrain 1") == 1


def test_either_of_two_right_branches_counts(replay: Replay) -> None:
    """A new intent that is labelled ood shows in the recall or in what is asked; filed under ours, in neither."""
    begun = [Begun("unlabelled_drift/sample_for_labels", 1_000), Begun("ood_precision_down/discover_intents", 2_000)]
    for name, expected in (("new_fast", "2 of 2"), ("new_filed", "1 of 2")):
        change = BY_NAME[name]
        right = changed_of(change, replay, 1)
        told = line(change, [Run(right, (), (one,)) for one in begun])
        assert told.removeprefix(change.words).strip().startswith(expected)


@pytest.mark.parametrize(("hits", "n"), [(0, 40), (1, 40), (36, 40), (40, 40)])
def test_interval_is_the_one_that_the_binomial_tails_give(hits: int, n: int) -> None:
    """Each end leaves 2.5% beyond the count, by summing the binomial itself."""
    low, high = interval(hits, n)
    assert hits == 0 or binom.sf(hits - 1, n, low) == pytest.approx(0.025)
    assert hits == n or binom.cdf(hits, n, high) == pytest.approx(0.025)


def test_latencies_are_read_from_the_log_of_the_service(log: WrittenLog) -> None:
    """Each stage of every prediction."""
    log.predict(*(prediction(index) for index in range(5)))
    times = recorded_latencies(log.path)
    event = prediction(0)
    assert times.shape == (5, 3)
    assert times[0] == pytest.approx([event.tokenize_ms, event.queue_ms, event.inference_ms])
