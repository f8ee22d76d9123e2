"""The labels of many utterances as arrays, for the stages that fit and judge."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_repo.contract.errors import CannotMeasure
from model_repo.contract.labels import LabelledUtterance, Taxonomy
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray, ModelOutputs


@dataclass(frozen=True)
class Truth:
    """The labels of n utterances as arrays, in the order of the taxonomy."""

    targets: BoolArray
    """(n, K): which intents each utterance carries; a row without any is ood."""
    main: IntArray
    """(n,): the main intent, or K for ood."""
    age: FloatArray
    """(n,): 1 age-sensitive, 0 not, NaN not known."""

    @property
    def is_ood(self) -> BoolArray:
        """(n,)."""
        return np.asarray(~self.targets.any(axis=-1))


def truth_of(utterances: Sequence[LabelledUtterance], taxonomy: Taxonomy) -> Truth:
    """The labels as arrays; raises BadTaxonomy for an intent the taxonomy lacks."""
    targets = np.zeros((len(utterances), len(taxonomy.intents)), dtype=np.bool_)
    main = np.full(len(utterances), len(taxonomy.intents))
    for row, utterance in enumerate(utterances):
        carried = [taxonomy.index(intent) for intent in utterance.intents]
        targets[row, carried] = True
        main[row] = carried[0] if carried else main[row]
    age = np.array([np.nan if u.age_sensitive is None else float(u.age_sensitive) for u in utterances])
    return Truth(targets, main, age)


def check_rows(outputs: ModelOutputs, utterances: Sequence[LabelledUtterance]) -> None:
    """Raise CannotMeasure unless there is one finite row of outputs for each utterance."""
    if len(outputs) != len(utterances) or len(outputs) == 0:
        raise CannotMeasure(f"outputs have {len(outputs)} rows for {len(utterances)} utterances; need one each")
    if not outputs.is_finite():
        raise CannotMeasure("outputs hold a logit that is NaN or infinite")
