"""
``retrain``: labels of production as training text, and the hook that trains on them.

Leaves ``<work folder>/retrain/<key>/production_labels.jsonl``: a labelled utterance a line, as the pipeline reads it
(``python -m model_repo run --production-labels``), then asks the hook with the parameters ``production_labels`` (that
file), ``out`` (a folder beside it) and ``segment`` (empty for a full retrain).
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model_repo.contract.labels import LANGUAGES, Taxonomy
from monitoring.decoding import decode
from monitoring.errors import HookFailed, LogUnavailable
from monitoring.event_reader import MAX_BODY_CHARS, Cursor, LogRows
from monitoring.event_texts import LOCK_WAIT_S, EventTexts, LoggedUtterance, folded
from monitoring.label_choice import STRENGTH, ChosenLabel, choose_labels
from monitoring.remedies import ActionRequest, ActionResult, Hook
from monitoring.windows import Window
from monitoring.work_files import write_json, write_json_lines

MOST_LABELS = 100_000
"""Latest labels that are read. More would outweigh the original set, and train for longer."""


@dataclass(frozen=True)
class ProductionLabels:
    """Labelled utterances of production, in the record format of the taxonomy, and what was left out."""

    rows: tuple[Mapping[str, Any], ...]
    left_out: Mapping[str, int]
    """By reason: ``no_text``, ``unknown_intent``, ``same_text`` and ``contradicted`` (same text, other label)."""


class Retrain:
    """Writes the labels of the log, then asks the hook."""

    def __init__(self, log: Path, work_folder: Path, hook: Hook, minimum_labels: int = 1) -> None:
        """With fewer labels than ``minimum_labels`` the hook is not asked: it would learn nothing new."""
        self._log = log
        self._folder = work_folder
        self._hook = hook
        self._minimum_labels = minimum_labels

    def run(self, request: ActionRequest, window: Window) -> ActionResult:
        """See ``Action``. Asked again under the same key, the hook is given the same file."""
        folder = self._folder / "retrain" / request.key
        file = folder / "production_labels.jsonl"
        try:
            if not file.exists():
                labels = production_labels(self._log, window.taxonomy)
                write_json(folder / "left_out.json", labels.left_out)
                write_json_lines(file, labels.rows)
            rows = len(file.read_text(encoding="utf-8").splitlines())
            left_out = json.loads((folder / "left_out.json").read_text(encoding="utf-8"))
        except (LogUnavailable, OSError) as wrong:
            raise HookFailed(f"the labels of production cannot be written: {wrong}") from wrong
        detail = {"production_labels": str(file), "rows": rows, "left_out": left_out}
        if rows < self._minimum_labels:
            words = f"{rows} labelled utterances with their texts, {self._minimum_labels} are needed to retrain."
            return ActionResult("failed", words, detail)
        parameters = {"production_labels": str(file), "out": str(folder / "out"), "segment": request.segment or ""}
        result = self._hook.send(request, parameters)
        words = f"Retrain on {rows} labels of production. {result.words}"
        return replace(result, words=words, detail={**result.detail, **detail})


def production_labels(log: Path, taxonomy: Taxonomy, most: int = MOST_LABELS) -> ProductionLabels:
    """
    The label that holds of each request in the log whose text is there. Raises LogUnavailable.

    Whatever version answered it: the text and the label are the customer's.
    """
    labels = read_labels(log, most)
    utterances = EventTexts(log).of_requests([label.request_id for label in labels])
    return as_training_text(labels, utterances, taxonomy)


def read_labels(log: Path, most: int) -> list[ChosenLabel]:
    """
    Of the latest ``most`` labels in the log, the one that holds of each request; what is no label is passed over.
    Raises LogUnavailable.
    """
    try:
        with closing(
            sqlite3.connect(f"{log.absolute().as_uri()}?mode=ro", uri=True, timeout=LOCK_WAIT_S, isolation_level=None)
        ) as connection:
            connection.text_factory = bytes
            rows = connection.execute(
                f"SELECT seq, at, CASE WHEN length(body) <= {MAX_BODY_CHARS} THEN body END FROM labels "  # noqa: S608 - a number of ours
                "ORDER BY seq DESC LIMIT ?",
                (most,),
            ).fetchall()
    except (sqlite3.Error, OSError) as error:
        raise LogUnavailable(f"{log} cannot be read: {error}") from error
    decoded = decode(LogRows((), tuple(reversed(rows)), Cursor()), lambda _: None)
    return choose_labels(decoded.labels, {})[0]


def as_training_text(
    labels: Sequence[ChosenLabel], utterances: Mapping[str, LoggedUtterance], taxonomy: Taxonomy
) -> ProductionLabels:
    """
    One row a text. Of several labels of one text the strongest source holds (``label_choice.STRENGTH``), of equals the
    latest.

    Labels do not say which intent is the main one: the decided one where it is among them, else the first in the order
    of the taxonomy. Nor do they say whether a request is age-sensitive: that is null, not known.
    """
    left_out: Counter[str] = Counter(no_text=0, unknown_intent=0, same_text=0, contradicted=0)
    by_text: dict[str, Mapping[str, Any]] = {}
    holding: dict[str, ChosenLabel] = {}
    for label in sorted(labels, key=lambda one: (-STRENGTH[one.source], -one.at, one.request_id)):
        utterance = utterances.get(label.request_id)
        if utterance is None or utterance.text is None or utterance.lang not in LANGUAGES:
            left_out["no_text"] += 1
        elif not set(label.intents) <= set(taxonomy.intents):
            left_out["unknown_intent"] += 1
        elif (text := folded(utterance.text)) in by_text:
            left_out["same_text" if holding[text].intents == label.intents else "contradicted"] += 1
        else:
            by_text[text], holding[text] = _row(label, utterance, utterance.text, taxonomy), label
    rows = sorted(by_text.values(), key=lambda row: (row["at"], row["request_id"]))
    return ProductionLabels(tuple(rows), dict(left_out))


def _row(label: ChosenLabel, utterance: LoggedUtterance, text: str, taxonomy: Taxonomy) -> Mapping[str, Any]:
    in_order = sorted(label.intents, key=lambda intent: (intent != utterance.top, taxonomy.index(intent)))
    return {
        "text": text,
        "intents": in_order,
        "ood": not in_order,
        "age_sensitive": None,
        "lang": utterance.lang,
        "source": "production",
        "origin": "live",
        "request_id": label.request_id,
        "label_source": label.source,
        "at": label.at,
    }
