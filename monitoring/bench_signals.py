"""
How often quiet streams raise a false alarm, and how soon a change is found: ``python -m monitoring.bench_signals``.

Streams are drawn, not replayed: a calibrated model of eight intents, whose labels, confidence, latency and mix of
intents are then changed. Prints one line a signal: runs with a false alarm on the quiet stream, and the delay in rows
that half, and nine in ten, of the runs stay within (``never`` when fewer do). With ``--tree`` it is the whole failure
tree instead of single signals: see ``bench_tree``.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model_repo.contract.decision import softmax
from model_repo.contract.outputs import BoolArray, FloatArray
from model_repo.contract.reference import quantiles
from monitoring.accuracy import accuracy_claim, accuracy_rows, error_reference
from monitoring.bench_tree import print_tables
from monitoring.calibration import gap_claim, gap_reference, gap_rows
from monitoring.drift import ks_claim, ks_values, mix_claim, mix_values
from monitoring.failure_tree import load
from monitoring.latency import exceedances, quantile_claim
from monitoring.sequential import Claim, start, update
from monitoring.stream_watch import WatchSettings

INTENTS = 8
REFERENCE_ROWS = 5_000
CHUNK = 2_000
"""Rows drawn and counted at once."""


@dataclass(frozen=True)
class Rows:
    """A stretch of a stream."""

    probabilities: FloatArray
    is_correct: BoolArray
    latency_ms: FloatArray

    @property
    def confidence(self) -> FloatArray:
        """Of the top intent."""
        return np.asarray(self.probabilities.max(axis=1))


@dataclass(frozen=True)
class Change:
    """What happens to a stream; the defaults change nothing."""

    name: str
    lost_accuracy: float = 0.0
    """Share of correct answers whose label turns out to be another, however sure the model was."""
    temperature: float = 1.0
    """Divides the logits after the labels are drawn: below 1 the model is too sure."""
    delay_ms: float = 0.0
    moved_prior: float = 0.0
    """Share of traffic moved from the first intent to the last."""


QUIET = Change("quiet")
FOLLOWED: tuple[tuple[str, Change, int], ...] = (
    ("accuracy", Change("accuracy -3 pp", lost_accuracy=0.033), 2_500),
    ("ece", Change("temperature error, ECE about +0.05", temperature=0.6), 2_500),
    ("total_p95_ms", Change("P95 +4 ms", delay_ms=4.0), 2_000),
    ("prior_shift", Change("priors moved by 10 pp", moved_prior=0.10), 3_000),
    ("confidence_ks", Change("temperature error", temperature=0.6), 3_000),
)
"""Signal, change, and the rows that it should be found within (9 of 10 runs)."""

Values = Callable[[Rows], tuple[FloatArray, FloatArray | None]]
"""Values, and bounds of their own where the rows have them."""


def draw(n: int, rng: np.random.Generator, change: Change = QUIET) -> Rows:
    """About 92% accuracy; calibrated unless changed."""
    shares = np.full(INTENTS, 1.0 / INTENTS)
    shares[0] -= change.moved_prior
    shares[-1] += change.moved_prior
    logits = rng.normal(0.0, 1.3, (n, INTENTS))
    logits[np.arange(n), rng.choice(INTENTS, n, p=shares)] += 6.0
    chances = softmax(logits)
    is_correct = (rng.random(n) < chances.max(axis=1)) & (rng.random(n) >= change.lost_accuracy)
    latency = rng.gamma(2.0, 1.2, n) + change.delay_ms
    return Rows(softmax(logits, change.temperature), is_correct, latency)


def follower(signal: str, reference: Rows) -> tuple[Claim, Values]:
    """The claim on a signal, and what of each row it is tested with."""
    watch = load().watches[signal]
    if signal == "accuracy":
        errors = error_reference(reference.confidence, reference.is_correct)
        return accuracy_claim(errors, watch), lambda rows: accuracy_rows(
            rows.confidence, rows.is_correct, errors, watch
        )
    if signal == "ece":
        gaps = gap_reference(reference.confidence, reference.is_correct)
        return gap_claim(gaps, watch), lambda rows: gap_rows(rows.confidence, rows.is_correct, gaps, watch)
    if signal == "total_p95_ms":
        p95 = float(np.quantile(reference.latency_ms, 0.95))
        return quantile_claim(watch, 0.95), lambda rows: (
            exceedances(rows.latency_ms, watch, p95)[:, None].astype(np.float64),
            None,
        )
    if signal == "prior_shift":
        counts = np.bincount(reference.probabilities.argmax(axis=1), minlength=INTENTS)
        return mix_claim(counts, watch), lambda rows: (mix_values(rows.probabilities.argmax(axis=1), INTENTS), None)
    cuts, claim = ks_claim(quantiles(reference.confidence), watch)
    return claim, lambda rows: (ks_values(rows.confidence, cuts), None)


def detected_at(signal: str, change: Change, quiet_rows: int, changed_rows: int, seed: int) -> int | None:
    """The row of detection after ``quiet_rows`` quiet ones; at most ``quiet_rows`` is a false alarm."""
    rng = np.random.default_rng(seed)
    claim, values = follower(signal, draw(REFERENCE_ROWS, rng))
    evidence = start(claim)
    for part, rows in ((QUIET, quiet_rows), (change, changed_rows)):
        for begin in range(0, rows, CHUNK):
            evidence = update(evidence, claim, *values(draw(min(CHUNK, rows - begin), rng, part)))
            if evidence.has_detected:
                return evidence.detected_at
    return None


def report(signal: str, change: Change, allowed: int, runs: int, quiet_rows: int) -> str:
    """One line of the table."""
    quiet = [detected_at(signal, QUIET, quiet_rows, 0, seed) for seed in range(runs)]
    false_alarms = sum(at is not None for at in quiet)
    found = [detected_at(signal, change, CHUNK, 2 * allowed, 1_000 + seed) for seed in range(runs)]
    delays = sorted(at - CHUNK if at is not None and at > CHUNK else np.inf for at in found)
    half, most = (delays[min(runs - 1, int(share * runs))] for share in (0.5, 0.9))
    words = " ".join(f"{delay:>7.0f}" if np.isfinite(delay) else "  never" for delay in (half, most))
    return f"{signal:<14} {change.name:<36} {false_alarms:>3} of {runs:<3} {words} {allowed:>8}"


def main(arguments: list[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.bench_signals", description=__doc__)
    parser.add_argument("--runs", type=int, default=40, help="seeds of each stream (default: 40)")
    parser.add_argument("--rows", type=int, default=50_000, help="rows of each quiet stream (default: 50000)")
    parser.add_argument("--tree", action="store_true", help="the whole tree, from streams to begun diagnoses")
    parser.add_argument("--look-every", type=int, default=500, help="with --tree: rows between walks (default: 500)")
    parser.add_argument(
        "--pin-labelled", type=int, default=WatchSettings.pin_labelled, help="with --tree: labels pinned"
    )
    chosen = parser.parse_args(arguments)
    if chosen.tree:
        settings = WatchSettings(pin_labelled=chosen.pin_labelled)
        print_tables(chosen.runs, chosen.rows, chosen.look_every, settings, _show)
        return 0
    heads = ("signal", "change", "false alarms", "half in", "9 in 10", "allowed")
    _show("{:<14} {:<34} {:>12} {:>7} {:>7} {:>8}\n".format(*heads))
    for signal, change, allowed in FOLLOWED:
        _show(report(signal, change, allowed, chosen.runs, chosen.rows) + "\n")
    return 0


def _show(words: str) -> None:
    sys.stdout.write(words)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
