"""
How many events a second go through the journey on one core: reading, decoding, joining, counting, windows, commits.

    python -m monitoring.bench_events [--events 100000] [--label-share 0.3] [--signals]

Writes a log into a temporary folder (ten intents, a tenth of the events with an embedding of 384), then follows it
from the beginning and prints the rates, the slowest chunk, and what it takes of memory and disk. With ``--signals`` the
streams are watched on the way (see ``stream_watch``), and an assessment of full windows is timed too.
"""

import argparse
import base64
import os
import resource
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from model_repo.contract.decision import softmax
from model_repo.contract.errors import FileMissing
from model_repo.contract.events import SQLITE_SCHEMA, LabelEvent, PredictionEvent
from model_repo.contract.labels import Taxonomy
from model_repo.contract.outputs import FloatArray
from model_repo.contract.policy import Policy
from model_repo.contract.reference import ReferenceProfile
from monitoring.decoding import decode
from monitoring.event_reader import Cursor, EventReader, LogRows
from monitoring.failure_tree import load
from monitoring.journey import Journey
from monitoring.state_file import StateFile
from monitoring.stream_watch import StreamWatches, WatchSettings

TAXONOMY = Taxonomy(tuple(f"intent_{index}" for index in range(10)), frozenset({"intent_3", "intent_7"}))
HIDDEN = 384
EMBEDDED_SHARE = 0.1
LABEL_DELAY_EVENTS = 200
EVENTS_A_SECOND = 1000
"""Of the times in the log; how fast it is read does not depend on it."""
SEED = 42
CHUNKS_A_LOOK = 3
"""With ``--signals``, chunks of the log between two assessments."""


