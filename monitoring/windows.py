"""
What the signals look at: the latest predictions, labels and embeddings of each stream. In memory, pure: ``now`` is an
argument. A version under another policy or in another role is another stream, and begins with nothing.

Memory: ``Limits`` times the bytes of a record; see there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_repo.contract.labels import Taxonomy
from monitoring.label_join import Joined, Remembered, StreamJoined
from monitoring.observations import (
    NO_EMBEDDINGS,
    Embeddings,
    Limits,
    Records,
    StreamKey,
    labelled_dtype,
    prediction_dtype,
)


@dataclass(frozen=True)
class Window:
    """A stretch of one stream: copies, which later events do not change."""

    key: StreamKey
    taxonomy: Taxonomy
    predictions: Records
    """``observations.prediction_dtype``, in the order of the log."""
    labelled: Records
    """``observations.labelled_dtype``, in the order in which the labels came."""
    embeddings: NDArray[np.float16]
    """(m, H): the sampled ones among ``predictions``; (0, 0) when none is."""


class Ring:
    """The latest n rows of one array; pushing costs by what is pushed."""

    def __init__(self, capacity: int, dtype: Any, row: tuple[int, ...] = ()) -> None:
        # Zeroed pages take no memory before they are written to.
        self._rows: NDArray[Any] = np.zeros((capacity, *row), dtype=dtype)
        self._pushed = 0
        self._held = 0

    def __len__(self) -> int:
        return self._held

    def push(self, rows: NDArray[Any]) -> None:
        """Append; the oldest rows make room."""
        capacity = len(self._rows)
        kept = rows[-capacity:]
        start = (self._pushed + len(rows) - len(kept)) % capacity
        head = min(len(kept), capacity - start)
        self._rows[start : start + head] = kept[:head]
        self._rows[: len(kept) - head] = kept[head:]
        self._pushed += len(rows)
        self._held = min(self._held + len(rows), capacity)

    def forget(self, oldest: int) -> None:
        """Let so many of the oldest rows go."""
        self._held -= oldest

    def latest(self, most: int | None = None) -> NDArray[Any]:
        """A copy of the latest rows, oldest first."""
        n = len(self) if most is None else max(0, min(most, len(self)))
        return self._rows[self._positions(n)]

    def oldest(self, most: int) -> NDArray[Any]:
        """A copy of the oldest rows that are held, oldest first."""
        return self._rows[self._positions(len(self))[:most]]

    def column(self, field: str) -> NDArray[Any]:
        """A copy of one field of every row, oldest first."""
        return np.asarray(self._rows[field][self._positions(len(self))])

    def assign(self, ranks: NDArray[np.int64], rows: Any, field: str | None = None) -> None:
        """Overwrite rows, or one field of them; rank 0 is the oldest."""
        positions = self._positions(len(self))[ranks]
        if field is None:
            self._rows[positions] = rows
        else:
            self._rows[field][positions] = rows

    def _positions(self, n: int) -> NDArray[np.int64]:
        return np.arange(self._pushed - n, self._pushed) % len(self._rows)


class StreamWindows:
    """The windows of one stream."""

    def __init__(self, key: StreamKey, taxonomy: Taxonomy, limits: Limits) -> None:
        n_intents = len(taxonomy.intents)
        self.key = key
        self.taxonomy = taxonomy
        self._limits = limits
        self._predictions = Ring(limits.recent, prediction_dtype(n_intents))
        self._labelled = Ring(limits.labelled, labelled_dtype(n_intents))
        self._embedded = Ring(limits.embeddings, np.int64)
        self._vectors: Ring | None = None
        """Made with the first embedding, which tells their length."""

    def push(self, joined: StreamJoined | Remembered) -> None:
        """Take in what a chunk brought, or what was remembered over a restart."""
        self._predictions.push(joined.predictions)
        self._push_embeddings(joined.embeddings)
        self._labelled.push(joined.labelled)
        if isinstance(joined, StreamJoined):
            self._flag(joined.labelled["number"])
            self._correct(joined.corrected)
            self._predictions.forget(int((self._predictions.column("number") <= joined.gone_up_to).sum()))

    def latest(self, predictions: int | None = None, labelled: int | None = None) -> Window:
        """A window by count; all that is held when no number is given."""
        return self._window(self._predictions.latest(predictions), self._labelled.latest(labelled))

    def beginning(self, predictions: int, labelled: int) -> Window:
        """The oldest that are held, by count."""
        return self._window(self._predictions.oldest(predictions), self._labelled.oldest(labelled))

    def since(self, now: float, seconds: float) -> Window:
        """A window by time: predictions answered, and labels given, in the last so many seconds."""
        predictions = np.flatnonzero(self._predictions.column("at") > now - seconds)
        labelled = np.flatnonzero(self._labelled.column("label_at") > now - seconds)
        return self._window(self._predictions.latest()[predictions], self._labelled.latest()[labelled])

    @property
    def held(self) -> tuple[int, int]:
        """How many predictions and labelled ones there are."""
        return len(self._predictions), len(self._labelled)

    def embeddings_after(self, number: int) -> Embeddings:
        """The sampled ones whose prediction has a higher number, whether or not it is still in a window."""
        if self._vectors is None:
            return NO_EMBEDDINGS
        numbers = self._embedded.latest()
        is_later = numbers > number
        return Embeddings(numbers[is_later], self._vectors.latest()[is_later])

    def label_share(self, now: float, min_age_s: float, max_age_s: float) -> tuple[int, int]:
        """
        The join rate of lately: of the predictions of this age, how many there are and how many have a label.

        With ``min_age_s`` well above the usual label delay, a fall means that labels stopped coming.
        """
        age = now - self._predictions.column("at")
        chosen = (age >= min_age_s) & (age < max_age_s)
        return int(chosen.sum()), int(self._predictions.column("is_labelled")[chosen].sum())

    def _window(self, predictions: Records, labelled: Records) -> Window:
        if self._vectors is None:
            vectors = np.empty((0, 0), dtype=np.float16)
        else:
            # Kept whatever their age: the sample is thin, and prediction numbers say which are in the window.
            vectors = self._vectors.latest()[np.isin(self._embedded.latest(), predictions["number"])]
        return Window(self.key, self.taxonomy, predictions, labelled, vectors)

    def _push_embeddings(self, embeddings: Embeddings) -> None:
        if len(embeddings) == 0:
            return
        if self._vectors is None:
            self._vectors = Ring(self._limits.embeddings, np.float16, embeddings.vectors.shape[1:])
        self._embedded.push(embeddings.numbers)
        self._vectors.push(embeddings.vectors)

    def _flag(self, numbers: NDArray[np.int64]) -> None:
        """Those predictions are labelled now, if they are still here."""
        held = self._predictions.column("number")
        ranks = np.searchsorted(held, numbers)
        here = ranks < len(held)
        here[here] = held[ranks[here]] == numbers[here]
        self._predictions.assign(ranks[here], True, "is_labelled")

    def _correct(self, corrected: Records) -> None:
        """Replace those that are still here. In order: of two corrections of one prediction the later stays."""
        if len(corrected) == 0:
            return
        held = self._labelled.column("number")
        for record in corrected:
            self._labelled.assign(np.flatnonzero(held == record["number"]), record)


class WindowSet:
    """The windows of every stream that is remembered."""

    def __init__(self, limits: Limits, remembered: Iterable[Remembered] = ()) -> None:
        self._limits = limits
        self._streams: dict[StreamKey, StreamWindows] = {}
        for stream in remembered:
            self._of(stream.key, stream.taxonomy).push(stream)

    def push(self, joined: Joined) -> None:
        """Take in a chunk; what the join has forgotten is forgotten here too."""
        for stream in joined.streams:
            self._of(stream.key, stream.taxonomy).push(stream)
        for key in joined.dropped:
            self._streams.pop(key, None)

    def stream_keys(self) -> list[StreamKey]:
        """Every stream, sorted."""
        return sorted(self._streams)

    def stream(self, key: StreamKey) -> StreamWindows:
        """One stream; raises KeyError."""
        return self._streams[key]

    def _of(self, key: StreamKey, taxonomy: Taxonomy) -> StreamWindows:
        if key not in self._streams:
            self._streams[key] = StreamWindows(key, taxonomy, self._limits)
        return self._streams[key]
