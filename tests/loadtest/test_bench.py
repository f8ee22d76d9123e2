"""The benchmark from end to end, and its tables."""

import json
import math
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from loadtest.bench import main, measure
from loadtest.bench_report import BenchResult, Figures, tables
from loadtest.contest import Contender, Overload, Terms
from loadtest.latency import summarise
from loadtest.wire import loopback_target
from tests.loadtest.fake_server import fake_service
from tests.loadtest.test_contest import NO_BUDGET_MS, refusing_after


def figures(name: str, limits: dict[float, float], overload: Overload | None = None) -> Figures:
    """Of a server that answers within 2 ms."""
    latency = summarise([2.0])
    return Figures(name, limits, latency, {50.0: latency}, {50.0: 3}, overload, peak_memory_mib=120.4)


def test_ratio_is_ours_over_theirs_for_each_budget() -> None:
    """A baseline that holds nothing has no ratio, rather than an infinite one."""
    ours, theirs = figures("service", {15.0: 300.0, 50.0: 400.0}), figures("baseline", {15.0: 0.0, 50.0: 160.0})
    lines = tables(BenchResult((ours, theirs))).splitlines()
    assert lines[0] == "| P95 below | service, requests/s | baseline, requests/s | ratio to baseline |"
    assert lines[2:4] == ["| 15 ms | 300 | 0 | n/a |", "| 50 ms | 400 | 160 | 2.50x |"]


def test_overload_and_errors_stand_in_the_tables() -> None:
    """What was refused, what failed and how long recovery took."""
    overload = Overload(600.0, summarise([9.0]), refused_share=0.5, failed_share=0.25, recovery_s=math.inf)
    text = tables(BenchResult((figures("service", {15.0: 300.0}, overload),)))
    assert "| service | 50/s | 1 | 2.0 | 2.0 | 2.0 | 2.0 | 3 |" in text
    assert "| service | 600/s | 9.0 | 50.0% | 25.0% | inf | 120 |" in text


def test_measure_finds_limits_and_overloads_at_twice_of_them() -> None:
    """Two servers that hold 20 and 40 requests a run: every figure belongs to the server it names."""
    with fake_service(refusing_after(20)) as slow, fake_service(refusing_after(40)) as fast:
        contenders = [Contender("slow", loopback_target(slow.url)), Contender("fast", loopback_target(fast.url))]
        terms = Terms(["hello"], trial_s=0.2, trials=1, start=50.0, resolution=0.6, overload_s=0.4, recovery_s=0.2)
        found = measure(contenders, {}, terms, [NO_BUDGET_MS], [50.0]).servers
    assert [server.name for server in found] == ["slow", "fast"]
    assert found[0].limits[NO_BUDGET_MS] < found[1].limits[NO_BUDGET_MS]
    for server, held in zip(found, (20, 40), strict=True):
        assert server.overload is not None
        assert server.overload.rate == 2 * server.limits[NO_BUDGET_MS]
        assert server.overload.refused_share == pytest.approx(1 - held / int(server.overload.rate * 0.4))
        assert server.at_rates[50.0].answered == 20


def test_command_measures_a_running_server_and_keeps_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints the tables and writes them as JSON; only messages of 4 to 40 tokens are sent."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "about.json").write_text('{"weights": "none"}', encoding="utf-8")
    bodies = tmp_path / "bodies.txt"
    bodies.write_text("too short\nis volume eight out yet\n", encoding="utf-8")
    with fake_service(refusing_after(10)) as service:
        options = ["--url", service.url, "--skip-baseline", "--baseline", str(tmp_path), "--bodies", str(bodies)]
        options += ["--slo-ms", str(NO_BUDGET_MS), "--trial-s", "0.2", "--trials", "1", "--resolution", "0.6"]
        options += ["--overload-s", "0.2", "--rate", "20", "--out", str(tmp_path / "out")]
        main(options)
        assert set(service.texts) == {"is volume eight out yet"}
    kept = json.loads((tmp_path / "out" / "bench.json").read_text(encoding="utf-8"))
    assert kept["servers"][0]["name"] == "service"
    printed = capsys.readouterr().out
    assert "1 messages of 4 to 40 tokens, 5.0 on average" in printed
    assert "| P95 below | service, requests/s |" in printed