def main() -> None:
    """Write, follow, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000, help="predictions in the log")
    parser.add_argument("--label-share", type=float, default=0.3, help="share of them that get a label")
    parser.add_argument("--signals", action="store_true", help="gather evidence on the way, and assess")
    args = parser.parse_args()
    # One core: nothing of the journey runs beside itself, and numpy must not either.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "events.sqlite"
        written = write_log(log, args.events, args.label_share)
        print(f"log: {written:,} events, {log.stat().st_size / 2**20:.0f} MiB")
        _print_rate("reading alone", written, _timed(lambda: _pass(log, lambda _: None)))
        _print_rate("reading and decoding", written, _timed(lambda: _pass(log, lambda rows: decode(rows, _taxonomy))))
        base = _peak_mib()
        chunks: list[float] = []
        _print_rate(
            "the whole journey", written, _timed(lambda: chunks.extend(_follow(log, Path(folder) / "state.sqlite")))
        )
        print(f"chunks: {len(chunks)}, the slowest {max(chunks) * 1e3:.0f} ms")
        print(f"state: {(Path(folder) / 'state.sqlite').stat().st_size / args.events:.0f} bytes a prediction on disk")
        if args.signals:
            _print_signals(log, Path(folder) / "watched.sqlite", written)
        print(f"peak memory: {_peak_mib():.0f} MiB, of it {_peak_mib() - base:.0f} MiB grown while following")


def write_log(path: Path, n: int, label_share: float) -> int:
    """A log of so many predictions, each label ``LABEL_DELAY_EVENTS`` behind its own; events written."""
    rng = np.random.default_rng(SEED)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript(SQLITE_SCHEMA)
    began = 1_700_000_000.0
    n_labels = 0
    for event in _events(n, began, rng):
        # One by one: what writing takes must not hide what following takes.
        insert = "(request_id, at, body) VALUES (?, ?, ?)"
        connection.execute(f"INSERT INTO predictions {insert}", (event.request_id, event.at, event.to_body()))
        if rng.random() < label_share:
            intent = event.top if rng.random() < 0.92 else TAXONOMY.intents[0]
            label = LabelEvent(event.request_id, (intent,), False, "agent")
            given_at = event.at + LABEL_DELAY_EVENTS / EVENTS_A_SECOND
            connection.execute(f"INSERT INTO labels {insert}", (event.request_id, given_at, label.to_body()))
            n_labels += 1
    connection.commit()
    connection.close()
    return n + n_labels


def _events(n: int, began: float, rng: np.random.Generator) -> Iterator[PredictionEvent]:
    logits = rng.normal(0.0, 2.0, (n, len(TAXONOMY.intents))).astype(np.float32)
    probabilities = softmax(logits)
    embedding = base64.b64encode(rng.normal(0.0, 1.0, HIDDEN).astype(np.float16).tobytes()).decode()
    for index in range(n):
        top = TAXONOMY.intents[int(logits[index].argmax())]
        yield PredictionEvent(
            request_id=f"{index:032x}",
            at=began + index / EVENTS_A_SECOND,
            version="1",
            policy="1.1",
            role="champion",
            session_id=f"web:{index // 5}",
            text="where is my order, and is there a code for box sets?",
            n_tokens=14,
            lang="en",
            logits=tuple(logits[index].tolist()),
            age_logit=-4.0,
            embedding=embedding if rng.random() < EMBEDDED_SHARE else None,
            top=top,
            intents=(top,),
            confidence=float(probabilities[index].max()),
            energy=-6.1,
            is_ood=False,
            age_sensitive=False,
            tokenize_ms=0.1,
            queue_ms=0.4,
            inference_ms=2.0,
            total_ms=2.6,
        )


def _taxonomy(_: str) -> Taxonomy:
    return TAXONOMY


def _pass(log: Path, use: Callable[[LogRows], object]) -> None:
    """Read the log to its end, and do this with each chunk."""
    reader, cursor, is_caught_up = EventReader(log), Cursor(), False
    while not is_caught_up:
        rows = reader.read(cursor)
        use(rows)
        cursor, is_caught_up = rows.cursor, rows.is_caught_up
    reader.close()


def _follow(log: Path, state_path: Path) -> list[float]:
    """Seconds of each chunk."""
    state = StateFile(state_path)
    journey = Journey(log, state, _taxonomy)
    took: list[float] = []
    is_caught_up = False
    while not is_caught_up:
        began = time.perf_counter()
        is_caught_up = journey.step(time.time()).is_caught_up
        took.append(time.perf_counter() - began)
    journey.close()
    state.close()
    return took


class _Sources:
    """Of the one version that is written; every mistake costs 1."""

    def policy(self, version: str, policy_name: str) -> Policy:
        """The first revision."""
        return Policy(
            version, int(policy_name.split(".")[1]), 1.0, (0.5,) * len(TAXONOMY.intents), 1.0, -4.0, 0.5, 0.95
        )

    def profile(self, version: str) -> ReferenceProfile:
        """The version has none: its reference is pinned."""
        raise FileMissing(f"version {version} has no profile")

    def costs(self, taxonomy: Taxonomy) -> FloatArray:
        """(K + 1, K + 1)."""
        return 1.0 - np.eye(len(taxonomy.intents) + 1)


def _print_signals(log: Path, state_path: Path, events: int) -> None:
    """The journey again, watched, and assessed after every few chunks; the two are timed apart."""
    state = StateFile(state_path)
    journey = Journey(log, state, _taxonomy)
    watches = StreamWatches(load(), _Sources(), WatchSettings(), state.get)
    followed: list[tuple[float, float]] = []
    looks: list[float] = []
    is_caught_up = False

    def step() -> None:
        nonlocal is_caught_up
        is_caught_up = journey.step(time.time(), watches.follow).is_caught_up
        watches.take_over()
        for key in journey.windows.stream_keys():
            with state.transaction():
                for name, body in watches.pin_due(journey.windows.stream(key)).items():
                    state.put(name, body)
            watches.take_over()

    def assess() -> None:
        for key in journey.windows.stream_keys():
            watches.assess(journey.windows.stream(key), time.time(), {})

    while not is_caught_up:
        followed.append(_timed(step))
        if len(followed) % CHUNKS_A_LOOK == 0:
            looks.append(_timed(assess)[1])
    clock, processor = (sum(column) for column in zip(*followed, strict=True))
    _print_rate("with evidence", events, (clock, processor))
    if looks:
        print(f"assessment: {np.median(looks) * 1e3:.0f} ms of processor time, {max(looks) * 1e3:.0f} ms at most")
    journey.close()
    state.close()


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def _print_rate(what: str, events: int, seconds: tuple[float, float]) -> None:
    """The two differ by what waits for the disk, and by whoever else wants the core."""
    clock, processor = (events / s for s in seconds)
    print(f"{what + ':':<22}{clock:>9,.0f} events/s, {processor:>9,.0f} a second of processor time", flush=True)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
