"""
The whole tree over replayed real text: how often quiet streams come to a diagnosis, and how soon changed ones do.

    python -m monitoring.bench_replay --data DIR --in-scope test.jsonl validation.jsonl --latencies LOG --cache DIR

    --data DIR           public text: clinc150/, hint3_*/, multidogo/, label_map.json
    --in-scope FILE...   labelled messages of the shop that no version was trained on, as ``python -m model_repo data``
                         writes them
    --latencies FILE     an event log of the service, whose recorded latencies are drawn from
    --cache DIR          where the outputs of the model are kept
    --export DIR         write the same streams for ``bench_rivals`` instead, as .npz

Each run draws a stream (``replay_streams``), pins its first stretch as its reference, goes on quietly, and then
changes. It is followed, assessed, walked and alerted on as by the sidecar; a diagnosis counts once its alert has begun,
at the row after which the walk was made. Intervals are those of Clopper and Pearson, 95%.

Seeds below 500 were for choosing thresholds. The table takes others: quiet ones from 1,000, changed ones from 2,000.
"""

import argparse
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from scipy.stats import beta

from model_repo.contract.outputs import FloatArray
from model_repo.store import Store
from monitoring.alerts import AlertRules, AlertState, advance
from monitoring.drawn_streams import DrawnSources
from monitoring.failure_tree import FailureTree, load, walk
from monitoring.label_join import Joined
from monitoring.latency import STAGES
from monitoring.observations import Limits
from monitoring.replay_changes import (
    CHANGES,
    PINNED,
    QUIET_BEFORE,
    Change,
    Changed,
    Replay,
    Stretch,
    changed_of,
    pinned,
    stream_of,
    stretches,
)
from monitoring.replay_export import export
from monitoring.replay_streams import Phase, ReplayedStream, accuracy, ece, quiet
from monitoring.replay_text import corpus_of, read_texts
from monitoring.service_replay import ROOT
from monitoring.stream_watch import MMD, StreamWatches, WatchSettings
from monitoring.windows import WindowSet

QUIET_SEED, CHANGED_SEED = 1_000, 2_000
FOLLOWED_ROWS = 2
"""A changed run is followed for so many times what is allowed, or until its branch has begun."""


@dataclass(frozen=True)
class Begun:
    """A diagnosis, and the rows after which its alert began."""

    diagnosis: str
    row: int

    @property
    def branch(self) -> str:
        """Of the tree."""
        return self.diagnosis.split("/", 1)[0]


@dataclass(frozen=True)
class Run:
    """What one changed stream came to."""

    right: Changed
    early: tuple[Begun, ...]
    """Before the change."""
    begun: tuple[Begun, ...]
    """After it, rows counted from it; ends with that of a right branch, if it came."""


class Watcher:
    """What the sidecar does with one stream, from chunks to diagnoses that begin."""

    def __init__(self, tree: FailureTree, replay: Replay, settings: WatchSettings) -> None:
        """Nothing seen yet."""
        self.sources = DrawnSources({replay.policy.name: replay.policy})
        self._tree = tree
        self._watches = StreamWatches(tree, self.sources, settings, lambda _: None)
        self._windows = WindowSet(Limits())
        self._alerts = AlertState()
        self._new_embeddings = 0

    def take(self, stretch: Stretch) -> list[str]:
        """The diagnoses that begin with this chunk."""
        key = stretch.joined.key
        joined = Joined((stretch.joined,), (), Counter())
        self._watches.follow(joined)
        self._watches.take_over()
        self._windows.push(joined)
        windows = self._windows.stream(key)
        self._watches.pin_due(windows)
        self._watches.take_over()
        if stretch.part == "pinned":
            return []
        self._new_embeddings += len(stretch.joined.embeddings)
        is_embedding_look = self._new_embeddings >= self._tree.watches[MMD].minimum_rows
        if is_embedding_look:
            self._new_embeddings = 0
        # Where nothing has been found and nothing counts up, a walk could change nothing.
        elif not (self._watches.detected(key) or self._alerts.fired or self._alerts.open):
            return []
        now = float(stretch.joined.predictions["at"][-1])
        assessment = self._watches.assess(windows, now, {})
        self._alerts, transitions = advance(self._alerts, walk(self._tree, assessment.signals), now, AlertRules())
        return [one.alert.walk.diagnosis for one in transitions if one.kind == "begun"]


def quiet_run(replay: Replay, tree: FailureTree, settings: WatchSettings, seed: int, rows: int) -> list[Begun]:
    """Every diagnosis of a quiet stream: all of them false."""
    watcher, stream = Watcher(tree, replay, settings), stream_of(replay, seed)
    watcher.take(pinned(stream, replay))
    return list(_begun(watcher, stretches(stream, replay.quiet, rows, "quiet")))


