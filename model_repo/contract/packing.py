"""Utterances laid end to end in one row: the input of the packed graph."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Int32Array = NDArray[np.int32]


@dataclass(frozen=True)
class PackedRow:
    """The three inputs of the packed graph, each (T,) int32, in the order of its arguments."""

    token_ids: Int32Array
    positions: Int32Array
    """From 0 within each utterance."""
    segments: Int32Array
    """Slot of each token; padding carries the number of slots, which no output row pools."""

    @property
    def arrays(self) -> tuple[Int32Array, Int32Array, Int32Array]:
        """In the order of the graph's inputs."""
        return self.token_ids, self.positions, self.segments


def pack(utterances: Sequence[Sequence[int]], slots: int, size: int) -> PackedRow:
    """
    Lay at most ``slots`` utterances end to end, padded to ``size`` tokens.

    >>> row = pack([[5, 6], [7]], slots=4, size=4)
    >>> row.token_ids.tolist(), row.positions.tolist(), row.segments.tolist()
    ([5, 6, 7, 0], [0, 1, 0, 0], [0, 0, 1, 4])
    """
    lengths = [len(utterance) for utterance in utterances]
    used = sum(lengths)
    inputs = np.zeros((3, size), dtype=np.int32)
    token_ids, positions, segments = inputs
    token_ids[:used] = np.fromiter(chain.from_iterable(utterances), dtype=np.int32, count=used)
    segments[used:] = slots
    start = 0
    for slot, length in enumerate(lengths):
        positions[start : start + length] = _COUNT[:length] if length <= _COUNT.size else np.arange(length)
        segments[start : start + length] = slot
        start += length
    return PackedRow(token_ids, positions, segments)


def rows(utterances: Sequence[Sequence[int]], slots: int, max_tokens: int) -> Iterator[Sequence[Sequence[int]]]:
    """
    Cut a batch, in order, into groups that fit one row: at most ``slots`` utterances and ``max_tokens`` tokens.

    An utterance longer than ``max_tokens`` is a group of its own.

    >>> list(rows([[1, 1], [2, 2], [3]], slots=8, max_tokens=3))
    [[[1, 1]], [[2, 2], [3]]]
    """
    group: list[Sequence[int]] = []
    tokens = 0
    for utterance in utterances:
        if group and (len(group) == slots or tokens + len(utterance) > max_tokens):
            yield group
            group, tokens = [], 0
        group.append(utterance)
        tokens += len(utterance)
    if group:
        yield group


_COUNT = np.arange(512, dtype=np.int32)
