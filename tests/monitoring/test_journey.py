"""An event's way from the log to the windows, once, whatever happens to the process on the way."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from monitoring.errors import LogUnavailable
from monitoring.event_reader import CHUNK_EVENTS
from monitoring.journey import Journey
from monitoring.label_join import Joined
from monitoring.observations import Limits, StreamKey
from monitoring.state_file import StateFile
from tests.monitoring.event_logs import (
    BEGAN,
    EMBEDDING,
    KEY,
    SMALL_LIMITS,
    WrittenLog,
    label,
    prediction,
    taxonomy_of,
)
from tests.monitoring.follow_log import CHUNK_EVENTS as SMALL_CHUNK
from tests.monitoring.follow_log import NOW

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("saved", "streams", "predictions", "labelled", "embeddings", "labels")
SHADOW = StreamKey("2", "2.1", "shadow")


def write_everything(log: WrittenLog) -> None:
    """Six hundred requests with shadows, retries, bad and future events; labels early, late, twice and corrected."""
    rng = np.random.default_rng(7)
    for index in range(600):
        embedding = EMBEDDING if index % 5 == 0 else None
        log.predict(prediction(index, embedding=embedding, confidence=float(rng.uniform(0.3, 1.0))))
        if index % 3 == 0:
            log.predict(prediction(index, version="2", policy="2.1", role="shadow", top="hello"))
        if index % 50 == 0:
            log.predict(prediction(max(0, index - 7)), prediction(index, version="unknown"))
            log.write_predictions([("bad", BEGAN, "{"), ("new", BEGAN, '{"schema": 2}')])
        if index % 2 == 0:
            delay = float(rng.exponential(40.0)) - 5.0
            intent = ("parcel", "hello", "refund")[int(rng.integers(3))]
            log.label(label(f"r{index}", intent, source="customer"), BEGAN + index + delay)
            if index % 8 == 0:
                log.label(label(f"r{index}", intent, source="agent"), BEGAN + index + delay)
            if index % 12 == 0:
                log.label(label(f"r{index}", source="review"), BEGAN + index + delay + 3)
            if index % 20 == 0:
                log.label(label(f"nobody{index}", "hello"), BEGAN + index)


def follow(log: Path, state: StateFile, limits: Limits = SMALL_LIMITS, chunk_events: int = SMALL_CHUNK) -> Journey:
    """To the end of the log."""
    journey = Journey(log, state, taxonomy_of, limits, chunk_events=chunk_events)
    while not journey.step(NOW).is_caught_up:
        pass
    journey.close()
    return journey


def contents(state: StateFile) -> dict[str, list[object]]:
    """Every row of the state."""
    return {table: state.connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES}


def assert_same_windows(left: Journey, right: Journey) -> None:
    """Every stream, every row."""
    assert left.windows.stream_keys() == right.windows.stream_keys()
    for key in left.windows.stream_keys():
        a, b = left.windows.stream(key).latest(), right.windows.stream(key).latest()
        np.testing.assert_array_equal(a.predictions, b.predictions)
        np.testing.assert_array_equal(a.labelled, b.labelled)
        np.testing.assert_array_equal(a.embeddings, b.embeddings)


@pytest.fixture
def full_log(log: WrittenLog) -> WrittenLog:
    """See ``write_everything``."""
    write_everything(log)
    return log


def run_until_killed(log: Path, state: Path, dies_at: str, n: int) -> bool:
    """A process that goes on where the state is; whether it was killed before the end of the log."""
    command = [sys.executable, "-m", "tests.monitoring.follow_log", str(log), str(state), dies_at, str(n)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    assert run.returncode in (0, -9), run.stderr
    return run.returncode != 0


def test_killed_process_counts_what_an_uninterrupted_one_does(full_log: WrittenLog, tmp_path: Path) -> None:
    """Killed from outside, at each edge of a transaction and at random points inside: the same in the end."""
    path = tmp_path / "killed.sqlite"
    command = [sys.executable, "-m", "tests.monitoring.follow_log", str(full_log.path), str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as from_outside:
        assert from_outside.stdout is not None
        assert os.read(from_outside.stdout.fileno(), 1) == b"."
        from_outside.kill()
    assert all(run_until_killed(full_log.path, path, "edges", edge) for edge in (1, 2, 3, 4))
    rng, kills = np.random.default_rng(11), 0
    while run_until_killed(full_log.path, path, "ticks", int(rng.integers(1, 1500))):
        kills += 1

    killed_state, whole_state = StateFile(path), StateFile(tmp_path / "whole.sqlite")
    whole = follow(full_log.path, whole_state)
    killed = Journey(full_log.path, killed_state, taxonomy_of, SMALL_LIMITS)
    assert kills >= 2
    assert contents(killed_state) == contents(whole_state)
    assert killed.counters.to_json() == whole.counters.to_json()
    assert_same_windows(killed, whole)
    killed.close()
    killed_state.close()
    whole_state.close()


def test_every_event_is_accounted_for(full_log: WrittenLog, state: StateFile) -> None:
    """Each row that was read is a prediction of a stream or counted as what it was instead."""
    counters = follow(full_log.path, state).counters
    champion, shadow = counters.streams[KEY], counters.streams[SHADOW]
    assert (champion.predictions, champion.repeated, shadow.predictions) == (612, 12, 200)
    assert (counters.malformed, counters.future_schema, counters.unknown_version) == (12, 12, 12)
    assert counters.predictions_read == 612 + 200 + 36
    assert counters.missing_predictions == 0
    for stream in (champion, shadow):
        held = state.connection.execute(
            "SELECT COUNT(*) FROM predictions AS p JOIN streams AS s ON s.id = p.stream WHERE s.role = ?",
            ("champion" if stream is champion else "shadow",),
        ).fetchone()[0]
        assert stream.predictions == held + stream.closed_labelled + stream.closed_unlabelled + stream.evicted
        assert stream.labelled == int(stream.delays.sum())
        assert stream.labelled - stream.labelled_ood == int(stream.calibration.count.sum())
    assert counters.labels_read == counters.labels_repeated + counters.labels_corrected + 300 + 30
    assert 0 < counters.labels_orphaned <= 30 + champion.evicted + champion.closed_unlabelled


def test_size_of_the_chunks_does_not_change_what_is_counted(full_log: WrittenLog, tmp_path: Path) -> None:
    """With room for all, nothing depends on where the log happened to be cut."""
    counted = []
    for chunk_events in (7, 5000):
        state = StateFile(tmp_path / f"{chunk_events}.sqlite")
        counters = follow(full_log.path, state, Limits(), chunk_events).counters
        champion = counters.streams[KEY]
        counted.append(
            (
                counters.labels_repeated,
                counters.labels_corrected,
                champion.predictions,
                champion.repeated,
                champion.labelled,
                champion.too_late,
                counters.streams[SHADOW].labelled,
                counters.malformed,
            )
        )
        state.close()
    assert counted[0] == counted[1]


def test_step_that_fails_changes_nothing(log: WrittenLog, state: StateFile) -> None:
    """What else was to be saved belongs to the same transaction; the events are read again."""
    log.predict(prediction(0))
    journey = Journey(log.path, state, taxonomy_of)

    def refuse(joined: Joined) -> Mapping[str, bytes]:
        raise OSError(f"no room for {len(joined.streams)} stream")

    with pytest.raises(OSError, match="no room for 1 stream"):
        journey.step(NOW, refuse)
    assert journey.windows.stream_keys() == []
    assert journey.counters.predictions_read == 0
    step = journey.step(NOW, lambda joined: {"evidence": str(len(joined.streams)).encode()})
    assert (step.events, journey.counters.predictions_read, state.get("evidence")) == (1, 1, b"1")
    assert journey.step(NOW).events == 0
    journey.close()


def test_missing_log_is_waited_for(tmp_path: Path, state: StateFile) -> None:
    """The sidecar may start before the service does."""
    path = tmp_path / "later.sqlite"
    journey = Journey(path, state, taxonomy_of)
    with pytest.raises(LogUnavailable):
        journey.step(NOW)
    log = WrittenLog(path)
    log.predict(prediction(0))
    assert journey.step(NOW).events == 1
    journey.close()
    log.close()


def test_replaced_log_goes_on_under_new_numbers(log: WrittenLog, state: StateFile) -> None:
    """Deleted and begun anew by the service: all of it is new, and the windows go on."""
    log.predict(prediction(0), prediction(1))
    journey = Journey(log.path, state, taxonomy_of)
    journey.step(NOW)
    log.close()
    for suffix in ("", "-wal", "-shm"):
        log.path.with_name(log.path.name + suffix).unlink(missing_ok=True)
    new = WrittenLog(log.path)
    new.predict(prediction(100))
    new.label(label("r100", "parcel"), BEGAN + 101)
    journey.step(NOW)
    window = journey.windows.stream(KEY).latest()
    assert (window.predictions["number"].tolist(), window.labelled["number"].tolist()) == ([1, 2, 3], [3])
    assert journey.counters.new_logs == 1
    journey.close()
    new.close()


@pytest.mark.slow
def test_burst_after_an_outage_is_taken_in_within_bounds(log: WrittenLog, state: StateFile) -> None:
    """A hundred thousand events at once: chunk by chunk, all counted, the windows no larger than their limits."""
    body = prediction(0).to_body()
    log.write_predictions((f"r{n}", BEGAN + n / 1000, body.replace('"r0"', f'"r{n}"')) for n in range(100_000))
    limits = Limits(predictions=20_000, recent=5_000, labelled=100)
    journey = Journey(log.path, state, taxonomy_of, limits)
    steps = []
    is_caught_up = False
    while not is_caught_up:
        step = journey.step(NOW)
        steps.append(step.events)
        is_caught_up = step.is_caught_up
    champion = journey.counters.streams[KEY]
    assert (sum(steps), max(steps)) == (100_000, CHUNK_EVENTS)
    assert (champion.predictions, champion.evicted) == (100_000, 80_000)
    assert len(journey.windows.stream(KEY).latest().predictions) == 5_000
    journey.close()