def changed_runs(
    replay: Replay,
    tree: FailureTree,
    settings: WatchSettings,
    seed: int,
    changes: Sequence[Change],
    quiet_before: int = QUIET_BEFORE,
) -> list[Run]:
    """One quiet beginning, and from there every change, each until a right branch has begun."""
    watcher, stream = Watcher(tree, replay, settings), stream_of(replay, seed)
    watcher.take(pinned(stream, replay))
    early = tuple(_begun(watcher, stretches(stream, replay.quiet, quiet_before, "quiet")))
    return [_changed_run(replay, deepcopy(watcher), stream.copy(), seed, change, early) for change in changes]


def _changed_run(
    replay: Replay, watcher: "Watcher", stream: ReplayedStream, seed: int, change: Change, early: tuple[Begun, ...]
) -> Run:
    right = changed_of(change, replay, seed)
    watcher.sources.policies[right.policy.name] = right.policy
    begun = []
    for one in _begun(watcher, stretches(stream, right.phase, FOLLOWED_ROWS * change.allowed, "changed")):
        begun.append(one)
        if one.branch in right.branches:
            break
    return Run(right, early, tuple(begun))


def _begun(watcher: "Watcher", parts: Iterable[Stretch]) -> Iterator[Begun]:
    row = 0
    for stretch in parts:
        row += len(stretch.messages)
        for diagnosis in watcher.take(stretch):
            yield Begun(diagnosis, row)


def interval(hits: int, n: int) -> tuple[float, float]:
    """
    Of a share, 95% (Clopper & Pearson 1934).

    >>> [round(end, 3) for end in interval(0, 40)], [round(end, 3) for end in interval(36, 40)]
    ([0.0, 0.088], [0.763, 0.972])
    """
    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, n - hits + 1))
    return low, 1.0 if hits == n else float(beta.ppf(0.975, hits + 1, n - hits))


def shown_share(hits: int, n: int) -> str:
    """As ``38 of 40 [0.83, 0.99]``."""
    low, high = interval(hits, n)
    return f"{hits} of {n} [{low:.2f}, {high:.2f}]"


def shown_delays(delays: Sequence[float]) -> str:
    """Median and nine in ten; ``never`` where fewer runs have one."""
    ordered, n = sorted(delays), len(delays)
    picked = (ordered[min(n - 1, int(share * n))] for share in (0.5, 0.9))
    return " ".join(f"{delay:>7.0f}" if np.isfinite(delay) else "  never" for delay in picked)


def line(change: Change, runs: Sequence[Run]) -> str:
    """One change: the right branch in time, its delays, any diagnosis in time, and all that came."""

    def first(run: Run, own: bool) -> float:
        return min((one.row for one in run.begun if not own or one.branch in run.right.branches), default=np.inf)

    right, anything = ([first(run, own) for run in runs] for own in (True, False))
    exact = sum(any(one.diagnosis in run.right.diagnoses for one in run.begun) for run in runs)
    counted = Counter(one.diagnosis for run in runs for one in run.begun)
    came = ", ".join(f"{diagnosis} {count}" for diagnosis, count in counted.most_common()) or "nothing"
    early = sum(bool(run.early) for run in runs)
    in_time, any_in_time = (sum(delay <= change.allowed for delay in delays) for delays in (right, anything))
    if early:
        came += f"; before the change {early}"
    return (
        f"{change.words:<50} {shown_share(in_time, len(runs)):<22} {shown_delays(right)} {change.allowed:>8,}  "
        f"{shown_share(any_in_time, len(runs)):<22} {exact:>5}  {came}"
    )


HEAD = (
    f"{'change':<50} {'right branch in time':<22}  half in 9 in 10  allowed  {'any diagnosis in time':<22} exact  "
    "what began"
)


def main(arguments: list[str] | None = None) -> int:
    """Prints the table, or writes the streams."""
    chosen = _parser().parse_args(arguments)
    replay = read_replay(chosen)
    if chosen.export:
        seeds = QUIET_SEED, CHANGED_SEED
        export(replay, chosen.export, chosen.changes, chosen.runs, chosen.rows, seeds, say, chosen.quiet_before)
        return 0
    tree = load()
    settings = WatchSettings(window_predictions=chosen.window_predictions, window_labelled=chosen.window_labelled)
    describe(replay, settings)
    if not chosen.no_quiet:
        _print_quiet(replay, tree, settings, chosen.quiet_seed, chosen.runs, chosen.rows)
    changes = [change for change in CHANGES if chosen.changes is None or change.name in chosen.changes]
    if changes:
        _print_changed(replay, tree, settings, changes, chosen)
    return 0


def read_replay(chosen: argparse.Namespace) -> Replay:
    """What the arguments name."""
    store = Store(chosen.model_repo)
    champion = store.deployment().champion
    policy = store.policy(champion.version, champion.policy_revision)
    corpus = corpus_of(read_texts(chosen.data, chosen.in_scope), store.load(champion.version), chosen.cache)
    return Replay(corpus, policy, recorded_latencies(chosen.latencies), quiet(corpus, policy))


