"""
The whole tree over drawn streams: how often a quiet one comes to a diagnosis, and how soon a changed one does.
``python -m monitoring.bench_signals --tree`` prints the tables.

Each run draws a stream (see ``drawn_streams``; every prediction gets its label), pins its first stretch, and then
follows, assesses, walks and advances alerts as the sidecar does. A diagnosis counts once its alert has begun.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from monitoring.alerts import AlertRules, AlertState, advance
from monitoring.drawn_streams import BEGAN, KEY, POLICY, QUIET, Change, DrawnSources, DrawnStream, revision_of
from monitoring.failure_tree import FailureTree, load, walk
from monitoring.label_join import Joined
from monitoring.observations import Limits
from monitoring.stream_watch import StreamWatches, WatchSettings
from monitoring.windows import WindowSet

CHANGED_ROWS = 5_000
QUIET_BEFORE = 2_000
"""Rows after the pinned stretch and before the change."""
EMBEDDINGS_EVERY = 3_000
"""Rows that bring enough new embeddings for a look at them."""
CHANGES: tuple[tuple[str, Change, str, int], ...] = (
    ("accuracy -3 pp, everywhere", Change(lost_accuracy=0.0317), "accuracy_down", 2_500),
    ("accuracy -3 pp, one intent of eight", Change(lost_accuracy=0.254, lost_intent=5), "accuracy_down", 2_500),
    ("ECE +0.03, revision of temperature 0.74", Change(temperature=0.74), "ece_up", 2_500),
    ("P95 +4 ms", Change(delay_ms=4.0), "latency_up", 2_000),
    ("ood utterances from 8% to 18%", Change(ood_share=0.18), "unlabelled_drift", 3_000),
    ("priors moved by 10 pp", Change(moved_prior=0.10), "unlabelled_drift", 3_000),
)
"""Words, change, the branch that should come to a diagnosis, and within how many rows."""


@dataclass(frozen=True)
class Begun:
    """A diagnosis, and the rows since the pinned stretch after which its alert began."""

    diagnosis: str
    row: int

    @property
    def branch(self) -> str:
        """Of the tree."""
        return self.diagnosis.split("/", 1)[0]


class TreeRun:
    """One stream and what watches it."""

    def __init__(self, seed: int, tree: FailureTree, settings: WatchSettings) -> None:
        """With its reference pinned."""
        self._tree = tree
        self._stream = DrawnStream(np.random.default_rng(seed))
        policies = [POLICY, *(revision_of(change) for _, change, _, _ in CHANGES if change.temperature != 1.0)]
        sources = DrawnSources({policy.name: policy for policy in policies})
        self._watches = StreamWatches(tree, sources, settings, lambda _: None)
        self._windows = WindowSet(Limits())
        self._alerts = AlertState()
        self._key = KEY
        self._rows = 0
        self._take(max(settings.pin_predictions, settings.pin_labelled), QUIET)

    def go_on(self, rows: int, look_every: int, change: Change = QUIET) -> Iterator[Begun]:
        """So many rows, a walk of the tree after every ``look_every``; gives what begins, as it begins."""
        for _ in range(rows // look_every):
            self._take(look_every, change)
            self._rows += look_every
            # Nothing can be breached without evidence, but for embeddings, which are looked at as they come.
            if not self._watches.detected(self._key) and self._rows % EMBEDDINGS_EVERY:
                continue
            now = BEGAN + self._rows
            assessment = self._watches.assess(self._windows.stream(self._key), now, {})
            walks = walk(self._tree, assessment.signals)
            self._alerts, transitions = advance(self._alerts, walks, now, AlertRules())
            for transition in transitions:
                if transition.kind == "begun":
                    yield Begun(transition.alert.walk.diagnosis, self._rows)

    def _take(self, rows: int, change: Change) -> None:
        chunk = self._stream.draw(rows, change)
        self._key = chunk.key
        joined = Joined((chunk,), (), Counter())
        self._watches.follow(joined)
        self._watches.take_over()
        self._windows.push(joined)
        self._watches.pin_due(self._windows.stream(self._key))
        self._watches.take_over()


def print_tables(runs: int, rows: int, look_every: int, settings: WatchSettings, show: Callable[[str], None]) -> None:
    """The quiet streams, then each change; a line as soon as it is known."""
    tree = load()
    show(f"reference: {settings.pin_predictions:,} predictions, {settings.pin_labelled:,} labels; ")
    show(f"a walk every {look_every} rows\n")
    false = [list(TreeRun(seed, tree, settings).go_on(rows, look_every)) for seed in range(runs)]
    show(f"quiet, {rows:,} labelled rows: a diagnosis in {sum(map(bool, false))} of {runs} runs\n")
    for seed, begun in enumerate(false):
        if begun:
            show(f"  seed {seed}: {', '.join(f'{one.diagnosis} at {one.row:,}' for one in begun)}\n")
    show(f"{'change':<40} {'found in':>9} {'half in':>8} {'9 in 10':>8} {'allowed':>8}  diagnoses\n")
    for words, change, branch, allowed in CHANGES:
        found = [_found(TreeRun(1_000 + seed, tree, settings), change, look_every) for seed in range(runs)]
        show(_line(words, branch, allowed, found))


def _found(run: TreeRun, change: Change, look_every: int) -> list[Begun]:
    """What begins after the change, rows counted from it."""
    for _ in run.go_on(QUIET_BEFORE, look_every):
        pass
    begun = run.go_on(CHANGED_ROWS, look_every, change)
    return [Begun(one.diagnosis, one.row - QUIET_BEFORE) for one in begun]


def _line(words: str, branch: str, allowed: int, found: list[list[Begun]]) -> str:
    runs = len(found)
    delays = sorted(min((one.row for one in begun if one.branch == branch), default=np.inf) for begun in found)
    half, most = (delays[min(runs - 1, int(share * runs))] for share in (0.5, 0.9))
    in_time = sum(delay <= allowed for delay in delays)
    shown = " ".join(f"{delay:>8.0f}" if np.isfinite(delay) else "   never" for delay in (half, most))
    counted = Counter(one.diagnosis for begun in found for one in begun)
    what = ", ".join(f"{diagnosis} {count}" for diagnosis, count in counted.most_common())
    return f"{words:<40} {f'{in_time} of {runs}':>9} {shown} {allowed:>8}  {what}\n"
