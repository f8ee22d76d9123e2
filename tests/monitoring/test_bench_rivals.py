"""What is handed to other programs is the stream, and what they say of it is counted fairly."""

from pathlib import Path

import numpy as np
import pytest

from monitoring.bench_rivals import changed_line, quiet_line, read
from monitoring.replay_changes import CHANGES, CHUNK, PINNED, QUIET_BEFORE
from monitoring.replay_export import export
from monitoring.rival_tools import WINDOW, Stream
from tests.monitoring.made_up_corpus import made_up_replay


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One quiet stream and two changed ones."""
    out = tmp_path_factory.mktemp("streams")
    export(made_up_replay(), out, ["temperature", "priors"], 1, 2 * CHUNK, (1, 2), lambda _: None)
    return out


def stream_of(folder: Path, name: str) -> Stream:
    """As a tool gets it."""
    return read(folder / name, folder / "corpus.npz")


def test_a_quiet_stream_is_handed_over_whole(folder: Path) -> None:
    """A row an event, from the pinned stretch on; probabilities sum to one and give the confidence."""
    stream = stream_of(folder, "quiet-1.npz")
    columns = stream.columns
    assert {len(column) for column in columns.values()} == {PINNED + 2 * CHUNK}
    assert columns["probabilities"].sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert columns["probabilities"].max(axis=1) == pytest.approx(columns["confidence"], abs=1e-6)
    assert np.array_equal(columns["probabilities"].argmax(axis=1), columns["top"])
    assert stream.labels[-1] == "ood"
    assert 0.9 < stream.in_scope.mean() < 1.0
    assert list(stream.windows) == []


def test_after_a_revision_the_probabilities_are_those_that_were_answered(folder: Path) -> None:
    """Those of the wrong temperature."""
    stream = stream_of(folder, "temperature-2.npz")
    rows = slice(PINNED + QUIET_BEFORE, None)
    assert stream.changed_at == PINNED + QUIET_BEFORE
    surest = stream.columns["probabilities"][rows].max(axis=1)
    assert surest == pytest.approx(stream.columns["confidence"][rows], abs=1e-6)
    (change,) = [one for one in CHANGES if one.name == "temperature"]
    assert stream.allowed == change.allowed


def test_windows_begin_after_the_pinned_stretch_and_one_begins_with_the_change(folder: Path) -> None:
    """Which no tool could ask better of its windows."""
    stream = stream_of(folder, "priors-2.npz")
    begins = [window.start for window in stream.windows]
    assert begins[0] == PINNED
    assert PINNED + QUIET_BEFORE in begins
    assert {window.stop - window.start for window in stream.windows} == {WINDOW}


def test_without_labels_no_row_is_in_scope(folder: Path) -> None:
    """The tools get none after the change, as the sidecar gets none."""
    stream = stream_of(folder, "priors-2.npz")
    assert not stream.in_scope[stream.changed_at :].any()
    assert stream.in_scope[: stream.changed_at].any()


def test_false_alarms_are_counted_by_run_and_by_row(folder: Path) -> None:
    """Two alarms in one of two runs of 500 rows."""
    stream = stream_of(folder, "quiet-1.npz")
    assert "false in 1 of 2, 100.0 alarms a 50,000 rows" in quiet_line("a tool", [([10, 20], stream), ([], stream)])


def test_an_alarm_before_the_change_does_not_find_it(folder: Path) -> None:
    """Delays count from the change; a run without an alarm after it never found it."""
    stream = stream_of(folder, "priors-2.npz")
    runs = [([100, QUIET_BEFORE + 1_000], stream), ([QUIET_BEFORE], stream), ([QUIET_BEFORE + 5_000], stream)]
    told = changed_line("priors", "a tool", runs)
    assert "1 of 3 in 3,000    5000   never   before it 2" in told
