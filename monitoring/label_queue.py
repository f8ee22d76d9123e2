"""Which predictions people are to label, and why each; pure functions of records."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_repo.contract.events import LABEL_SOURCES
from model_repo.contract.labels import LANGUAGES, OOD, Taxonomy
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray
from monitoring.observations import Records
from monitoring.rows import decided_labels, segment_memberships

RANDOM, LEAST_CERTAIN, MOST_NOVEL, DISAGREES = "random", "least_certain", "most_novel", "label_disagrees"


@dataclass(frozen=True)
class Picked:
    """Rows of one array of records, the one to label first in front."""

    rows: IntArray
    why: str


def margins(records: Records) -> FloatArray:
    """
    (n,) log-odds between the two most probable intents; 0 when they are as likely. The temperature only scales them.
    """
    ordered = np.sort(records["logits"].astype(np.float64), axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def predictions_of_segment(predictions: Records, taxonomy: Taxonomy, segment: str) -> BoolArray:
    """
    (n,) which predictions are in ``dimension=value``. Without a label an intent is where it is one of the two most
    probable: who was wrongly sent elsewhere is looked for too. Nobody is in a segment that does not occur.
    """
    dimension, _, value = segment.partition("=")
    if dimension != "intent":
        return _members(predictions, taxonomy, segment)
    first_two = np.argsort(-predictions["logits"], axis=1, kind="stable")[:, :2]
    position = taxonomy.intents.index(value) if value in taxonomy.intents else -1
    return np.asarray((first_two == position).any(axis=1))


def labelled_of_segment(labelled: Records, taxonomy: Taxonomy, segment: str) -> BoolArray:
    """(n,) which labelled predictions are in ``dimension=value``, as the accuracy of segments counts them."""
    members = segment_memberships(labelled, taxonomy).get(segment) if len(labelled) else None
    return np.zeros(len(labelled), dtype=np.bool_) if members is None else members


def least_certain(predictions: Records) -> Picked:
    """Without a label yet, the smallest margin first."""
    unlabelled = np.flatnonzero(~predictions["is_labelled"])
    return Picked(unlabelled[np.argsort(margins(predictions)[unlabelled], kind="stable")], LEAST_CERTAIN)


def disagreeing(labelled: Records) -> Picked:
    """
    Whose label is not what was decided, the surest decision first: the model is wrong there, or the label is. A label
    of a person who looked twice (``review``) is not asked for again.
    """
    decided_ood, is_ood = labelled["is_ood"], labelled["truth"][:, -1]
    differs = np.where(is_ood, ~decided_ood, ~labelled["is_correct"] | decided_ood)
    differs &= labelled["source"] != LABEL_SOURCES.index("review")
    rows = np.flatnonzero(differs)
    return Picked(rows[np.argsort(-labelled["confidence"][rows], kind="stable")], DISAGREES)


def stratified_sample(predictions: Records, third: int, rng: np.random.Generator) -> list[Picked]:
    """
    Of what has no label yet: ``third`` rows at random; then the others from the least certain on; then from the most
    novel (highest energy) on. Of the latter two a ``third`` each is to be taken, of what is not taken yet.

    The random rows come first and from all of it, each row as likely as any other, so that shares of the whole can be
    estimated from them. The other two take strata (decided label and language) in turn, the foremost of each: a
    frequent intent must not crowd out the rest.
    """
    unlabelled = np.flatnonzero(~predictions["is_labelled"])
    drawn = rng.choice(unlabelled, size=min(third, len(unlabelled)), replace=False)
    others = unlabelled[~np.isin(unlabelled, drawn)]
    strata = [f"{label}/{lang}" for label, lang in zip(decided_labels(predictions), predictions["lang"], strict=True)]
    by_margin = others[np.argsort(margins(predictions)[others], kind="stable")]
    by_energy = others[np.argsort(-predictions["energy"][others], kind="stable")]
    return [
        Picked(drawn, RANDOM),
        Picked(_in_turn(by_margin, strata), LEAST_CERTAIN),
        Picked(_in_turn(by_energy, strata), MOST_NOVEL),
    ]


def stratum_of(record: Records, taxonomy: Taxonomy) -> str:
    """As in ``refund/en``: the decided label and the language."""
    decided = OOD if record["is_ood"] else taxonomy.intents[int(record["top"])]
    return f"{decided}/{LANGUAGES[int(record['lang'])]}"


def _in_turn(rows: IntArray, strata: Sequence[str]) -> IntArray:
    """The first of each stratum, then the second of each, ..., each round in the order of the rows."""
    rounds: Counter[str] = Counter()
    places = []
    for place, row in enumerate(rows.tolist()):
        places.append((rounds[strata[row]], place, row))
        rounds[strata[row]] += 1
    return np.array([row for _, _, row in sorted(places)], dtype=np.int64)


def _members(predictions: Records, taxonomy: Taxonomy, segment: str) -> BoolArray:
    """Of a dimension that needs no label."""
    dimension, _, value = segment.partition("=")
    if dimension == "decided":
        names = (*taxonomy.intents, OOD)
        return np.asarray(decided_labels(predictions) == (names.index(value) if value in names else -1))
    if dimension == "lang":
        position = LANGUAGES.index(value) if value in LANGUAGES else -1
        return np.asarray(predictions["lang"] == position)
    if dimension == "high_risk":
        return np.asarray(predictions["is_high_risk"] == (value == "yes"))
    if dimension == "channel":
        return np.asarray(predictions["channel"] == value.encode("ascii", "replace"))
    return np.zeros(len(predictions), dtype=np.bool_)
