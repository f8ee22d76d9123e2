"""From an accuracy that falls to the retrain that is asked for: the real sidecar and a real receiver of its webhook."""

import itertools
import json
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitoring.drawn_streams import QUIET, Change, DrawnStream
from tests.monitoring.drawn_log import make_repository, write
from tests.monitoring.event_logs import WrittenLog
from tests.monitoring.sidecar_running import PATIENCE_S, SMALL, SidecarProcess, sidecar
from tests.monitoring.webhook_receiver import HANGS, SECRET, Receiver, WebhookServer

pytestmark = pytest.mark.slow

QUICK = {**SMALL, "MONITOR_ALERT_BEGIN_AFTER": "1", "MONITOR_OUTBOX_FIRST_WAIT_SECONDS": "0.1"}
"""And another try takes no long wait."""
FALLS = Change(lost_accuracy=0.3)
QUIET_EVENTS, PIECE, MOST_PIECES = 1000, 250, 12


class Traffic:
    """Events of one stream, every text another: of equal texts only one is trained on."""

    def __init__(self, folder: Path) -> None:
        make_repository(folder / "repo")
        self.log = WrittenLog(folder / "events.sqlite")
        self.written = 0
        self._stream = DrawnStream(np.random.default_rng(5))
        self._numbers = itertools.count()

    def write(self, n: int, change: Change = QUIET) -> None:
        """So many predictions, each with its label."""
        write(self.log, self._stream, n, change, lambda intent: f"about {intent}, number {next(self._numbers)}")
        self.written += 2 * n


@pytest.fixture
def traffic(tmp_path: Path) -> Iterator[Traffic]:
    """None yet, beside a repository with the version that answers it."""
    made = Traffic(tmp_path)
    yield made
    made.log.close()


def watching(folder: Path, url: str, **settings: str) -> AbstractContextManager[SidecarProcess]:
    """``python -m monitoring`` whose retrain requests go to a URL."""
    webhook = {"MONITOR_HOOK": "webhook", "MONITOR_HOOK_URL": url, "MONITOR_HOOK_SECRET": SECRET}
    return sidecar(folder, **QUICK, **webhook, **settings)


def lead_into_incident(running: SidecarProcess, traffic: Traffic, server: WebhookServer) -> None:
    """Quiet traffic until there is a reference, then one whose accuracy has fallen, until the receiver is asked."""
    running.module = "monitoring"
    running.start()
    traffic.write(QUIET_EVENTS)
    running.wait_for("/status", lambda body: [one["reference"] for one in body["assessments"]] == ["production"])
    assert server.got == []
    for _ in range(MOST_PIECES):
        if any(one.startswith("accuracy_down") for one in fall(running, traffic)["open_incidents"]):
            break
    wait_for_tries(running, server, 1)


def fall(running: SidecarProcess, traffic: Traffic) -> dict[str, Any]:
    """Further events whose accuracy has fallen; the status once they were read and it was measured since they came."""
    before = running.status()["at"]
    traffic.write(PIECE, FALLS)
    running.wait_until_read(traffic.written)
    return dict(running.wait_for("/status", lambda body: (body["last_assessment_at"] or 0.0) > before))


def wait_for_tries(running: SidecarProcess, server: WebhookServer, n: int) -> None:
    """Until the receiver was asked so often."""
    running.wait_for("/status", lambda _: len(server.got) >= n)


def incident_with_result(running: SidecarProcess) -> dict[str, Any]:
    """The only incident, once its retrain has come to an end."""

    def has_result(body: dict[str, Any]) -> bool:
        return any(remedy["result"] for one in body["incidents"] for remedy in one["remedies"])

    [incident] = running.wait_for("/incidents", has_result)["incidents"]
    assert incident["branch"] == "accuracy_down"
    return dict(incident)


def keys_of(server: WebhookServer) -> list[str]:
    """Under which each try came."""
    return [headers["Idempotency-Key"] for headers, _ in server.got]


def test_a_signed_request_names_what_to_train_on(traffic: Traffic, tmp_path: Path) -> None:
    """One POST; its signature and its time hold, and its body names the incident, the segment and the labels."""
    with WebhookServer((202, {}, b'{"run": "r-7"}')) as server, watching(tmp_path, server.url) as running:
        lead_into_incident(running, traffic, server)
        incident = incident_with_result(running)
        assert running.end() == 0
        output = running.output
    [(headers, body)] = server.got
    receiver = Receiver(time.time)
    assert receiver.take(headers, body) == 200
    assert receiver.take(headers, body.replace(b"accuracy", b"accuracies")) == 401
    [remedy] = incident["remedies"]
    assert receiver.done == [remedy["key"]] == [f"{incident['id']}/1-retrain"]
    asked = json.loads(body)
    assert (asked["key"], asked["incident"], asked["action"]) == (remedy["key"], incident["id"], "retrain")
    assert asked["path"][-1] == "broad"
    assert (asked["segment"], asked["stream"]["version"]) == (incident["segment"], "1")
    assert set(asked["parameters"]) == {"production_labels", "out", "segment"}
    assert (asked["segment"], asked["parameters"]["segment"]) == (None, ""), "a broad fall is nobody's segment"
    rows = Path(asked["parameters"]["production_labels"]).read_text().splitlines()
    assert len(rows) > QUIET_EVENTS
    assert set(json.loads(rows[0])) >= {"text", "intents", "lang"}
    result = remedy["result"]
    assert (remedy["attempts"], result["outcome"]) == (1, "done")
    assert (result["detail"]["status"], result["detail"]["run"], result["detail"]["rows"]) == (202, "r-7", len(rows))
    # Neither its log nor what it answers tells the secret.
    assert SECRET not in output + json.dumps(incident)


