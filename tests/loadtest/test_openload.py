"""The open loop against a service that behaves as the test says."""

import json
import threading
from typing import Any

import pytest

from loadtest.load_plan import LoadPlan, LoadReport, RateStep
from loadtest.openload import main, run_open_loop
from loadtest.server_process import free_port
from loadtest.wire import Target, loopback_target
from tests.loadtest.fake_server import Answer, Behaviour, echo, fake_service

TEXTS = [f"where is order {number}" for number in range(20)]


def run(behaviour: Behaviour, plan: LoadPlan) -> tuple[LoadReport, list[str]]:
    """The report, and the texts that the service saw."""
    with fake_service(behaviour) as service:
        report = run_open_loop(loopback_target(service.url), TEXTS, plan)
        return report, service.texts


def test_every_request_is_sent_once_and_answered() -> None:
    """Nothing is lost or counted twice, and all texts take their turn."""
    report, seen = run(echo, LoadPlan((RateStep(200.0, 0.5),)))
    assert (report.sent, report.latency.answered, report.errors, report.has_collapsed) == (100, 100, 0, False)
    assert len(seen) == 100
    assert set(seen) == set(TEXTS)


def test_errors_are_counted_by_status_and_leave_the_latencies_alone() -> None:
    """A fast refusal must not make a server look fast."""

    def refuse_every_fourth(number: int, request: dict[str, Any]) -> Answer:
        return (503, {}) if number % 4 == 0 else echo(number, request)

    report, _ = run(refuse_every_fourth, LoadPlan((RateStep(200.0, 0.5),)))
    assert report.error_kinds == {"http_503": 25}
    assert report.latency.answered == 75


def test_an_answer_for_somebody_else_is_an_error() -> None:
    """Each answer must carry the id of its request."""

    def mix_up(number: int, request: dict[str, Any]) -> Answer:
        return 200, {"request_id": "somebody-else"} if number == 3 else {"request_id": request["request_id"]}

    report, _ = run(mix_up, LoadPlan((RateStep(100.0, 0.2),)))
    assert report.error_kinds == {"wrong_answer": 1}


def test_latency_counts_from_when_the_request_was_due() -> None:
    """With one connection, the second request waits for the first in the generator, and that wait is latency."""
    release = threading.Event()

    def hold_the_first(number: int, request: dict[str, Any]) -> Answer:
        if number == 0:
            release.wait(0.3)
        return echo(number, request)

    report, _ = run(hold_the_first, LoadPlan((RateStep(50.0, 0.04),), connections=1, prewarmed=1))
    first, second = sorted(report.samples)
    assert first.latency_ms >= 300.0
    assert second.latency_ms >= 300.0 - 20.0


def test_unanswered_requests_time_out_and_end_the_run() -> None:
    """A server that never answers cannot hold the generator."""
    release = threading.Event()

    def never(number: int, request: dict[str, Any]) -> Answer:
        release.wait(5.0)
        return echo(number, request)

    report, _ = run(never, LoadPlan((RateStep(50.0, 0.1),), timeout_s=0.2))
    release.set()
    assert report.error_kinds == {"timeout": 5}
    assert report.latency.answered == 0


def test_collapse_cuts_the_run_short() -> None:
    """More unanswered requests than the plan bears: the rest is not sent."""
    release = threading.Event()

    def never(number: int, request: dict[str, Any]) -> Answer:
        release.wait(5.0)
        return echo(number, request)

    report, _ = run(never, LoadPlan((RateStep(400.0, 10.0),), connections=8, abort_backlog_s=0.1))
    release.set()
    assert report.has_collapsed
    assert 64 < report.sent < 4000
    assert report.error_kinds == {"overload": report.sent}


def test_nobody_listening_is_an_error_for_each_request() -> None:
    """A refused connection is not a hang."""
    target = Target("127.0.0.1", free_port())
    report = run_open_loop(target, TEXTS, LoadPlan((RateStep(50.0, 0.1),), prewarmed=0))
    assert report.error_kinds == {"connection": 5}


def test_same_seed_sends_the_same_texts_in_the_same_order() -> None:
    """One connection, so that the order of arrival is the order of sending."""
    plan = LoadPlan((RateStep(100.0, 0.2),), connections=1, prewarmed=1)
    assert run(echo, plan)[1] == run(echo, plan)[1]


def test_command_prints_one_json_object(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    """What a script would read."""
    bodies = tmp_path / "bodies.txt"
    bodies.write_text("hello\n\nis vol 8 out\n", encoding="utf-8")
    with fake_service() as service:
        main(["--url", service.url, "--bodies", str(bodies), "--rate", "50", "--duration", "0.2"])
        assert set(service.texts) == {"hello", "is vol 8 out"}
    printed = json.loads(capsys.readouterr().out)
    assert (printed["sent"], printed["errors"]) == (10, 0)
