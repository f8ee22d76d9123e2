"""Servers side by side."""

from typing import Any

import pytest

from loadtest.closed_loop import run_closed_loop
from loadtest.contest import Contender, Terms, alone, at_rate, find_limits, judge_overload
from loadtest.latency import Sample, summarise
from loadtest.load_plan import LoadReport
from loadtest.wire import loopback_target
from tests.loadtest.fake_server import Answer, Behaviour, echo, fake_service

NO_BUDGET_MS = 1e9
"""Limits here come from refusals, which do not depend on how fast the machine is."""


def refusing_after(requests: int) -> Behaviour:
    """A service that refuses whatever follows the first requests of a run: a limit of ``requests`` a trial."""

    def behave(number: int, request: dict[str, Any]) -> Answer:
        place_in_run = int(request["request_id"].rpartition("-")[2], 16)
        return (503, {}) if place_in_run >= requests else echo(number, request)

    return behave


def test_limits_are_found_for_each_server_in_turn() -> None:
    """A trial of 0.2 s holds 20 and 40 requests: 100 and 200 a second."""
    announced: list[str] = []
    with fake_service(refusing_after(20)) as slow, fake_service(refusing_after(40)) as fast:
        contenders = [Contender("slow", loopback_target(slow.url)), Contender("fast", loopback_target(fast.url))]
        terms = Terms(["hello"], trial_s=0.2, trials=1, start=50.0)
        limits = find_limits(contenders, terms, NO_BUDGET_MS, announced.append)
    assert 95 <= limits["slow"] <= 104
    assert 190 <= limits["fast"] <= 204
    assert [line.split()[0] for line in announced[:4]] == ["slow", "fast", "slow", "fast"]


def test_a_known_rate_is_not_tried_again_for_another_budget() -> None:
    """Trials are kept and judged anew."""
    announced: list[str] = []
    with fake_service(refusing_after(20)) as service:
        contender = Contender("service", loopback_target(service.url))
        terms = Terms(["hello"], trial_s=0.2, trials=1, start=50.0)
        first = find_limits([contender], terms, NO_BUDGET_MS, announced.append)
        tried = len(announced)
        assert find_limits([contender], terms, NO_BUDGET_MS * 2, announced.append) == first
    assert len(announced) == tried


def test_one_bad_trial_of_three_is_noise() -> None:
    """Two of three decide, and no third is run when two agree."""
    limited = refusing_after(6)
    trials: set[str] = set()

    def refuse_in_the_first_trial(number: int, request: dict[str, Any]) -> Answer:
        run = request["request_id"].partition("-")[0]
        if "settle" in run:
            return echo(number, request)
        trials.add(run)
        return (503, {}) if len(trials) == 1 else limited(number, request)

    announced: list[str] = []
    with fake_service(refuse_in_the_first_trial) as service:
        contender = Contender("service", loopback_target(service.url))
        terms = Terms(["hello"], trial_s=0.1, trials=3, start=50.0, resolution=10.0)
        find_limits([contender], terms, NO_BUDGET_MS, announced.append)
    assert [(line.split()[2], line.rpartition(", ")[2]) for line in announced] == [
        ("50/s:", "5 errors"),
        ("50/s:", "0 errors"),
        ("50/s:", "0 errors"),
        ("80/s:", "2 errors"),
        ("80/s:", "2 errors"),
    ]


def test_fixed_rate_and_lone_client_report_what_was_answered() -> None:
    """Twice a trial at the rate; one after the other for the lone client."""
    with fake_service() as service:
        contender = Contender("service", loopback_target(service.url))
        terms = Terms(["hello", "is vol 8 out"], trial_s=0.2)
        assert at_rate(contender, terms, 50.0).latency.answered == 20
        lone = alone(contender, terms)
    assert lone.errors == 0
    assert lone.latency.answered > 0


def test_lone_client_counts_refusals_apart() -> None:
    """A refusal is not a latency."""
    with fake_service(lambda _number, _request: (503, {})) as service:
        report = run_closed_loop(loopback_target(service.url), ["hello"], 0.1)
    assert report.latency.answered == 0
    assert report.errors > 0


def test_overload_is_judged_by_its_own_part_of_the_run() -> None:
    """Refused, failed and admitted are shares of what was due while overloaded; the rest says when it recovered."""
    samples = (
        Sample(0.0, 4.0, 200, ""),
        Sample(1.0, 6.0, 200, ""),
        Sample(2.0, 0.5, 503, "http_503"),
        Sample(3.0, 900.0, 0, "timeout"),
        Sample(4.05, 70.0, 200, ""),
        Sample(5.0, 3.0, 200, ""),
    )
    report = LoadReport(samples, summarise([]), 6, 5.0, {}, False, 0.1)
    found = judge_overload(report, rate=800.0, seconds=4.0, slo_ms=15.0)
    assert (found.refused_share, found.failed_share) == (0.25, 0.25)
    assert found.admitted.p95 == 6.0
    assert found.recovery_s == pytest.approx(0.1)