def test_a_receiver_in_trouble_is_asked_again_under_the_same_key(traffic: Traffic, tmp_path: Path) -> None:
    """500, 500, 200: one key, one incident, and it says that it took three tries."""
    trouble: tuple[int, dict[str, str], bytes] = (500, {}, b"no room")
    with WebhookServer(trouble, trouble, (200, {}, b"")) as server, watching(tmp_path, server.url) as running:
        lead_into_incident(running, traffic, server)
        incident = incident_with_result(running)
        metrics = running.get("/metrics").text
    receiver = Receiver(time.time)
    assert [receiver.take(headers, body) for headers, body in server.got] == [200, 200, 200]
    [remedy] = incident["remedies"]
    assert receiver.done == [remedy["key"]]
    assert len({body for _, body in server.got}) == 1
    assert (remedy["attempts"], remedy["result"]["outcome"], remedy["result"]["detail"]["status"]) == (3, "done", 200)
    assert 'monitor_remedies_total{action="retrain",outcome="retried"} 2.0' in metrics


def test_a_receiver_that_hangs_stops_nothing(traffic: Traffic, tmp_path: Path) -> None:
    """Within a single try events are counted and the loop is live; a try ends, and one that is answered is the last."""
    patient = {"MONITOR_HOOK_TIMEOUT_SECONDS": "2", "MONITOR_OUTBOX_ATTEMPTS": "100"}
    with WebhookServer(HANGS) as server, watching(tmp_path, server.url, **patient) as running:
        lead_into_incident(running, traffic, server)

        def counts_during_one_try() -> bool:
            tries = len(server.got)
            waits_before = server.kept_waiting == 1
            traffic.write(20, FALLS)
            running.wait_until_read(traffic.written)
            assert running.get("/health/live").status_code == 200
            return waits_before and server.kept_waiting == 1 and len(server.got) == tries

        # On a busy machine a try may be over meanwhile; a loop that waits for it never counts during one.
        assert any(counts_during_one_try() for _ in range(20))
        assert running.status()["outbox"]["waiting"] == 1
        wait_for_tries(running, server, 2)
        server.answers[:] = [(200, {}, b"")]
        incident = incident_with_result(running)
    [remedy] = incident["remedies"]
    assert set(keys_of(server)) == {remedy["key"]}
    assert remedy["attempts"] == len(server.got) >= 2
    assert remedy["result"]["outcome"] == "done"


def test_killed_before_the_answer_it_asks_again_under_the_same_key(traffic: Traffic, tmp_path: Path) -> None:
    """Nobody knows whether the first try was done: the second one lets the receiver tell."""
    with WebhookServer(HANGS, (200, {}, b"")) as server, watching(tmp_path, server.url) as running:
        lead_into_incident(running, traffic, server)
        assert server.kept_waiting == 1
        assert running.end(signal.SIGKILL) == -signal.SIGKILL
        running.start()
        wait_for_tries(running, server, 2)
        incident = incident_with_result(running)
        # It goes on falling, and is still the same incident.
        fall(running, traffic)
        assert [one["id"] for one in running.get("/incidents").json()["incidents"]] == [incident["id"]]
    [remedy] = incident["remedies"]
    receiver = Receiver(time.time)
    assert [receiver.take(headers, body) for headers, body in server.got] == [200, 200]
    assert receiver.done == [remedy["key"]]
    assert len({body for _, body in server.got}) == 1
    assert (remedy["attempts"], remedy["result"]["outcome"]) == (2, "done")


def test_a_receiver_with_another_secret_refuses_once(traffic: Traffic, tmp_path: Path) -> None:
    """401 does not pass by itself: one try, and the incident says what was answered."""
    with (
        WebhookServer((200, {}, b""), receiver=Receiver(time.time)) as server,
        watching(tmp_path, server.url, MONITOR_OUTBOX_ATTEMPTS="3") as running,
    ):
        running.settings["MONITOR_HOOK_SECRET"] = "a secret of somebody else"
        lead_into_incident(running, traffic, server)
        incident = incident_with_result(running)
    [remedy] = incident["remedies"]
    assert (len(server.got), remedy["attempts"]) == (1, 1)
    assert (remedy["result"]["outcome"], remedy["result"]["detail"]["status"]) == ("failed", 401)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"MONITOR_HOOK_SECRET": "too short"}, "MONITOR_HOOK_SECRET"),
        ({"MONITOR_HOOK_URL": ""}, "MONITOR_HOOK_URL"),
        ({"MONITOR_HOOK_URL": "ftp://user:pass-word@receiver.example/"}, "MONITOR_HOOK_URL"),
        ({"MONITOR_HOOK": "sagemaker", "MONITOR_SAGEMAKER_REGION": "eu-west-1"}, "MONITOR_SAGEMAKER_PIPELINE"),
    ],
)
def test_a_hook_that_cannot_work_ends_the_process(given: dict[str, str], named: str, tmp_path: Path) -> None:
    """At the start, with the name of the variable and without what is secret in it."""
    make_repository(tmp_path / "repo")
    with watching(tmp_path, "http://127.0.0.1:9/") as running:
        running.module = "monitoring"
        running.settings |= given
        assert running.spawn().wait(timeout=PATIENCE_S) == 2
        last = running.output.splitlines()[-1]
    assert named in last
    assert "too short" not in last
    assert "pass-word" not in last
