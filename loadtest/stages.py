"""
Where the time of a request goes, stage by stage: ``python -m loadtest.stages [--rate 50 --rate 200] [--url URL]``.

Starts the service on loopback, or takes the one at ``--url``, and sends single messages at each constant rate. The
service keeps a clock of its stages (``router_stage_seconds``); what a run added to it is set beside the latency that
the sender saw. Prints a table in Markdown.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from prometheus_client.samples import Sample

from loadtest.bench_report import markdown
from loadtest.contest import settle
from loadtest.load_plan import LoadPlan, LoadReport, RateStep
from loadtest.messages import DEFAULT_FOLDER, read_texts, within_tokens
from loadtest.openload import run_open_loop
from loadtest.server_process import ROOT, service_running
from loadtest.service_metrics import read_metrics, total
from loadtest.wire import loopback_target

STAGES = ("parse", "tokenize", "queue", "inference", "decide", "log", "serialize")
"""In the order of the request's journey."""
CLOCK = "router_stage_seconds"


@dataclass(frozen=True)
class StageClock:
    """What the service's clock of its stages says at a moment."""

    seconds: Mapping[str, float]
    """Since the start, by stage."""
    counts: Mapping[str, float]

    def since(self, before: "StageClock") -> "StageClock":
        """What was added after ``before``."""
        return StageClock(
            {stage: self.seconds[stage] - before.seconds[stage] for stage in self.seconds},
            {stage: self.counts[stage] - before.counts[stage] for stage in self.counts},
        )

    def mean_ms(self, stage: str) -> float:
        """Of one request, or of one micro-batch where the stage is one of those; 0 for a stage that never ran."""
        count = self.counts.get(stage, 0.0)
        return 1e3 * self.seconds[stage] / count if count else 0.0


@dataclass(frozen=True)
class StageTimes:
    """What one run found."""

    rate: float
    clock: StageClock
    mean_ms: float
    """Of the answered requests, from when they were due to their last byte."""
    answered: int
    errors: int

    @property
    def group(self) -> float:
        """Messages a micro-batch."""
        batches = self.clock.counts.get("inference", 0.0)
        return self.clock.counts.get("parse", 0.0) / batches if batches else 0.0


def clock_of(found: Sequence[Sample]) -> StageClock:
    """The clock among the service's metrics."""
    return StageClock(
        {stage: total(found, f"{CLOCK}_sum", stage=stage) for stage in STAGES},
        {stage: total(found, f"{CLOCK}_count", stage=stage) for stage in STAGES},
    )


def measure(url: str, texts: Sequence[str], rate: float, seconds: float) -> StageTimes:
    """One run at a constant rate."""
    target = loopback_target(url)
    settle(target, texts)
    before = clock_of(read_metrics(url))
    report = run_open_loop(target, texts, LoadPlan((RateStep(rate, seconds),)))
    return _times(rate, clock_of(read_metrics(url)).since(before), report)


def _times(rate: float, clock: StageClock, report: LoadReport) -> StageTimes:
    latencies = [sample.latency_ms for sample in report.samples if not sample.error]
    return StageTimes(rate, clock, fmean(latencies) if latencies else 0.0, len(latencies), report.errors)


def table(runs: Sequence[StageTimes]) -> str:
    """A column a rate; what no stage accounts for is the event loop, the sockets and the sender."""
    rows = [[stage, *(f"{run.clock.mean_ms(stage):.2f}" for run in runs)] for stage in STAGES]
    between = [run.mean_ms - sum(run.clock.mean_ms(stage) for stage in STAGES) for run in runs]
    rows.append(["between: event loop, sockets, sender", *(f"{rest:.2f}" for rest in between)])
    rows.append(["all, as the sender saw it", *(f"{run.mean_ms:.2f}" for run in runs)])
    rows.append(["messages a micro-batch", *(f"{run.group:.2f}" for run in runs)])
    rows.append(["answered / errors", *(f"{run.answered} / {run.errors}" for run in runs)])
    return markdown(["mean ms", *(f"{run.rate:g}/s" for run in runs)], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    chosen = _parser().parse_args(arguments)
    texts = within_tokens(read_texts(chosen.bodies), chosen.tokenizer)
    with ExitStack() as servers:
        url = chosen.url or servers.enter_context(service_running(chosen.out, {})).url
        print(table([measure(url, texts, rate, chosen.seconds) for rate in chosen.rate or [50.0, 200.0, 400.0]]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, action="append", help="may be given again (50, 200, 400)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a run")
    parser.add_argument("--url", help="a service on this machine that nobody else uses meanwhile")
    parser.add_argument("--bodies", type=Path, default=DEFAULT_FOLDER, help="folder of *.jsonl, or file of lines")
    # The one of any version counts tokens as well as that of the version that serves.
    tokenizer = next((ROOT / "model_repo" / "versions").glob("*/tokenizer.json"), None)
    parser.add_argument("--tokenizer", type=Path, default=tokenizer, help="messages of 4 to 40 of its tokens are sent")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "stages")
    return parser


if __name__ == "__main__":
    main()
