"""Which of several labels of one request holds, and what a label says of a prediction; pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model_repo.contract.events import LABEL_SOURCES
from model_repo.contract.labels import Taxonomy
from model_repo.contract.metrics import top_in_set
from monitoring.decoding import ReadLabel
from monitoring.observations import Records, labelled_dtype

STRENGTH = {"rule": 0, "customer": 1, "agent": 2, "review": 3}
"""A label gives way to a later one of the same source or a stronger one."""


@dataclass(frozen=True)
class ChosenLabel:
    """The label of a request that holds for now."""

    request_id: str
    intents: tuple[str, ...]
    """Sorted; empty when the utterance is ood."""
    at: float
    source: str


def choose_labels(
    labels: Iterable[ReadLabel], known: Mapping[str, ChosenLabel]
) -> tuple[list[ChosenLabel], Counter[str]]:
    """
    The labels that are new or other than those known, and how many were read, repeated, corrected and outranked.

    What is said again, by whomever, is a repeat: the first time and source stay.
    """
    counts: Counter[str] = Counter()
    changed: dict[str, ChosenLabel] = {}
    for read in labels:
        counts["read"] += 1
        label = ChosenLabel(read.label.request_id, tuple(sorted(set(read.label.intents))), read.at, read.label.source)
        before = changed.get(label.request_id) or known.get(label.request_id)
        if before is None:
            changed[label.request_id] = label
        elif before.intents == label.intents:
            counts["repeated"] += 1
        elif STRENGTH[label.source] < STRENGTH[before.source]:
            counts["outranked"] += 1
        else:
            counts["corrected"] += 1
            changed[label.request_id] = label
    return list(changed.values()), counts


def with_labels(predictions: Records, labels: Sequence[ChosenLabel], taxonomy: Taxonomy) -> Records:
    """Labelled records: one prediction and its label a row. Raises KeyError for an intent that the taxonomy lacks."""
    index = {intent: position for position, intent in enumerate(taxonomy.intents)}
    labelled = np.zeros(len(predictions), dtype=labelled_dtype(len(index)))
    for name in predictions.dtype.names or ():
        labelled[name] = predictions[name]
    labelled["is_labelled"] = True
    labelled["label_at"] = [label.at for label in labels]
    labelled["source"] = [LABEL_SOURCES.index(label.source) for label in labels]
    for row, label in enumerate(labels):
        labelled["truth"][row, [index[intent] for intent in label.intents] or [len(index)]] = True
    labelled["is_correct"] = top_in_set(labelled["top"], labelled["truth"][:, :-1])
    return labelled