def recorded_latencies(log: Path) -> FloatArray:
    """(m, 3) milliseconds of each stage, from every prediction of an event log. Raises sqlite3.Error."""
    with closing(sqlite3.connect(f"{log.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        events = (orjson.loads(body) for (body,) in connection.execute("SELECT body FROM predictions"))
        return np.array([[event[f"{stage}_ms"] for stage in STAGES] for event in events])


def describe(replay: Replay, settings: WatchSettings) -> None:
    """What is replayed, before any run."""
    phase, corpus = replay.quiet, replay.corpus
    parts = Counter(part.split(" ", 1)[0].rstrip(":") for part in corpus.parts.tolist())
    say(f"policy {replay.policy.name}; messages: {', '.join(f'{part} {n:,}' for part, n in parts.items())}")
    say(f"new intents: {len(corpus.new_intents)}")
    is_ood = float(phase.weights @ phase.table["is_ood"])
    right, error = accuracy(phase.weights, phase.table), ece(phase.weights, phase.table)
    say(f"quiet traffic: accuracy {right:.4f}, ECE {error:.4f}")
    say(f"decided ood {is_ood:.4f}, right in {_ood_precision(phase):.3f} of them")
    total = replay.latencies_ms.sum(axis=1)
    p50, p95, p99 = np.quantile(total, [0.5, 0.95, 0.99])
    say(f"{len(total):,} recorded latencies: P50 {p50:.2f}, P95 {p95:.2f}, P99 {p99:.2f} ms")
    say(f"window {settings.window_predictions:,} predictions, {settings.window_labelled:,} labels; pinned {PINNED:,}")


def say(words: str) -> None:
    """At once: a run takes a while."""
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def _print_quiet(replay: Replay, tree: FailureTree, settings: WatchSettings, seed: int, runs: int, rows: int) -> None:
    false = []
    for number in range(runs):
        begun = quiet_run(replay, tree, settings, seed + number, rows)
        false.append(begun)
        if begun:
            say(f"    seed {seed + number}: {', '.join(f'{one.diagnosis} at {one.row:,}' for one in begun)}")
    wrong = sum(map(bool, false))
    say(f"quiet, {rows:,} labelled events: a diagnosis in {shown_share(wrong, runs)} runs")


def _print_changed(
    replay: Replay, tree: FailureTree, settings: WatchSettings, changes: Sequence[Change], chosen: argparse.Namespace
) -> None:
    of_seeds = []
    for seed in range(chosen.changed_seed, chosen.changed_seed + chosen.runs):
        of_seeds.append(changed_runs(replay, tree, settings, seed, changes, chosen.quiet_before))
        if chosen.verbose:
            say("\n".join(_told(seed, change, run) for change, run in zip(changes, of_seeds[-1], strict=True)))
    say(HEAD)
    for change, runs in zip(changes, zip(*of_seeds, strict=True), strict=True):
        say(line(change, runs))


def _told(seed: int, change: Change, run: Run) -> str:
    words = ", ".join(f"{one.diagnosis} at {one.row:,}" for one in run.begun)
    return f"    seed {seed} {change.name} {run.right.words}: {words or 'nothing'}"


def _ood_precision(phase: Phase) -> float:
    decided = phase.weights * phase.table["is_ood"]
    return float((decided * phase.table["truth"][:, -1]).sum() / decided.sum())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.bench_replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of public text")
    parser.add_argument("--in-scope", type=Path, nargs="+", required=True, help="JSON Lines of messages of the shop")
    parser.add_argument("--latencies", type=Path, required=True, help="event log with recorded latencies")
    parser.add_argument("--cache", type=Path, required=True, help="folder of model outputs")
    parser.add_argument("--model-repo", type=Path, default=ROOT / "model_repo" / "versions", help="model repository")
    parser.add_argument("--runs", type=int, default=40, help="seeds of each stream (default: 40)")
    parser.add_argument("--rows", type=int, default=50_000, help="rows of each quiet stream (default: 50000)")
    parser.add_argument("--changes", nargs="*", choices=[one.name for one in CHANGES], help="only these, or none")
    parser.add_argument("--no-quiet", action="store_true", help="changed streams only")
    parser.add_argument("--quiet-seed", type=int, default=QUIET_SEED, help="the first seed of the quiet streams")
    parser.add_argument("--changed-seed", type=int, default=CHANGED_SEED, help="the first seed of the changed streams")
    parser.add_argument(
        "--quiet-before",
        type=int,
        default=QUIET_BEFORE,
        help=f"rows after the first {PINNED} and before the change; from 17000 on the reference has grown (default: "
        f"{QUIET_BEFORE})",
    )
    for name in ("window_predictions", "window_labelled"):
        default = getattr(WatchSettings, name)
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=default, help=f"as the sidecar's setting (default: {default})")
    parser.add_argument("--verbose", action="store_true", help="a line a run too")
    parser.add_argument("--export", type=Path, help="write the streams here, for bench_rivals")
    return parser


if __name__ == "__main__":
    sys.exit(main())
