"""The sidecar as a process of its own, while things go wrong around it."""

import os
import signal
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_repo.contract.events import SQLITE_SCHEMA
from monitoring.drawn_streams import TAXONOMY, Change, DrawnStream
from tests.monitoring.drawn_log import make_repository, write
from tests.monitoring.event_logs import WrittenLog, prediction
from tests.monitoring.sidecar_running import PATIENCE_S, SMALL, SidecarProcess, sidecar

pytestmark = pytest.mark.slow

FALLS = Change(lost_accuracy=0.3)
MOST_GROWN_MIB = 120.0
"""By how much reading a hundred thousand events may make the process grow: windows, embeddings, the state's cache."""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[WrittenLog]:
    """An empty log, beside a repository with the version that is drawn from."""
    make_repository(tmp_path / "repo")
    written = WrittenLog(tmp_path / "events.sqlite")
    yield written
    written.close()


def begun_and_done(running: SidecarProcess, branch: str) -> dict[str, object]:
    """The incident of a branch, once its first remedy has a result."""

    def of_branch(body: dict[str, list[dict[str, object]]]) -> list[dict[str, object]]:
        return [one for one in body["incidents"] if one["branch"] == branch and one["remedies"]]

    def is_done(body: dict[str, list[dict[str, object]]]) -> bool:
        return any(one["remedies"][0]["result"] for one in of_branch(body))  # type: ignore[index]

    [incident] = of_branch(running.wait_for("/incidents", is_done))
    return incident


def test_killed_again_and_again_it_counts_once_and_asks_once(log: WrittenLog, tmp_path: Path) -> None:
    """SIGKILL at random points while events come and an incident runs its course: the counts are those of the log."""
    stream, rng = DrawnStream(np.random.default_rng(5)), np.random.default_rng(17)
    written = 0
    with sidecar(tmp_path, **SMALL) as running:
        for piece in range(7):
            change = FALLS if piece >= 3 else Change()
            running.start()
            write(log, stream, 500, change)
            written += 1000
            # Anywhere from before the first of these events was read to after the last.
            running.wait_until_read(written - int(rng.integers(0, 1000)))
            assert running.end(signal.SIGKILL) == -signal.SIGKILL
        running.start()
        status = running.wait_until_read(written)
        incident = begun_and_done(running, "accuracy_down")
        assert running.end() == 0
    [counts] = status["streams"]
    assert (status["log"]["predictions_read"], status["log"]["labels_read"]) == (3500, 3500)
    assert (counts["predictions"], counts["labelled"]) == (3500, 3500)
    [remedy] = [one for one in incident["remedies"] if one["action"] == "retrain"]  # type: ignore[attr-defined]
    asked = [key for key in running.remedies if key.endswith("-retrain")]
    # At least once, and under one key: whoever is asked again can tell.
    assert set(asked) == {remedy["key"]}
    assert len(asked) <= remedy["attempts"]


def test_killed_while_discovery_waits_it_waits_on(log: WrittenLog, tmp_path: Path) -> None:
    """With a single try in the outbox: a wait is none. Everybody sees how many of how many, and until when."""
    stream = DrawnStream(np.random.default_rng(5))
    something_new = Change(ood_share=0.4)
    settings = {**SMALL, "MONITOR_OUTBOX_ATTEMPTS": "1", "MONITOR_DISCOVERY_UTTERANCES": "40"}

    def first_of_branch(body: dict[str, Any]) -> dict[str, Any]:
        return next((one for one in body["incidents"] if one["branch"] == "ood_precision_down"), {})

    with sidecar(tmp_path, **settings) as running:
        running.start()
        write(log, stream, 1000)
        running.wait_for("/status", lambda body: [one["reference"] for one in body["assessments"]] == ["production"])
        seen: list[dict[str, Any]] = []
        written = 2000
        while not any(key.endswith("-discover_intents") for key in running.remedies):
            assert written < 12_000, "discovery is never asked for"
            before = running.status()["at"]
            write(log, stream, 100, something_new, filed_under=TAXONOMY.intents[0])
            written += 200
            running.wait_until_read(written)
            running.wait_for("/status", lambda body, before=before: (body["last_assessment_at"] or 0.0) > before)
            waiting = first_of_branch(running.get("/incidents").json())
            if waiting and not waiting["remedies"] and len(seen) < 3:
                seen.append(waiting["awaited"])
                assert running.end(signal.SIGKILL) == -signal.SIGKILL
                running.start()
        incident = first_of_branch(
            running.wait_for("/incidents", lambda body: first_of_branch(body)["remedies"][0]["result"] is not None)
        )
    [remedy] = incident["remedies"]
    assert len(seen) == 3, "it was not seen to wait"
    assert {(one["need"], one["since"], one["until"]) for one in seen} == {
        (40, seen[0]["since"], incident["began_at"] + 6 * 3600.0)
    }
    assert all(one["have"] < 40 for one in seen)
    assert (remedy["result"]["outcome"], remedy["attempts"]) == ("done", 1)
    assert incident["awaited"]["need"] >= 80
    assert running.remedies.count(remedy["key"]) == 1


