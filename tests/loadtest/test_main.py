"""``python -m loadtest`` as a person runs it, in a process of its own since Locust patches the one it runs in."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.loadtest.fake_server import Behaviour, echo, fake_service

ROOT = Path(__file__).resolve().parents[2]
MIX = """
multi_intent = 0.25
mixed_language = 0.25
duplicate = 0.1
burst = 0.1
burst_length = 3
pause_s = 0.02
[priors]
browse = 0.9
ood = 0.1
"""
MESSAGES = [
    {"text": "any box sets", "intents": ["browse"], "ood": False, "lang": "en"},
    {"text": "horror の box set, and is it cheap", "intents": ["browse", "promotion"], "ood": False, "lang": "mix"},
    {"text": "weather in osaka", "intents": [], "ood": True, "lang": "en"},
]


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Two short shapes, and messages of our own."""
    (tmp_path / "mix.toml").write_text(MIX, encoding="utf-8")
    (tmp_path / "shapes.toml").write_text(
        "[calm]\nstages = [{ seconds = 2, users = 10 }]\n[jump]\nstages = [{ seconds = 2, users = 20 }]\n",
        encoding="utf-8",
    )
    lines = [json.dumps(message) for message in MESSAGES]
    (tmp_path / "w1.jsonl").write_text("\n".join(lines), encoding="utf-8")
    folders = ["--messages", str(tmp_path), "--mix", str(tmp_path / "mix.toml"), "--out", str(tmp_path / "out")]
    return [*folders, "--shapes", str(tmp_path / "shapes.toml")]


def run(options: list[str], behaviour: Behaviour = echo) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """What the command printed, and the texts that the service saw."""
    with fake_service(behaviour) as service:
        command = [sys.executable, "-m", "loadtest", "--url", service.url, *options]
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return finished, service.texts


def test_kept_promises_exit_0_and_leave_a_report_of_every_shape(options: list[str], tmp_path: Path) -> None:
    """One verdict and one page a shape; every kind of message was sent."""
    finished, seen = run([*options, "--p95-ms", "100000"])
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.count("PASSED") == 2
    for shape in ("calm", "jump"):
        assert "<html" in (tmp_path / "out" / f"{shape}.html").read_text(encoding="utf-8")
        verdict = json.loads((tmp_path / "out" / f"{shape}.json").read_text(encoding="utf-8"))
        assert verdict["errors"] == 0
        assert verdict["latency"]["answered"] >= 100
    assert set(seen) == {message["text"] for message in MESSAGES}


def test_a_service_that_mixes_answers_up_fails(options: list[str], tmp_path: Path) -> None:
    """The id of every answer is checked; the exit code is for scripts."""
    finished, _ = run([*options, "--shape", "calm", "--p95-ms", "100000"], lambda _n, _r: (200, {"request_id": "you"}))
    assert finished.returncode == 1
    verdict = json.loads((tmp_path / "out" / "calm.json").read_text(encoding="utf-8"))
    assert verdict["error_kinds"] == {"wrong_answer": verdict["errors"]}
    assert "100.00% errors" in finished.stdout


def test_people_who_come_at_once_do_not_write_at_once(options: list[str], tmp_path: Path) -> None:
    """Locust lets twenty people in within the same instant; their first messages are pauses of half a second apart."""
    mix = tmp_path / "mix.toml"
    mix.write_text(mix.read_text(encoding="utf-8").replace("pause_s = 0.02", "pause_s = 0.5"), encoding="utf-8")
    first: dict[str, float] = {}

    def note(_number: int, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        first.setdefault(request["session_id"], time.monotonic())
        return 200, {"request_id": request["request_id"]}

    run([*options, "--shape", "jump"], note)
    assert len(first) > 10
    assert max(first.values()) - min(first.values()) > 0.5


def test_a_broken_promise_fails_with_its_figure(options: list[str]) -> None:
    """No service answers in a thousandth of a millisecond."""
    finished, _ = run([*options, "--shape", "calm", "--p95-ms", "0.001"])
    assert finished.returncode == 1
    assert "promised below 0.0 ms" in finished.stdout


def test_other_machines_and_unknown_shapes_are_refused(options: list[str]) -> None:
    """Before anything is sent."""
    finished, seen = run([*options, "--shape", "flood"])
    assert (finished.returncode, seen) == (1, [])
    assert "calm, jump" in finished.stderr
    finished, seen = run([*options, "--url", "http://10.1.2.3:8080"])
    assert finished.returncode != 0
    assert "only" in finished.stderr
