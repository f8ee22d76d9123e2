"""Where the time goes: reading the service's clock, and the table."""

from pathlib import Path

import pytest

from loadtest.service_metrics import samples
from loadtest.stages import CLOCK, STAGES, StageClock, StageTimes, clock_of, main, table


def metrics(parse: tuple[float, int], inference: tuple[float, int]) -> str:
    """Text as ``GET /metrics`` gives it, with something else between."""
    lines = [f"# TYPE {CLOCK} histogram", "# TYPE other gauge", "other 3.0"]
    for stage, (seconds, count) in (("parse", parse), ("inference", inference)):
        lines[1:1] = [
            f'{CLOCK}_bucket{{stage="{stage}",le="+Inf"}} {count}',
            f'{CLOCK}_sum{{stage="{stage}"}} {seconds}',
            f'{CLOCK}_count{{stage="{stage}"}} {count}',
        ]
    return "\n".join([*lines, ""])


def test_only_what_a_run_added_counts() -> None:
    """The clock runs from the start of the service."""
    pages = metrics((1.0, 100), (9.0, 50)), metrics((1.2, 300), (10.0, 100))
    before, after = (clock_of(samples(page)) for page in pages)
    added = after.since(before)
    assert added.mean_ms("parse") == pytest.approx(1.0)
    assert added.mean_ms("inference") == pytest.approx(20.0)
    assert added.mean_ms("log") == 0.0


def test_what_no_stage_accounts_for_stands_in_the_table() -> None:
    """8 ms seen, 5 of them in stages; two messages a micro-batch."""
    clock = StageClock({"parse": 0.2, "inference": 0.4}, {"parse": 200, "inference": 100})
    lines = table([StageTimes(50.0, clock, mean_ms=8.0, answered=200, errors=1)]).splitlines()
    assert lines[0] == "| mean ms | 50/s |"
    assert "| parse | 1.00 |" in lines
    assert "| inference | 4.00 |" in lines
    assert "| between: event loop, sockets, sender | 3.00 |" in lines
    assert "| messages a micro-batch | 2.00 |" in lines
    assert lines[-1] == "| answered / errors | 200 / 1 |"


def test_command_times_every_stage_of_the_service_of_this_checkout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stage that the service renamed would stand at 0."""
    main(["--rate", "20", "--seconds", "1", "--out", str(tmp_path)])
    rows = dict(line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if "---" not in line)
    assert rows["answered / errors"] == "20 / 0"
    assert [stage for stage in STAGES if float(rows[stage]) == 0.0] == []
