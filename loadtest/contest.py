"""Measurements of servers side by side: each in turn, so that a noisy minute of the machine hits them alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from loadtest.closed_loop import ClosedReport, run_closed_loop
from loadtest.latency import LatencySummary, recovery_s, summarise
from loadtest.load_plan import LoadPlan, LoadReport, RateStep
from loadtest.openload import run_open_loop
from loadtest.rate_search import RateSearch
from loadtest.wire import Target

Announce = Callable[[str], None]
_SETTLE_AT_MOST_S = 10.0


@dataclass(frozen=True)
class Terms:
    """How long and how often is measured."""

    texts: Sequence[str]
    trial_s: float = 5.0
    """Length of one trial at one rate."""
    trials: int = 3
    """A rate holds when more than half of this many trials hold."""
    start: float = 50.0
    resolution: float = 0.05
    overload_s: float = 10.0
    recovery_s: float = 5.0
    """How long recovery is watched after the overload."""


@dataclass(frozen=True)
class Trial:
    """One trial, as far as a verdict needs it."""

    rate: float
    p95: float
    errors: int
    client_cpu: float

    def holds(self, slo_ms: float) -> bool:
        """Inside the budget without a single error."""
        return self.errors == 0 and self.p95 < slo_ms


@dataclass
class Contender:
    """A server in the contest; its trials are kept, since another budget may ask for the same rate."""

    name: str
    target: Target
    trials: list[Trial] = field(default_factory=list)


@dataclass(frozen=True)
class Overload:
    """Ten seconds or so at a multiple of the limit, and what followed."""

    rate: float
    admitted: LatencySummary
    """Of the requests answered with 200 while overloaded."""
    refused_share: float
    """Answered 503 or 429: shed at the door."""
    failed_share: float
    """Neither answered nor refused: lost, wrong, or too late."""
    recovery_s: float


def find_limits(
    contenders: Sequence[Contender], terms: Terms, slo_ms: float, announce: Announce
) -> Mapping[str, float]:
    """Highest rate by contender with P95 below ``slo_ms`` and no error; 0 when not even the lowest holds."""
    searches = {contender.name: RateSearch(terms.start, resolution=terms.resolution) for contender in contenders}
    pending = True
    while pending:
        pending = False
        for contender in contenders:
            rate = searches[contender.name].next_rate()
            if rate is not None:
                pending = True
                has_held = _holds(contender, rate, terms, slo_ms, announce)
                searches[contender.name] = searches[contender.name].after(rate, has_held)
    return {name: search.held for name, search in searches.items()}


def _holds(contender: Contender, rate: float, terms: Terms, slo_ms: float, announce: Announce) -> bool:
    needed = terms.trials // 2 + 1
    known = [trial.holds(slo_ms) for trial in contender.trials if trial.rate == rate]
    while known.count(True) < needed and known.count(False) <= terms.trials - needed:
        trial = _try(contender, rate, terms)
        contender.trials.append(trial)
        known.append(trial.holds(slo_ms))
        announce(f"{contender.name} at {rate:.0f}/s: P95 {trial.p95:.1f} ms, {trial.errors} errors")
    return known.count(True) >= needed


def _try(contender: Contender, rate: float, terms: Terms) -> Trial:
    settle(contender.target, terms.texts)
    plan = LoadPlan((RateStep(rate, terms.trial_s),), seed=7 + len(contender.trials))
    report = run_open_loop(contender.target, terms.texts, plan)
    return Trial(rate, report.latency.p95, report.errors, report.client_cpu)


def settle(target: Target, texts: Sequence[str]) -> None:
    """Wait until what the last run left behind is worked off: three answers in a row within 50 ms, or ten seconds."""
    ends = time.monotonic() + _SETTLE_AT_MOST_S
    is_settled = False
    while not is_settled and time.monotonic() < ends:
        report = run_closed_loop(target, texts, seconds=1.0, run="settle", at_most=3)
        is_settled = report.errors == 0 and report.latency.maximum < 50.0


def at_rate(contender: Contender, terms: Terms, rate: float) -> LoadReport:
    """One run at a rate, twice as long as a trial."""
    settle(contender.target, terms.texts)
    return run_open_loop(contender.target, terms.texts, LoadPlan((RateStep(rate, 2 * terms.trial_s),)))


def alone(contender: Contender, terms: Terms) -> ClosedReport:
    """One client alone, for as long as a trial."""
    settle(contender.target, terms.texts)
    return run_closed_loop(contender.target, terms.texts, terms.trial_s, run="alone")


def overload(contender: Contender, terms: Terms, limit: float, slo_ms: float) -> Overload:
    """Twice the limit for a while, then half the limit while it recovers."""
    settle(contender.target, terms.texts)
    steps = (RateStep(2 * limit, terms.overload_s), RateStep(max(1.0, limit / 2), terms.recovery_s))
    # The backlog must not end the run: how it is worked off is what is measured.
    plan = LoadPlan(steps, connections=4096, abort_backlog_s=terms.overload_s + terms.recovery_s, timeout_s=15.0)
    report = run_open_loop(contender.target, terms.texts, plan)
    return judge_overload(report, 2 * limit, terms.overload_s, slo_ms)


def judge_overload(report: LoadReport, rate: float, seconds: float, slo_ms: float) -> Overload:
    """What a run says of its first ``seconds``, which were too much, and of the rest."""
    during = [sample for sample in report.samples if sample.due_s < seconds]
    refused = sum(sample.status in (429, 503) for sample in during)
    admitted = [sample.latency_ms for sample in during if not sample.error]
    return Overload(
        rate=rate,
        admitted=summarise(admitted),
        refused_share=refused / len(during),
        failed_share=(len(during) - refused - len(admitted)) / len(during),
        recovery_s=recovery_s(report.samples, seconds, slo_ms),
    )
