"""
What the journey carries of a prediction: one numpy record, the same in a chunk, in the state file and in a window.

A record is a fixed number of bytes (``prediction_dtype(10).itemsize`` is 121), so that memory follows from counts, and
a chunk of records is a column of each field: ``records["confidence"]``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_repo.contract.labels import Taxonomy
from monitoring.errors import BadState

Records = NDArray[np.void]
"""(n,) of ``prediction_dtype`` or ``labelled_dtype``; fields are reached by name."""

STAGES = ("tokenize_ms", "queue_ms", "inference_ms", "total_ms")
CHANNEL_BYTES = 12
"""Longest channel name that is told apart."""


@dataclass(frozen=True, order=True)
class StreamKey:
    """Whose history this is: what one version decided under one policy in one role. Nothing is shared between keys."""

    version: str
    policy: str
    role: str

    @property
    def name(self) -> str:
        """As in ``3/3.1/champion``."""
        return f"{self.version}/{self.policy}/{self.role}"


@dataclass(frozen=True)
class Embeddings:
    """The pooled embeddings of those predictions that carry one."""

    numbers: NDArray[np.int64]
    """(m,), the ``number`` of the prediction."""
    vectors: NDArray[np.float16]
    """(m, H); (0, 0) when there are none."""

    def __len__(self) -> int:
        return len(self.numbers)


NO_EMBEDDINGS = Embeddings(np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.float16))


def together(parts: Sequence[Embeddings]) -> Embeddings:
    """All of them, in order; they must have one length."""
    if len(parts) == 0:
        return NO_EMBEDDINGS
    return Embeddings(
        np.concatenate([part.numbers for part in parts]), np.concatenate([part.vectors for part in parts])
    )


@dataclass(frozen=True)
class StreamPredictions:
    """Predictions of one stream, in the order of the log."""

    key: StreamKey
    taxonomy: Taxonomy
    request_ids: tuple[str, ...]
    records: Records
    embeddings: Embeddings


def prediction_dtype(n_intents: int) -> np.dtype[np.void]:
    """
    A prediction of a model with so many intents.

    ``number`` grows by the order of the log and is never used twice; ``at`` is Unix time in seconds; ``lang`` is an
    index into ``labels.LANGUAGES``; ``channel`` is what stands before the first colon of the session id, ASCII, or
    empty; ``top`` is kept also when ood; ``is_labelled`` is kept up to date while the prediction is remembered.
    """
    return np.dtype(_prediction_fields(n_intents))


def labelled_dtype(n_intents: int) -> np.dtype[np.void]:
    """
    A prediction with what turned out to be right.

    ``truth`` says of each intent whether the utterance carries it, ood last; ``is_correct`` whether ``top`` is one of
    them (never for an utterance that is ood); ``label_at`` is when the label was given; ``source`` is an index into
    ``events.LABEL_SOURCES``.
    """
    label: list[Any] = [("label_at", "<f8"), ("source", "i1"), ("is_correct", "?"), ("truth", "?", (n_intents + 1,))]
    return np.dtype(_prediction_fields(n_intents) + label)


def raw_rows(records: Records) -> list[bytes]:
    """Each record as its bytes, as the state file holds it."""
    size, raw = records.dtype.itemsize, records.tobytes()
    return [raw[start : start + size] for start in range(0, len(raw), size)]


def from_raw_rows(rows: Sequence[bytes], dtype: np.dtype[np.void]) -> Records:
    """Inverse of ``raw_rows``, to be read only; raises BadState for rows of another dtype."""
    if not set(map(len, rows)) <= {dtype.itemsize}:
        raise BadState(f"a record must have {dtype.itemsize} bytes: was a version replaced by one of other intents?")
    return np.frombuffer(b"".join(rows), dtype=dtype)


@dataclass(frozen=True)
class Limits:
    """What is remembered; older goes first, and what goes is counted. The defaults take about 16 MB a stream in memory
    (10 intents, 384 hidden units) and 0.4 KB a prediction on disk."""

    predictions: int = 500_000
    """Predictions a stream that a label can still find. Higher bears later labels at a higher rate, on disk."""
    recent: int = 50_000
    """Of those, the latest ones that the windows hold in memory."""
    labelled: int = 50_000
    """Labelled predictions a stream, by arrival of the label; in memory too."""
    embeddings: int = 2048
    """Sampled embeddings a stream; in memory too."""
    labels: int = 200_000
    """Labels, of all streams, that a prediction can still find."""
    max_age_s: float = 7 * 86_400.0
    """A label that comes later than this counts as too late, and an unlabelled prediction as never labelled."""
    streams: int = 8
    """Versions, policies and roles at once; the one that has been silent for longest goes."""

    def __post_init__(self) -> None:
        for name in ("predictions", "recent", "labelled", "embeddings", "labels", "max_age_s", "streams"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.recent > self.predictions:
            raise ValueError(f"recent must be <= predictions ({self.predictions}), got {self.recent}")


def _prediction_fields(n_intents: int) -> list[Any]:
    return [
        ("number", "<i8"),
        ("at", "<f8"),
        ("confidence", "<f8"),
        ("energy", "<f8"),
        ("top", "<i2"),
        ("is_ood", "?"),
        ("is_high_risk", "?"),
        ("is_age_sensitive", "?"),
        ("is_labelled", "?"),
        ("lang", "i1"),
        ("channel", f"S{CHANNEL_BYTES}"),
        ("n_tokens", "<i4"),
        *((stage, "<f4") for stage in STAGES),
        ("logits", "<f4", (n_intents,)),
        ("accepted", "?", (n_intents,)),
    ]
