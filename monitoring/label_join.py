"""
Puts predictions and their labels together, in whichever order they come; all it knows is in the state file.

Both sides are remembered for a while, so a label finds the predictions of its request that are there (a shadow answers
the same request as the champion), and a prediction finds a label that came first. Of several labels of one request the
later wins, unless its source is weaker. A request id that a stream has already is a repeat: it counts as traffic, and
takes no label.

Called inside the transaction that moves the cursor. Keeps nothing in memory: a rollback undoes all of it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from model_repo.contract.labels import Taxonomy
from monitoring.decoding import Decoded, TaxonomyOf
from monitoring.errors import BadState
from monitoring.join_tables import JoinTables, StreamRow
from monitoring.label_choice import ChosenLabel, choose_labels, with_labels
from monitoring.observations import (
    Embeddings,
    Limits,
    Records,
    StreamKey,
    StreamPredictions,
    from_raw_rows,
    labelled_dtype,
    prediction_dtype,
    raw_rows,
    together,
)
from monitoring.state_file import StateFile


@dataclass(frozen=True)
class StreamJoined:
    """What a chunk of the log brought to one stream."""

    key: StreamKey
    taxonomy: Taxonomy
    predictions: Records
    embeddings: Embeddings
    labelled: Records
    """Predictions that now have a label, in the order of the labels."""
    corrected: Records
    """Predictions whose label is another one now."""
    gone_up_to: int
    """Predictions up to this number are forgotten; 0 when the chunk made none be."""
    counts: Counter[str]
    """``repeated`` predictions, ``odd_embeddings`` (of another length than the stream's first), labels that were
    ``early``, ``too_late`` or ``foreign`` (an intent that the version does not know); predictions let go as
    ``closed_labelled``, ``closed_unlabelled`` (their time was up) or ``evicted`` (unlabelled, to make room)."""


@dataclass(frozen=True)
class Joined:
    """What a chunk of the log brought."""

    streams: tuple[StreamJoined, ...]
    dropped: tuple[StreamKey, ...]
    """Streams that were forgotten to make room."""
    label_counts: Counter[str]
    """``read``, ``repeated``, ``corrected``, ``outranked``; ``orphaned`` ones were let go before a prediction came."""


@dataclass(frozen=True)
class Remembered:
    """What of a stream survives a restart."""

    key: StreamKey
    taxonomy: Taxonomy
    predictions: Records
    labelled: Records
    embeddings: Embeddings


class _Gathering:
    """One stream while a chunk is worked through."""

    def __init__(self, row: StreamRow, taxonomy: Taxonomy | None) -> None:
        self.row = row
        self.taxonomy = taxonomy
        self.predictions: list[Records] = []
        self.embeddings: list[Embeddings] = []
        self.labelled: list[Records] = []
        self.corrected: list[Records] = []
        self.counts: Counter[str] = Counter()
        self.gone_up_to = 0


class LabelJoin:
    """See the module."""

    def __init__(self, state: StateFile, taxonomy_of: TaxonomyOf, limits: Limits) -> None:
        self._tables = JoinTables(state.connection)
        self._taxonomy_of = taxonomy_of
        self._limits = limits

    def add(self, chunk: Decoded, latest_at: float, now: float) -> Joined:
        """
        Take in a chunk; ``latest_at`` is the latest time in the log, ``now`` the sidecar's clock (Unix time).

        What is old is judged by the earlier of the two: neither clock running ahead throws everything away.
        """
        streams = {row.key: _Gathering(row, self._taxonomy_of(row.key.version)) for row in self._tables.streams()}
        for part in chunk.predictions:
            if part.key not in streams:
                streams[part.key] = _Gathering(self._tables.add_stream(part.key), part.taxonomy)
            streams[part.key].taxonomy = part.taxonomy
            self._add_predictions(streams[part.key], part)
        label_counts = self._add_labels(streams.values(), chunk)
        horizon = min(latest_at, now) - self._limits.max_age_s
        for stream in streams.values():
            self._let_go(stream, horizon)
        label_counts["orphaned"] += self._tables.let_labels_go(self._limits.labels, horizon)
        dropped = self._drop_excess(streams)
        self._tables.save_streams([stream.row for key, stream in streams.items() if key not in dropped])
        return Joined(tuple(filter(None, map(_joined, streams.values()))), dropped, label_counts)

    def remembered(self) -> list[Remembered]:
        """What the windows held, for a restart. A stream whose version is no longer known stays away."""
        known = [(row, self._taxonomy_of(row.key.version)) for row in self._tables.streams()]
        return [self._remember(row, taxonomy) for row, taxonomy in known if taxonomy is not None]

    def _remember(self, row: StreamRow, taxonomy: Taxonomy) -> Remembered:
        n_intents = len(taxonomy.intents)
        raw, flags = self._tables.latest_predictions(row, self._limits.recent)
        predictions = from_raw_rows(raw, prediction_dtype(n_intents)).copy()
        predictions["is_labelled"] = flags
        labelled = from_raw_rows(self._tables.labelled(row), labelled_dtype(n_intents))
        return Remembered(row.key, taxonomy, predictions, labelled, self._tables.embeddings(row))

    def _add_predictions(self, stream: _Gathering, part: StreamPredictions) -> None:
        rows, records = stream.row, part.records
        numbers, ids = records["number"].tolist(), list(part.request_ids)
        repeated = self._tables.insert_predictions(rows, numbers, ids, records["at"].tolist(), raw_rows(records))
        stream.counts["repeated"] += len(repeated)
        stream.predictions.append(records)
        self._add_embeddings(stream, part.embeddings)
        waiting = self._tables.labels_of(ids)
        if waiting:
            found = [
                (index, waiting[request_id])
                for index, (number, request_id) in enumerate(zip(numbers, ids, strict=True))
                if request_id in waiting and number not in repeated
            ]
            stream.counts["early"] += len(found)
            flags = np.zeros(len(found), dtype=np.bool_)
            self._label(stream, records[[index for index, _ in found]], flags, [label for _, label in found])

    def _add_embeddings(self, stream: _Gathering, embeddings: Embeddings) -> None:
        if len(embeddings) == 0:
            return
        hidden = embeddings.vectors.shape[1]
        stream.row.hidden = stream.row.hidden or hidden
        if hidden != stream.row.hidden:
            stream.counts["odd_embeddings"] += len(embeddings)
            return
        stream.embeddings.append(embeddings)
        self._tables.insert_embeddings(stream.row, embeddings, self._limits.embeddings)

    def _add_labels(self, streams: Iterable[_Gathering], chunk: Decoded) -> Counter[str]:
        ids = list({read.label.request_id for read in chunk.labels})
        changed, counts = choose_labels(chunk.labels, self._tables.labels_of(ids))
        self._tables.save_labels(changed)
        by_id = {label.request_id: label for label in changed}
        by_stream = {stream.row.id: stream for stream in streams}
        found = self._tables.predictions_of(list(by_id))
        for stream_id, group in groupby(found, key=lambda row: row.stream):
            stream, rows = by_stream[stream_id], list(group)
            # In the order of the labels: what looks at one outcome after the other sees them as they came.
            position = {request_id: index for index, request_id in enumerate(by_id)}
            rows.sort(key=lambda row: position[row.request_id])
            if stream.taxonomy is None:
                stream.counts["foreign"] += len(rows)
                continue
            records = from_raw_rows([row.record for row in rows], prediction_dtype(len(stream.taxonomy.intents)))
            flags = np.array([row.is_labelled for row in rows], dtype=np.bool_)
            self._label(stream, records, flags, [by_id[row.request_id] for row in rows])
        return counts

    def _label(
        self,
        stream: _Gathering,
        records: Records,
        was_labelled: "np.ndarray[Any, np.dtype[np.bool_]]",
        labels: Sequence[ChosenLabel],
    ) -> None:
        """Give each record its label; those that had one already are corrected."""
        if stream.taxonomy is None:
            raise BadState(f"stream {stream.row.key.name} has new predictions and no taxonomy")
        in_time = np.array([label.at for label in labels]) - records["at"] <= self._limits.max_age_s
        known = set(stream.taxonomy.intents)
        fits = np.array([known.issuperset(label.intents) for label in labels], dtype=np.bool_)
        stream.counts["too_late"] += int((~in_time).sum())
        stream.counts["foreign"] += int((in_time & ~fits).sum())
        chosen = np.flatnonzero(in_time & fits)
        if len(chosen) == 0:
            return
        labelled = with_labels(records[chosen], [labels[row] for row in chosen.tolist()], stream.taxonomy)
        is_new = ~was_labelled[chosen]
        self._tables.mark_joined([labels[row].request_id for row in chosen.tolist()])
        if is_new.any():
            stream.labelled.append(labelled[is_new])
            new = labelled[is_new]
            self._tables.insert_labelled(stream.row, new["number"].tolist(), raw_rows(new), self._limits.labelled)
        if not is_new.all():
            old = labelled[~is_new]
            stream.corrected.append(old)
            self._tables.correct_labelled(stream.row, old["number"].tolist(), raw_rows(old))

    def _let_go(self, stream: _Gathering, horizon: float) -> None:
        fates, stream.gone_up_to = self._tables.let_predictions_go(stream.row, self._limits.predictions, horizon)
        stream.counts.update(fates)

    def _drop_excess(self, streams: dict[StreamKey, _Gathering]) -> tuple[StreamKey, ...]:
        by_age = sorted(streams, key=lambda key: streams[key].row.latest)
        dropped = tuple(by_age[: max(0, len(streams) - self._limits.streams)])
        for key in dropped:
            streams[key].counts.update(self._tables.drop_stream(streams[key].row))
        return dropped


def _joined(stream: _Gathering) -> StreamJoined | None:
    """None when nothing happened, or when nothing can be said for want of a taxonomy."""
    if stream.taxonomy is None or not (stream.predictions or stream.labelled or stream.corrected or +stream.counts):
        return None
    n_intents = len(stream.taxonomy.intents)
    labelled = [np.empty(0, dtype=labelled_dtype(n_intents))]
    return StreamJoined(
        key=stream.row.key,
        taxonomy=stream.taxonomy,
        predictions=np.concatenate([np.empty(0, dtype=prediction_dtype(n_intents)), *stream.predictions]),
        embeddings=together(stream.embeddings),
        labelled=np.concatenate(labelled + stream.labelled),
        corrected=np.concatenate(labelled + stream.corrected),
        gone_up_to=stream.gone_up_to,
        counts=+stream.counts,
    )
