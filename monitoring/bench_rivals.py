"""
The replayed streams through river, Evidently and NannyML, set up as their documents do it, defaults throughout.

    python -m monitoring.bench_replay ... --export DIR                      # in the project's environment
    python -m monitoring.bench_rivals DIR --tools river kswin evidently     # in another one: see below
    python -m monitoring.bench_rivals DIR --tools nannyml                   # in a third: it needs other packages

The environments are those of ``bench_rivals.constraints.txt`` and ``bench_rivals_nannyml.constraints.txt``. river gets
every row in turn, the pinned stretch first; the others compare windows of 1,000 rows with the pinned stretch, and the
change comes between two windows. What speaks of labels is about utterances that are in scope.

Every alarm in a quiet stream is false. A change is found by the first alarm after it, so whatever is never silent finds
everything: read both. Rows are counted from the end of the pinned stretch, and from the change.
"""

import argparse
import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monitoring.rival_tools import TOOLS, Alarms, Stream

QUIET = "quiet"
PER_ROWS = 50_000
NUMBERS = ("pinned", "changed_at", "allowed")

Found = dict[str, list[tuple[list[int], Stream]]]
"""By detector, the alarms in each stream."""


def main(arguments: list[str] | None = None) -> int:
    """Prints a line a detector: false alarms, then for each change the runs that found it in time and the delays."""
    parser = argparse.ArgumentParser(
        prog="python -m monitoring.bench_rivals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="streams that bench_replay wrote")
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), required=True, help="which tools")
    parser.add_argument("--quiet-runs", type=int, default=20, help="quiet streams, at most (default: 20)")
    parser.add_argument("--runs", type=int, default=20, help="streams of each change, at most (default: 20)")
    parser.add_argument("--changes", nargs="*", help="only these")
    chosen = parser.parse_args(arguments)
    # They would report each call to their makers.
    os.environ["NML_DISABLE_USAGE_LOGGING"] = os.environ["DO_NOT_TRACK"] = "1"
    warnings.simplefilter("ignore")
    names = sorted({file.stem.rsplit("-", 1)[0] for file in chosen.folder.glob("*-*.npz")} - {QUIET})
    if chosen.changes:
        names = [name for name in names if name in chosen.changes]
    for tool in chosen.tools:
        quiet = _found(tool, chosen.folder, QUIET, chosen.quiet_runs)
        for detector, runs in quiet.items():
            say(quiet_line(detector, runs))
        for name in names:
            for detector, runs in _found(tool, chosen.folder, name, chosen.runs).items():
                say(changed_line(name, detector, runs))
    return 0


def read(file: Path, corpus: Path) -> Stream:
    """One stream; raises OSError or KeyError for what is none."""
    with np.load(file, allow_pickle=False) as saved, np.load(corpus, allow_pickle=False) as shared:
        columns = {name: saved[name] for name in saved.files if name not in NUMBERS}
        pinned, changed_at, allowed = (int(saved[name]) for name in NUMBERS)
        return Stream(columns, tuple(shared["labels"].tolist()), shared["embeddings"], pinned, changed_at, allowed)


def quiet_line(detector: str, runs: Sequence[tuple[list[int], Stream]]) -> str:
    """In how many quiet runs there was a false alarm, and how many came."""
    rows = sum(len(stream.columns["label"]) - stream.pinned for _, stream in runs)
    wrong = sum(bool(alarms) for alarms, _ in runs)
    each = sum(len(alarms) for alarms, _ in runs) * PER_ROWS / rows
    return f"{QUIET:<20} {detector:<48} false in {wrong} of {len(runs)}, {each:.1f} alarms a {PER_ROWS:,} rows"


def changed_line(name: str, detector: str, runs: Sequence[tuple[list[int], Stream]]) -> str:
    """The runs that found the change in time, the delays, and the runs with an alarm before it."""
    delays, early = [], 0
    for alarms, stream in runs:
        change = stream.changed_at - stream.pinned
        early += any(row <= change for row in alarms)
        delays.append(min((row - change for row in alarms if row > change), default=np.inf))
    allowed = runs[0][1].allowed
    in_time = sum(delay <= allowed for delay in delays)
    ordered = sorted(delays)
    half, most = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.9))
    shown = " ".join(f"{delay:>7.0f}" if np.isfinite(delay) else "  never" for delay in (half, most))
    return f"{name:<20} {detector:<48} {in_time:>3} of {len(runs)} in {allowed:,} {shown}   before it {early}"


def say(words: str) -> None:
    """At once."""
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def _found(tool: str, folder: Path, name: str, most: int) -> Found:
    files = sorted(folder.glob(f"{name}-*.npz"))
    found: Found = defaultdict(list)
    for file in files[:most]:
        stream = read(file, folder / "corpus.npz")
        alarms: Alarms = TOOLS[tool](stream)
        for detector, rows in alarms.items():
            found[detector].append((rows, stream))
    return dict(found)


if __name__ == "__main__":
    sys.exit(main())