def test_a_second_sidecar_refuses_the_same_state_and_the_same_log(log: WrittenLog, tmp_path: Path) -> None:
    """It says who holds it, and the first goes on."""
    elsewhere = str(tmp_path / "elsewhere.sqlite")
    with (
        sidecar(tmp_path) as first,
        sidecar(tmp_path, MONITOR_EVENT_LOG_PATH=elsewhere) as same_state,
        sidecar(tmp_path, MONITOR_STATE_PATH=elsewhere) as same_log,
    ):
        first.start()
        assert first.process is not None
        for second, what in ((same_state, "state"), (same_log, "log")):
            assert second.spawn().wait(timeout=PATIENCE_S) == 1
            assert f"held by process {first.process.pid}: one sidecar a {what}" in second.output
        assert first.get("/health/live").status_code == 200


def test_what_cannot_start_says_why(log: WrittenLog, tmp_path: Path) -> None:
    """Each reason has its exit status."""
    with sidecar(tmp_path, MONITOR_COLOUR="red") as running:
        running.module = "monitoring"
        assert running.spawn().wait(timeout=PATIENCE_S) == 2
        assert "MONITOR_COLOUR" in running.output
    with socket.create_server(("127.0.0.1", 0)) as taken, sidecar(tmp_path) as running:
        running.settings["MONITOR_PORT"] = str(taken.getsockname()[1])
        assert running.spawn().wait(timeout=PATIENCE_S) == 3
        assert "Address already in use" in running.output
    (tmp_path / "monitor.sqlite").write_bytes(b"no database at all" * 100)
    with sidecar(tmp_path) as running:
        assert running.spawn().wait(timeout=PATIENCE_S) == 1
        assert "monitor.sqlite cannot be used" in running.output


def test_a_log_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """The sidecar may start first; it is live and not ready."""
    make_repository(tmp_path / "repo")
    with sidecar(tmp_path) as running:
        running.start()
        assert running.wait_for("/health/ready", lambda body: "cannot be read" in body["log"])["status"] == "not ready"
        assert running.get("/health/live").status_code == 200
        late = WrittenLog(tmp_path / "events.sqlite")
        write(late, DrawnStream(np.random.default_rng(5)), 50)
        running.wait_until_read(100)
        running.wait_for("/health/ready", lambda body: body["status"] == "ok")
        late.close()


def test_a_locked_log_is_waited_for(tmp_path: Path) -> None:
    """Nothing is lost, nothing counts twice, and the metrics say what is going on meanwhile."""
    make_repository(tmp_path / "repo")
    log = sqlite3.connect(tmp_path / "events.sqlite", isolation_level=None)
    # Without a write-ahead log a writer shuts readers out.
    log.execute("PRAGMA journal_mode=DELETE")
    log.executescript(SQLITE_SCHEMA)
    event = prediction(0).to_body()
    with sidecar(tmp_path) as running:
        running.start()
        running.wait_for("/health/ready", lambda body: body["status"] == "ok")
        log.execute("BEGIN EXCLUSIVE")
        log.execute("INSERT INTO predictions (request_id, at, body) VALUES ('r0', 1.0, ?)", (event,))
        running.wait_for("/health/ready", lambda body: "locked" in body["log"])
        assert "monitor_log_available 0.0" in running.get("/metrics").text
        log.execute("COMMIT")
        running.wait_until_read(1)
        running.wait_for("/health/ready", lambda body: body["status"] == "ok")
    log.close()


def test_what_retention_deleted_unread_is_counted_as_missing(log: WrittenLog, tmp_path: Path) -> None:
    """After an outage longer than the log is kept."""
    stream = DrawnStream(np.random.default_rng(5))
    with sidecar(tmp_path) as running:
        write(log, stream, 500)
        running.start()
        running.wait_until_read(1000)
        assert running.end() == 0
        write(log, stream, 500)
        log.connection.execute("DELETE FROM predictions WHERE seq <= 700")
        log.connection.execute("DELETE FROM labels WHERE seq <= 700")
        running.start()
        status = running.wait_until_read(1600)
    assert (status["log"]["missing_predictions"], status["log"]["missing_labels_at_most"]) == (200, 200)
    assert status["streams"][0]["predictions"] == 800


