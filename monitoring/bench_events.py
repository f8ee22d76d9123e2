"""
How many events a second go through the journey on one core: reading, decoding, joining, counting, windows, commits.

    python -m monitoring.bench_events [--events 100000] [--label-share 0.3]

Writes a log into a temporary folder (ten intents, a tenth of the events with an embedding of 384), then follows it
from the beginning and prints the rate, the time a stage and the memory.
"""

import argparse
import base64
import os
import resource
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model_repo.contract.decision import softmax
from model_repo.contract.events import SQLITE_SCHEMA, LabelEvent, PredictionEvent
from model_repo.contract.labels import Taxonomy
from monitoring.decoding import decode
from monitoring.event_reader import Cursor, EventReader
from monitoring.journey import Journey
from monitoring.state_file import StateFile

TAXONOMY = Taxonomy(tuple(f"intent_{index}" for index in range(10)), frozenset({"intent_3", "intent_7"}))
HIDDEN = 384
EMBEDDED_SHARE = 0.1
LABEL_DELAY_EVENTS = 200
EVENTS_A_SECOND = 1000
"""Of the times in the log; how fast it is read does not depend on it."""
SEED = 42


def main() -> None:
    """Write, follow, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000, help="predictions in the log")
    parser.add_argument("--label-share", type=float, default=0.3, help="share of them that get a label")
    args = parser.parse_args()
    # One core: nothing of the journey runs beside itself, and numpy must not either.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "events.sqlite"
        written = write_log(log, args.events, args.label_share)
        print(f"log: {written:,} events, {log.stat().st_size / 2**20:.0f} MiB")
        print(f"reading alone:         {_rate(written, _read(log)):>9,.0f} events/s")
        print(f"reading and decoding:  {_rate(written, _decode(log)):>9,.0f} events/s")
        base = _peak_mib()
        took, chunks, slowest = _follow(log, Path(folder) / "state.sqlite")
        print(f"the whole journey:     {_rate(written, took):>9,.0f} events/s")
        print(f"chunks: {chunks}, the slowest {slowest * 1e3:.0f} ms")
        print(f"state: {(Path(folder) / 'state.sqlite').stat().st_size / args.events:.0f} bytes a prediction on disk")
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


def _read(log: Path) -> float:
    reader, cursor, began = EventReader(log), Cursor(), time.perf_counter()
    while True:
        rows = reader.read(cursor)
        cursor = rows.cursor
        if rows.is_caught_up:
            reader.close()
            return time.perf_counter() - began


def _decode(log: Path) -> float:
    reader, cursor, began = EventReader(log), Cursor(), time.perf_counter()
    while True:
        rows = reader.read(cursor)
        decode(rows, lambda _: TAXONOMY)
        cursor = rows.cursor
        if rows.is_caught_up:
            reader.close()
            return time.perf_counter() - began


def _follow(log: Path, state_path: Path) -> tuple[float, int, float]:
    """Seconds, chunks, and seconds of the slowest chunk."""
    state = StateFile(state_path)
    journey = Journey(log, state, lambda _: TAXONOMY)
    began, chunks, slowest = time.perf_counter(), 0, 0.0
    is_caught_up = False
    while not is_caught_up:
        at = time.perf_counter()
        is_caught_up = journey.step(time.time()).is_caught_up
        chunks, slowest = chunks + 1, max(slowest, time.perf_counter() - at)
    took = time.perf_counter() - began
    journey.close()
    state.close()
    return took, chunks, slowest


def _rate(events: int, seconds: float) -> float:
    return events / seconds


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
