"""
The replayed streams as files, for programs that have an environment of their own: see ``bench_rivals``.

    corpus.npz         embeddings (n, H) of each message, and the names of the labels
    NAME-SEED.npz      one stream: columns of one row an event; NAME is ``quiet`` or that of a change
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_repo.contract.decision import softmax
from monitoring.replay_changes import (
    CHANGES,
    PINNED,
    QUIET_BEFORE,
    Replay,
    Stretch,
    changed_of,
    pinned,
    stream_of,
    stretches,
)
from monitoring.replay_streams import main_labels
from monitoring.rows import decided_labels

FOLLOWED = 2
"""Times the allowed rows that a changed stream goes on for."""


def export(
    replay: Replay,
    folder: Path,
    names: Sequence[str] | None,
    runs: int,
    rows: int,
    seeds: tuple[int, int],
    say: Callable[[str], None],
    quiet_before: int = QUIET_BEFORE,
) -> None:
    """Write so many streams of each kind; ``seeds`` are the first of the quiet and of the changed ones."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = replay.corpus
    np.savez(folder / "corpus.npz", embeddings=corpus.outputs.embeddings, labels=np.array(main_labels(corpus)))
    temperature = replay.policy.temperature
    for seed in range(seeds[0], seeds[0] + runs):
        stream = stream_of(replay, seed)
        parts = [pinned(stream, replay), *stretches(stream, replay.quiet, rows, "quiet")]
        _save(folder / f"quiet-{seed}.npz", columns_of(parts, temperature), PINNED + rows, 0)
    say(f"quiet: {runs} streams")
    for change in CHANGES:
        if names is not None and change.name not in names:
            continue
        for seed in range(seeds[1], seeds[1] + runs):
            stream, changed = stream_of(replay, seed), changed_of(change, replay, seed)
            parts = [
                pinned(stream, replay),
                *stretches(stream, replay.quiet, quiet_before, "quiet"),
                *stretches(stream, changed.phase, FOLLOWED * change.allowed, "changed"),
            ]
            # Events carry the probabilities that were answered, which is under the policy in force.
            columns = columns_of(parts, temperature, changed.policy.temperature)
            _save(folder / f"{change.name}-{seed}.npz", columns, PINNED + quiet_before, change.allowed)
        say(f"{change.name}: {runs} streams")


def columns_of(
    parts: Iterable[Stretch], temperature: float, temperature_after: float | None = None
) -> dict[str, NDArray[Any]]:
    """
    One row an event: ``message`` (position in the corpus), ``probabilities``, ``confidence``, ``energy``, ``top``,
    ``decided`` (ood last), ``label`` (ood last, the top intent where it is among several; -1 without a label),
    ``n_tokens``, ``lang``, ``total_ms``.
    """
    kept = []
    for one in parts:
        rows = one.joined.predictions
        in_force = temperature if one.part != "changed" or temperature_after is None else temperature_after
        label = np.full(len(rows), -1)
        if len(one.joined.labelled):
            truth = one.joined.labelled["truth"]
            label = np.where(one.joined.labelled["is_correct"], rows["top"], truth.argmax(axis=1))
        kept.append(
            {
                "message": one.messages.astype(np.int32),
                "probabilities": softmax(rows["logits"], in_force).astype(np.float32),
                "confidence": rows["confidence"],
                "energy": rows["energy"],
                "top": rows["top"],
                "decided": decided_labels(rows).astype(np.int16),
                "label": label.astype(np.int16),
                "n_tokens": rows["n_tokens"],
                "lang": rows["lang"],
                "total_ms": rows["total_ms"],
            }
        )
    return {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}


def _save(file: Path, columns: dict[str, NDArray[Any]], changed_at: int, allowed: int) -> None:
    numbers = {"pinned": PINNED, "changed_at": changed_at, "allowed": allowed}
    arrays: dict[str, Any] = {**columns, **{name: np.array(value) for name, value in numbers.items()}}
    np.savez(file, **arrays)