def test_a_log_begun_anew_is_read_from_its_beginning(log: WrittenLog, tmp_path: Path) -> None:
    """Deleted while the sidecar runs: it goes on with the new file."""
    stream = DrawnStream(np.random.default_rng(5))
    with sidecar(tmp_path) as running:
        write(log, stream, 100)
        running.start()
        running.wait_until_read(200)
        log.close()
        for suffix in ("", "-wal", "-shm"):
            log.path.with_name(log.path.name + suffix).unlink(missing_ok=True)
        new = WrittenLog(log.path)
        write(new, stream, 100)
        status = running.wait_until_read(400)
        new.close()
    assert (status["log"]["new_logs"], status["streams"][0]["predictions"]) == (1, 200)


def test_events_that_cannot_be_read_are_counted_and_passed_over(log: WrittenLog, tmp_path: Path) -> None:
    """Malformed, of a newer schema, of a version that nobody has, and of a clock that stepped back by a day."""
    stream = DrawnStream(np.random.default_rng(5))
    write(log, stream, 100)
    last_at = write(log, stream, 100)
    log.write_predictions([("a", last_at, "{"), ("b", last_at, b"\xff"), ("c", last_at, '{"schema": 2}')])
    log.predict(prediction(1, version="unknown", at=last_at))
    stream.drawn -= 86_400
    write(log, stream, 100)
    with sidecar(tmp_path) as running:
        running.start()
        status = running.wait_until_read(604)
        assert running.get("/health/ready").status_code == 200
    skipped = [status["log"][reason] for reason in ("malformed", "future_schema", "unknown_version")]
    assert (skipped, status["streams"][0]["predictions"]) == ([2, 1, 1], 300)


def test_a_burst_after_an_outage_is_read_within_bounded_memory(log: WrittenLog, tmp_path: Path) -> None:
    """A hundred thousand events at once; the sidecar answers meanwhile."""
    stream = DrawnStream(np.random.default_rng(5))
    write(log, stream, 100)
    with sidecar(tmp_path) as running:
        running.start()
        running.wait_until_read(200)
        assert running.process is not None
        before = peak_mib(running.process.pid)
        body = log.connection.execute("SELECT body FROM predictions WHERE seq = 1").fetchone()[0]
        id_ = '"request_id":"drawn-1"'
        assert id_ in body
        log.write_predictions(
            (f"b{n}", 1_700_001_000.0 + n / 1000, body.replace(id_, f'"request_id":"b{n}"')) for n in range(100_000)
        )
        status = running.wait_until_read(100_200)
        grown = peak_mib(running.process.pid) - before
    assert status["streams"][0]["predictions"] == 100_100
    assert grown < MOST_GROWN_MIB


def peak_mib(pid: int) -> float:
    """Most memory that a process has held."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def test_an_action_that_hangs_stops_neither_reading_nor_the_end(log: WrittenLog, tmp_path: Path) -> None:
    """Its request is due again at the next start, under the same key."""
    stream = DrawnStream(np.random.default_rng(5))
    with sidecar(tmp_path, TEST_HANGS="1", MONITOR_OUTBOX_FIRST_WAIT_SECONDS="1", **SMALL) as running:
        running.start()
        written = 0
        for _ in range(12):
            write(log, stream, 250, FALLS if written >= 3000 else Change())
            written += 500
            running.wait_until_read(written)
            if any(key.endswith("-retrain") for key in running.remedies):
                break
        running.wait_for("/status", lambda body: body["outbox"]["waiting"] > 0)
        write(log, stream, 250)
        status = running.wait_until_read(written + 500)
        assert status["log"]["behind_seconds"] == 0.0
        assert running.end() == 0
        once = list(running.remedies)
        running.start()
        running.wait_for("/status", lambda _: len(running.remedies) > len(once))
    assert set(running.remedies) == set(once)


def test_the_state_directory_is_made(tmp_path: Path) -> None:
    """A fresh clone has no var folder."""
    make_repository(tmp_path / "repo")
    with sidecar(tmp_path, MONITOR_STATE_PATH=str(tmp_path / "var" / "monitor.sqlite")) as running:
        running.start()
        assert (tmp_path / "var" / "monitor.sqlite").exists()
        assert os.path.exists(tmp_path / "var" / "monitor.sqlite.lock")
