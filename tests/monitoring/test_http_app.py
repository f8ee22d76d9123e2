"""What the sidecar answers, from the snapshot of the moment."""

import time
from typing import Any

import httpx
import pytest

from monitoring.http_app import http_app
from monitoring.snapshot import STALLED_S, Health, Snapshot, Watched
from monitoring.telemetry import Telemetry
from tests.monitoring.snapshots import FULL, INCIDENT


def watched(snapshot: Snapshot = FULL) -> Watched:
    """A loop that turns."""
    held = Watched()
    held.snapshot, held.is_alive = snapshot, True
    return held


async def get(path: str, held: Watched) -> httpx.Response:
    """An answer."""
    app = http_app(held, Telemetry(lambda: held.snapshot))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://monitor") as client:
        return await client.get(path)


@pytest.mark.asyncio
async def test_status_tells_what_was_read_measured_and_decided() -> None:
    """With nulls for what could not be measured."""
    answer = await get("/status", watched())
    status: dict[str, Any] = answer.json()
    assert (answer.status_code, status["log"]["predictions_read"], status["log"]["behind_seconds"]) == (200, 100, 12.5)
    [stream] = status["streams"]
    assert (stream["predictions"], stream["labelled"], stream["label_join_ratio"]) == (90, 30, 0.75)
    [assessment] = status["assessments"]
    assert assessment["signals"]["accuracy"] == {
        "name": "accuracy",
        "value": 0.88,
        "low": 0.86,
        "high": 0.9,
        "n": 1000,
        "verdict": "breached",
        "reference": 0.92,
        "threshold": 0.01,
    }
    assert assessment["signals"]["ood_recall"]["value"] is None
    assert (assessment["reference"], assessment["segments"][0]["segment"]) == ("production", "lang=ja")
    assert status["open_incidents"] == [INCIDENT.id]
    assert status["outbox"] == {"waiting": 1, "dead": 2, "oldest_seconds": 99.0}


@pytest.mark.asyncio
async def test_incidents_are_listed_and_found() -> None:
    """By id, as the list gives it."""
    held = watched()
    listed = (await get("/incidents?limit=5", held)).json()["incidents"]
    assert [one["id"] for one in listed] == [INCIDENT.id]
    found = await get(f"/incidents/{listed[0]['id']}", held)
    assert found.json() == listed[0]
    assert found.json()["remedies"][0]["action"] == "retrain"
    assert (await get("/incidents/nothing-20260101T000000", held)).status_code == 404
    assert (await get("/incidents?limit=0", held)).status_code == 422


@pytest.mark.asyncio
async def test_metrics_are_prometheus_text() -> None:
    """With the content type that a scrape expects."""
    answer = await get("/metrics", watched())
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'monitor_events_total{kind="prediction"} 100.0' in answer.text


@pytest.mark.asyncio
async def test_ready_needs_the_loop_the_log_and_the_state() -> None:
    """What lacks is named."""
    assert (await get("/health/ready", watched())).status_code == 200
    for health, part in (
        (Health("unavailable", "events.sqlite is locked"), "log"),
        (Health("not_seen"), "log"),
        (Health("available", None, False, "disk is full"), "state"),
    ):
        answer = await get("/health/ready", watched(Snapshot(at=0.0, health=health)))
        assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
        assert [name for name in ("loop", "log", "state") if answer.json()[name] != "ok"] == [part]


@pytest.mark.asyncio
async def test_live_needs_a_loop_that_turns() -> None:
    """One that hangs is as dead as one that ended; a log that is not there kills nothing."""
    assert (await get("/health/live", watched(Snapshot(at=0.0)))).status_code == 200
    hanging = watched()
    hanging.turned_at = time.monotonic() - STALLED_S - 1.0
    dead = watched()
    dead.is_alive = False
    for held in (hanging, dead):
        assert (await get("/health/live", held)).status_code == 503
        assert (await get("/health/ready", held)).json()["loop"] == "does not turn"
