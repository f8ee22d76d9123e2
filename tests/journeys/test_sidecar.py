"""Service and sidecar, each a process of its own, over the version that ships: what is posted is what is counted."""

import contextlib
import http.client
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_repo.store import Store
from service.settings import Settings
from tests.monitoring.sidecar_running import sidecar
from tests.service.running import ROOT, free_port, post, started

pytestmark = pytest.mark.slow

TEXTS = (
    "where is my order 4411?",
    "can you recommend a manga like Frieren?",
    "i want my money back, volume 3 came torn",
    "is there a code for box sets?",
    "what is the weather in Osaka tomorrow",
)
ASKED = 300


@pytest.fixture
def service(tmp_path: Path) -> Iterator[int]:
    """The port of a service of the shipped version."""
    port = free_port()
    environment = {
        **os.environ,
        "ROUTER_PORT": str(port),
        "ROUTER_EVENT_LOG_PATH": str(tmp_path / "events.sqlite"),
        # A busy machine must not turn an answer into a 503 or a 504.
        "ROUTER_DEADLINE_MS": "60000",
        "ROUTER_ADMISSION_TARGET_MS": "60000",
    }
    with started([sys.executable, "-m", "service"], environment, tmp_path, cwd=ROOT):
        yield port


def connect(port: int) -> "contextlib.closing[http.client.HTTPConnection]":
    """A connection that stays open between requests."""
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60))


def test_what_is_posted_is_counted_and_the_service_outlives_the_sidecar(tmp_path: Path, service: int) -> None:
    """Messages and labels over HTTP, on one side; their counts, accuracy and confidence on the other."""
    settings = {"MONITOR_MODEL_REPO": str(Settings().model_repo)}
    shipped = Store(Settings().model_repo).deployment().champion.version
    with sidecar(tmp_path, **settings) as running, connect(service) as connection:
        running.module = "monitoring"
        running.start()
        right = labelled = ood = 0
        for number in range(ASKED):
            status, answer = post(connection, "/route", {"text": TEXTS[number % len(TEXTS)], "session_id": "web:1"})
            assert status == 200
            ood += answer["decision"] == "ood"
            if number % 2:
                # Every tenth label says something else.
                is_right = number % 20 != 19
                intents = list(answer["probabilities"])
                other = next(name for name in intents if name != answer["top"]["intent"])
                label = {"intents": [answer["top"]["intent"] if is_right else other], "source": "agent"}
                assert post(connection, "/feedback", {"request_id": answer["request_id"], **label})[0] == 202
                labelled, right = labelled + 1, right + is_right
        read = running.wait_until_read(ASKED + labelled)
        [stream] = read["streams"]
        assert (stream["version"], stream["role"]) == (shipped, "champion")
        assert (stream["predictions"], stream["labelled"], stream["correct"], stream["ood"]) == (
            ASKED,
            labelled,
            right,
            ood,
        )
        # One of before the last rows may stand there still.
        window = {"predictions": ASKED, "labelled": labelled}
        assessed = running.wait_for(
            "/status", lambda body: [one for one in body["assessments"] if one["window"] == window]
        )
        signals = assessed["assessments"][0]["signals"]
        assert signals["accuracy"]["value"] == pytest.approx(right / labelled)
        # Nothing is pinned yet: measured, not judged.
        assert (signals["accuracy"]["verdict"], signals["total_p95_ms"]["n"]) == ("inconclusive", ASKED)

        assert running.end(signal.SIGKILL) == -signal.SIGKILL
        status, answer = post(connection, "/route", {"text": TEXTS[0]})
        assert (status, answer["model"]["version"]) == (200, shipped)
        running.start()
        assert running.wait_until_read(ASKED + labelled + 1)["streams"][0]["predictions"] == ASKED + 1
