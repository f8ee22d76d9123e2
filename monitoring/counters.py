"""
What has been counted since the state began; pure, and additive: chunks sum to a process, processes sum to a fleet.

Calibration is counted with the first label that a prediction got; the windows hold the corrected one.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from model_repo.contract.calibration_error import BINS, BinCounts, bin_counts, equal_width_edges
from monitoring.decoding import Decoded
from monitoring.errors import BadState
from monitoring.event_reader import LogRows
from monitoring.label_join import Joined, StreamJoined
from monitoring.observations import StreamKey

DELAY_EDGES_S: NDArray[np.float64] = np.concatenate([[0.0], np.geomspace(0.1, 30 * 86_400.0, 96)])
"""Edges of the delay histogram: a quantile read from it is off by at most a fifth of itself, or by 0.1 s."""
RETIRED = StreamKey("retired", "retired", "champion")
"""Where the counts of forgotten streams go, so that sums stay."""


@dataclass(frozen=True)
class StreamCounters:
    """Of one stream. Each number only grows."""

    predictions: int = 0
    repeated: int = 0
    """Of them, with a request id that the stream had already."""
    ood: int = 0
    over_15_ms: int = 0
    labelled: int = 0
    labelled_ood: int = 0
    correct: int = 0
    """In-scope ones whose top intent is in the label."""
    corrected: int = 0
    early: int = 0
    too_late: int = 0
    foreign: int = 0
    odd_embeddings: int = 0
    closed_labelled: int = 0
    closed_unlabelled: int = 0
    evicted: int = 0
    calibration: BinCounts = field(default_factory=lambda: BinCounts(np.zeros(BINS), np.zeros(BINS), np.zeros(BINS)))
    """In-scope labelled ones, in bins of equal width."""
    delays: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(DELAY_EDGES_S), dtype=np.int64))
    """Labels by delay after the prediction; the last bin is open."""

    def __add__(self, other: "StreamCounters") -> "StreamCounters":
        return StreamCounters(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def join_ratio(self) -> float | None:
        """Of the predictions whose time for a label is up, the share that got one; None before the first."""
        closed = self.closed_labelled + self.closed_unlabelled
        return self.closed_labelled / closed if closed else None

    def delay_quantile_s(self, q: float) -> float | None:
        """
        Time from prediction to label, seconds; None before the first label, infinite beyond the last edge.

        >>> round(StreamCounters(delays=np.array([0, 100] + [0] * 95)).delay_quantile_s(0.5), 2)
        0.11
        """
        total = int(self.delays.sum())
        if total == 0:
            return None
        bin_ = int(np.searchsorted(np.cumsum(self.delays), q * total))
        if bin_ >= len(DELAY_EDGES_S) - 1:
            return float("inf")
        below = int(self.delays[:bin_].sum())
        share = (q * total - below) / int(self.delays[bin_])
        low, high = DELAY_EDGES_S[bin_], DELAY_EDGES_S[bin_ + 1]
        return float(low + share * (high - low))

    def to_json(self) -> dict[str, Any]:
        """As it is saved."""
        data: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        bins = self.calibration
        data["calibration"] = [bins.count.tolist(), bins.correct.tolist(), bins.confidence.tolist()]
        data["delays"] = self.delays.tolist()
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "StreamCounters":
        """Inverse of ``to_json``; raises TypeError or KeyError."""
        bins = BinCounts(*(np.array(column) for column in data["calibration"]))
        return StreamCounters(**{**data, "calibration": bins, "delays": np.array(data["delays"], dtype=np.int64)})


@dataclass(frozen=True)
class Counters:
    """Of the whole journey. Each number only grows."""

    predictions_read: int = 0
    missing_predictions: int = 0
    missing_labels_at_most: int = 0
    new_logs: int = 0
    malformed: int = 0
    future_schema: int = 0
    unknown_version: int = 0
    labels_read: int = 0
    labels_repeated: int = 0
    labels_corrected: int = 0
    labels_outranked: int = 0
    labels_orphaned: int = 0
    streams: Mapping[StreamKey, StreamCounters] = field(default_factory=dict)

    def __add__(self, other: "Counters") -> "Counters":
        """Both together, stream by stream."""
        sums: dict[str, Any] = {
            f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self) if f.name != "streams"
        }
        streams = dict(self.streams)
        for key, counts in other.streams.items():
            streams[key] = streams[key] + counts if key in streams else counts
        return Counters(**sums, streams=streams)

    def retire(self, keys: tuple[StreamKey, ...]) -> "Counters":
        """The same sums, without these streams of their own."""
        kept = {key: counts for key, counts in self.streams.items() if key not in keys}
        gone = [counts for key, counts in self.streams.items() if key in keys]
        if gone:
            kept[RETIRED] = sum(gone, start=kept.get(RETIRED, StreamCounters()))
        return Counters(**{**{f.name: getattr(self, f.name) for f in fields(self)}, "streams": kept})

    def to_json(self) -> bytes:
        """As it is saved."""
        data: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        data["streams"] = [
            [key.version, key.policy, key.role, counts.to_json()] for key, counts in self.streams.items()
        ]
        return orjson.dumps(data)

    @staticmethod
    def from_json(body: bytes) -> "Counters":
        """Inverse of ``to_json``; raises BadState."""
        try:
            data = orjson.loads(body)
            streams = {StreamKey(*row[:3]): StreamCounters.from_json(row[3]) for row in data.pop("streams")}
            return Counters(**data, streams=streams)
        except (ValueError, TypeError, KeyError) as wrong:
            raise BadState(f"the saved counters cannot be read: {wrong!r}") from wrong


def count(rows: LogRows, decoded: Decoded, joined: Joined) -> Counters:
    """What a chunk adds."""
    return Counters(
        predictions_read=len(rows.predictions),
        missing_predictions=rows.missing_predictions,
        missing_labels_at_most=rows.missing_labels_at_most,
        new_logs=int(rows.is_new_log),
        malformed=decoded.malformed,
        future_schema=decoded.future_schema,
        unknown_version=decoded.unknown_version,
        labels_read=len(rows.labels),
        labels_repeated=joined.label_counts["repeated"],
        labels_corrected=joined.label_counts["corrected"],
        labels_outranked=joined.label_counts["outranked"],
        labels_orphaned=joined.label_counts["orphaned"],
        streams={stream.key: _count_stream(stream) for stream in joined.streams},
    )


def _count_stream(stream: StreamJoined) -> StreamCounters:
    predictions, labelled, counts = stream.predictions, stream.labelled, _known(stream.counts)
    is_ood = labelled["truth"][:, -1]
    in_scope = labelled[~is_ood]
    delays = np.maximum(labelled["label_at"] - labelled["at"], 0.0)
    return StreamCounters(
        predictions=len(predictions),
        ood=int(predictions["is_ood"].sum()),
        over_15_ms=int((predictions["total_ms"] > 15.0).sum()),
        labelled=len(labelled),
        labelled_ood=int(is_ood.sum()),
        correct=int(in_scope["is_correct"].sum()),
        corrected=len(stream.corrected),
        calibration=bin_counts(in_scope["confidence"], in_scope["is_correct"], equal_width_edges())
        if len(in_scope)
        else StreamCounters().calibration,
        delays=np.bincount(np.searchsorted(DELAY_EDGES_S, delays, "right") - 1, minlength=len(DELAY_EDGES_S)),
        **counts,
    )


def _known(counts: Counter[str]) -> dict[str, int]:
    names = {f.name for f in fields(StreamCounters)}
    unknown = set(counts) - names
    if unknown:
        raise KeyError(f"no counter for {', '.join(sorted(unknown))}")
    return dict(counts)
