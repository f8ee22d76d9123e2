"""Two processes beside each other: one may die alone, the other may not, and a signal ends both."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.side_by_side import POLL_S

ROOT = Path(__file__).resolve().parents[2]
GOES_ON = """
import os, pathlib, signal, sys
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
os.write(1, b"up\\n")
signal.pause()
"""
DRAINS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(5 * float(sys.argv[1])), sys.exit(0)))
os.write(1, b"up\\n")
signal.pause()
"""
ENDS = "import sys; sys.exit(int(sys.argv[1]))"
LAUNCH = """
import sys
from deploy.side_by_side import run
service, sidecar = ([sys.executable, "-c", *sys.argv[at : at + 2]] for at in (1, 3))
sys.exit(run(service, sidecar))
"""


@contextmanager
def launch(service: tuple[str, str], sidecar: tuple[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """Both of them are a program and its argument; told to end when the block ends."""
    command = [sys.executable, "-c", LAUNCH, *service, *sidecar]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as both:
        try:
            yield both
        finally:
            # An assertion that failed must not leave this waiting for processes that go on.
            both.terminate()


def await_lines(process: "subprocess.Popen[str]", count: int) -> None:
    """So many processes are up."""
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(count)] == ["up\n"] * count


def is_running(pid_file: Path) -> bool:
    """Whether the process that wrote it is there."""
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_both(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM of a supervisor, Ctrl+C of a person."""
    files = tmp_path / "service", tmp_path / "sidecar"
    with launch((GOES_ON, str(files[0])), (GOES_ON, str(files[1]))) as both:
        await_lines(both, 2)
        both.send_signal(number)
        assert both.wait(timeout=60) == 128 + signal.SIGTERM
    assert [is_running(file) for file in files] == [False, False]


def test_an_end_that_was_asked_for_is_not_told_as_a_death(tmp_path: Path) -> None:
    """The sidecar has ended while the service still answers what it holds."""
    with launch((DRAINS, str(POLL_S)), (GOES_ON, str(tmp_path / "sidecar"))) as both:
        await_lines(both, 2)
        both.terminate()
        assert both.wait(timeout=60) == 0
        assert both.stderr is not None
        assert both.stderr.read() == ""


def test_the_service_goes_on_when_the_sidecar_dies(tmp_path: Path) -> None:
    """And it is said."""
    with launch((GOES_ON, str(tmp_path / "service")), (ENDS, "1")) as both:
        await_lines(both, 1)
        assert both.stderr is not None
        assert both.stderr.readline() == "the sidecar ended with status 1; the service goes on\n"
        assert is_running(tmp_path / "service")
        both.terminate()
    assert not is_running(tmp_path / "service")


def test_a_service_that_ends_takes_the_sidecar_with_it(tmp_path: Path) -> None:
    """Its status is that of both."""
    with launch((ENDS, "3"), (GOES_ON, str(tmp_path / "sidecar"))) as both:
        assert both.wait(timeout=60) == 3
    assert not (tmp_path / "sidecar").exists() or not is_running(tmp_path / "sidecar")
