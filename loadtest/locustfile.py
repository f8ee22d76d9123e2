"""
Locust users who chat with the service, a load shape, and the verdict as Locust's exit code.

    locust -f loadtest/locustfile.py --headless --host http://127.0.0.1:8080 --load-shape steady

``python -m loadtest`` (``make loadtest``) runs this for every shape and starts the service itself. Importing it imports
locust, which patches sockets and threads of the whole process: nothing else imports it.
"""

import itertools
import json
import random
from argparse import ArgumentParser, Namespace
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from locust import FastHttpUser, LoadTestShape, events, task
from locust.env import Environment
from numpy.typing import NDArray

from loadtest.messages import DEFAULT_FOLDER, Message, read_messages
from loadtest.shapes import DEFAULT_SHAPES, Shape, read_shapes
from loadtest.slo import Slo, judge
from loadtest.traffic import DEFAULT_MIX, TrafficMix, read_mix, traffic, weigh
from loadtest.wire import loopback_target, request_id


class _Run:
    """What the users of one run share; filled once, when Locust has read its options."""

    messages: list[Message]
    weights: NDArray[Any]
    mix: TrafficMix
    shape: Shape
    seed: int
    numbers = itertools.count()

    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.error_kinds: Counter[str] = Counter()

    def configure(self, options: Namespace) -> None:
        """Read the data files that the options name."""
        loopback_target(options.host)
        self.messages = read_messages(Path(options.messages))
        self.mix = read_mix(Path(options.mix))
        self.weights = weigh(self.messages, self.mix)
        shapes = read_shapes(Path(options.shapes))
        if options.load_shape not in shapes:
            raise ValueError(f"--load-shape must be one of {', '.join(shapes)}, got {options.load_shape!r}")
        self.shape = shapes[options.load_shape].scaled(options.scale_users, options.scale_seconds)
        self.seed = options.seed


RUN = _Run()


@events.init_command_line_parser.add_listener
def add_options(parser: ArgumentParser) -> None:
    """What ``python -m loadtest`` passes on."""
    parser.add_argument("--load-shape", default="steady", help="name of a shape in --shapes")
    parser.add_argument("--shapes", default=str(DEFAULT_SHAPES), help="TOML file of load shapes")
    parser.add_argument("--mix", default=str(DEFAULT_MIX), help="TOML file of the traffic mix")
    parser.add_argument("--messages", default=str(DEFAULT_FOLDER), help="folder of labelled *.jsonl")
    parser.add_argument("--scale-users", type=float, default=1.0, help="factor on the people of every stage")
    parser.add_argument("--scale-seconds", type=float, default=1.0, help="factor on the length of every stage")
    parser.add_argument("--seed", type=int, default=42, help="the same seed sends the same traffic")
    parser.add_argument("--p95-ms", type=float, default=Slo.p95_ms, help="promised 95th percentile")
    parser.add_argument("--error-share", type=float, default=Slo.error_share, help="promised share of errors")
    parser.add_argument("--verdict", default="", help="file to write the verdict to, as JSON")


@events.init.add_listener
def read_data(environment: Environment, **_: object) -> None:
    """Before the first user arrives."""
    RUN.configure(environment.parsed_options)


@events.request.add_listener
def record(response_time: float, exception: BaseException | None, **_: object) -> None:
    """Every answer, unrounded: Locust's own percentiles are of whole milliseconds."""
    if exception is None:
        RUN.latencies_ms.append(response_time)
    else:
        RUN.error_kinds[str(exception)] += 1


@events.quitting.add_listener
def deliver_verdict(environment: Environment, **_: object) -> None:
    """The verdict decides Locust's exit code."""
    options = environment.parsed_options
    slo = Slo(p95_ms=options.p95_ms, error_share=options.error_share)
    verdict = judge(RUN.latencies_ms, RUN.error_kinds.total(), slo)
    environment.process_exit_code = verdict.exit_code
    if options.verdict:
        kept = {"line": verdict.line(), "error_kinds": dict(RUN.error_kinds), **asdict(verdict)}
        Path(options.verdict).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


class Chatter(FastHttpUser):
    """One person: sends what the seeded traffic says, pauses as it says, and checks whose answer came back."""

    def on_start(self) -> None:
        """
        Each person has a stream of their own, the same in every run of the same seed, and pauses before the first
        message: Locust lets in whoever comes within a second at once, and people do not write in the same millisecond.
        """
        self._number = next(RUN.numbers)
        rng = random.Random(f"{RUN.seed}-{self._number}")
        self._pause_s = rng.expovariate(1.0 / RUN.mix.pause_s)
        self._traffic = traffic(RUN.messages, RUN.weights, RUN.mix, rng)
        self._sent = 0
        self.wait()

    def wait_time(self) -> float:
        """Seconds until the next message."""
        return self._pause_s

    @task
    def route(self) -> None:
        """One message."""
        planned = next(self._traffic)
        self._pause_s = planned.pause_s
        self._sent += 1
        identifier = request_id(f"{RUN.seed:06x}{self._number:06x}", self._sent).decode()
        body = {"text": planned.text, "request_id": identifier, "session_id": f"person-{self._number}"}
        with self.client.post("/route", json=body, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"http_{response.status_code}")
            elif identifier not in (response.text or ""):
                response.failure("wrong_answer")


class StagedShape(LoadTestShape):
    """The chosen shape, as Locust asks for it every second."""

    def tick(self) -> tuple[int, float] | None:
        """People wanted now and how fast they come; None ends the run."""
        stage = RUN.shape.stage_at(self.get_run_time())
        return None if stage is None else (stage.users, stage.spawn_rate)
