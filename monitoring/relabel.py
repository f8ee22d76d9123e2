"""
Queues for people who label: JSON lines, one prediction a line, the one to look at first in front.

``relabel_segment`` leaves ``<work folder>/relabel/<key>.jsonl`` and asks for a retrain on the segment;
``sample_for_labels`` leaves ``<work folder>/labelling/<key>.jsonl``. What people find out goes to ``POST /feedback`` of
the service under the request id, and comes back through the log like every label.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from model_repo.contract.labels import LANGUAGES, OOD, Taxonomy
from monitoring.errors import HookFailed, LogUnavailable
from monitoring.event_texts import EventTexts, LoggedUtterance, folded
from monitoring.label_queue import (
    RANDOM,
    Picked,
    disagreeing,
    labelled_of_segment,
    least_certain,
    predictions_of_segment,
    stratified_sample,
    stratum_of,
)
from monitoring.observations import Records, StreamKey
from monitoring.remedies import Action, ActionRequest, ActionResult
from monitoring.windows import Window
from monitoring.work_files import write_json_lines

MOST_ROWS = 500
"""Rows of a re-labelling queue: about half a day of one person."""
SAMPLE_ROWS = 300
"""Rows of a labelling sample: a third of them at random tells a share of 5% to about 4 points either way."""
LOOKED_AT = 10_000
"""Latest predictions, and labelled ones, that a queue is drawn from: what is older says less of what is wrong."""
_LOOKED_UP = 250

Row = Mapping[str, Any]


@dataclass
class Seen:
    """Requests and texts that stand in a queue already."""

    requests: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)

    def is_new(self, utterance: LoggedUtterance) -> bool:
        """Whether it comes for the first time; one text for another that differs in case, width and spaces alone."""
        text = folded(utterance.text or "")
        is_new = utterance.request_id not in self.requests and (not text or text not in self.texts)
        self.requests.add(utterance.request_id)
        self.texts.add(text)
        return is_new


class RelabelSegment:
    """The queue of one segment, and a retrain request that names it."""

    def __init__(self, texts: EventTexts, work_folder: Path, retrain: Action, most: int = MOST_ROWS) -> None:
        self._texts = texts
        self._folder = work_folder
        self._retrain = retrain
        self._most = most

    def run(self, request: ActionRequest, window: Window) -> ActionResult:
        """See ``Action``. A queue that was written under this key stays as it is."""
        if request.segment is None:
            return ActionResult("failed", "The request names no segment to re-label.")
        file = self._folder / "relabel" / f"{request.key}.jsonl"
        rows = _kept_or_written(file, lambda: self._queue(request.segment or "", window))
        retrained = self._retrain.run(request, window)
        words = f"{_words(rows)} of {request.segment} to be labelled again. {retrained.words}"
        return replace(retrained, words=words, detail={**retrained.detail, **_detail(file, rows)})

    def _queue(self, segment: str, window: Window) -> list[Row]:
        """Half of it labels that disagree, half of it what is least certain; what one lacks the other fills."""
        labelled, predictions = window.labelled[-LOOKED_AT:], window.predictions[-LOOKED_AT:]
        labelled = labelled[labelled_of_segment(labelled, window.taxonomy, segment)]
        predictions = predictions[predictions_of_segment(predictions, window.taxonomy, segment)]
        maker, seen = QueueMaker(self._texts, window.key, window.taxonomy), Seen()
        doubted = maker.rows(labelled, disagreeing(labelled), self._most, seen)
        unsure = maker.rows(predictions, least_certain(predictions), self._most, seen)
        half = max(self._most // 2, self._most - len(unsure))
        return [*doubted[:half], *unsure][: self._most]


class SampleForLabels:
    """A stratified sample of what has no label."""

    def __init__(self, texts: EventTexts, work_folder: Path, size: int = SAMPLE_ROWS) -> None:
        self._texts = texts
        self._folder = work_folder
        self._size = size

    def run(self, request: ActionRequest, window: Window) -> ActionResult:
        """See ``Action``. A sample that was drawn under this key stays as it is."""
        file = self._folder / "labelling" / f"{request.key}.jsonl"
        rows = _kept_or_written(file, lambda: self._sample(request.key, window))
        if not rows:
            return ActionResult("nothing_to_do", "Every recent prediction is labelled, or no longer in the log.")
        return ActionResult("done", f"{_words(rows)} to be labelled.", _detail(file, rows))

    def _sample(self, key: str, window: Window) -> list[Row]:
        predictions = window.predictions[-LOOKED_AT:]
        rng = np.random.default_rng(int.from_bytes(sha256(key.encode()).digest()[:8], "big"))
        maker, seen, rows = QueueMaker(self._texts, window.key, window.taxonomy), Seen(), list[Row]()
        for picked in stratified_sample(predictions, self._size // 3, rng):
            rows += maker.rows(predictions, picked, self._size // 3, seen)
        population = int((~predictions["is_labelled"]).sum())
        return [{**row, "drawn_from": population if row["why"] == RANDOM else None} for row in rows]


@dataclass(frozen=True)
class QueueMaker:
    """Records of one stream as rows of a queue."""

    texts: EventTexts
    key: StreamKey
    taxonomy: Taxonomy

    def rows(self, records: Records, picked: Picked, most: int, seen: Seen) -> list[Row]:
        """
        At most so many of the picked ones, in order, that are in the log still and new; random ones are taken though
        their text was seen, or what is asked often would count as what is asked once. Raises HookFailed while the log
        cannot be read.
        """
        rows: list[Row] = []
        for start in range(0, len(picked.rows), _LOOKED_UP):
            some = records[picked.rows[start : start + _LOOKED_UP]]
            try:
                found = self.texts.of_records(self.key, some)
            except LogUnavailable as wrong:
                raise HookFailed(str(wrong)) from wrong
            for record, utterance in zip(some, found, strict=True):
                if utterance is None or not (seen.is_new(utterance) or picked.why == RANDOM):
                    continue
                row = {"request_id": utterance.request_id, "text": utterance.text, **self._said(record)}
                rows.append({**row, "why": picked.why})
                if len(rows) == most:
                    return rows
        return rows

    def _said(self, record: Records) -> dict[str, Any]:
        intents = self.taxonomy.intents
        label = None
        if "truth" in (record.dtype.names or ()):
            label = [(*intents, OOD)[int(position)] for position in np.flatnonzero(record["truth"])]
        return {
            "prediction": OOD if record["is_ood"] else intents[int(record["top"])],
            "probability": round(float(record["confidence"]), 6),
            "intents": [intents[int(position)] for position in np.flatnonzero(record["accepted"])],
            "label": label,
            "lang": LANGUAGES[int(record["lang"])],
            "channel": bytes(record["channel"]).decode("ascii", "replace"),
            "at": float(record["at"]),
            "stratum": stratum_of(record, self.taxonomy),
        }


def _kept_or_written(file: Path, make: Callable[[], list[Row]]) -> list[Row]:
    """What stands in the file; when there is none, what is made, written to it."""
    try:
        if file.exists():
            return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        rows = make()
        write_json_lines(file, rows)
    except OSError as error:
        raise HookFailed(f"the queue cannot be kept in {file}: {error}") from error
    return rows


def _words(rows: Sequence[Row]) -> str:
    if rows and all(row["text"] is None for row in rows):
        return f"{len(rows)} predictions, as request ids alone since texts are not stored,"
    return f"{len(rows)} predictions"


def _detail(file: Path, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "file": str(file),
        "rows": len(rows),
        "rows_with_text": sum(row["text"] is not None for row in rows),
        "rows_by_reason": dict(Counter(str(row["why"]) for row in rows)),
    }
