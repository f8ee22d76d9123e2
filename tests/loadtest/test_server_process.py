"""Servers under test: started, awaited, weighed, stopped."""

import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.closed_loop import run_closed_loop
from loadtest.server_process import ServerNotReady, free_port, peak_memory_mib, server_running


def test_a_server_answers_inside_the_block_and_is_gone_after_it(tmp_path: Path) -> None:
    """Nothing that a benchmark starts outlives it."""
    port = free_port()
    command = [sys.executable, "-m", "tests.loadtest.fake_server", str(port)]
    with server_running("fake", command, {}, port, tmp_path / "logs") as server:
        assert run_closed_loop(server.target, ["hello"], 0.05).latency.answered > 0
        assert server.url == f"http://127.0.0.1:{port}"
        assert peak_memory_mib(server.process.pid) > 5.0
    assert server.process.poll() is not None
    assert (tmp_path / "logs" / "fake.log").exists()


def test_a_server_that_ends_at_once_is_reported_with_its_output(tmp_path: Path) -> None:
    """The reason is in the message, not in a log that nobody opens."""
    command = [sys.executable, "-c", "raise SystemExit('no model version found')"]
    with (
        pytest.raises(ServerNotReady, match=r"ended with 1(.|\n)*no model version found"),
        server_running("fake", command, {}, free_port(), tmp_path),
    ):
        pass


def test_a_server_that_never_is_ready_is_stopped(tmp_path: Path) -> None:
    """It does not listen; the wait is bounded and the process ended."""
    mark = tmp_path / "pid"
    script = f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(60)"
    with (
        pytest.raises(ServerNotReady, match="not ready in time"),
        server_running("fake", [sys.executable, "-c", script], {}, free_port(), tmp_path, ready_in_s=1.5),
    ):
        pass
    assert not Path(f"/proc/{mark.read_text(encoding='utf-8')}").exists()


def test_memory_of_children_counts() -> None:
    """A server of several workers weighs what all of them weigh."""
    hold = "x = bytearray(40 << 20); print(len(x), flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}], check=True)"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == str(40 << 20)
        assert peak_memory_mib(process.pid) > 40.0
        process.communicate("\n")
