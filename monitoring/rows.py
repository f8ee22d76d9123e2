"""
Records of a window -> the arrays that signals are made of; pure.

A record keeps the logits, so probabilities at any temperature can be had: at the one of the policy in force for what
was answered, at that of the reference for what a policy revision must leave alone.
"""

import numpy as np

from model_repo.contract.costs import utterance_costs
from model_repo.contract.decision import softmax
from model_repo.contract.labels import LANGUAGES, OOD, Taxonomy
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray
from monitoring.latency import STAGES
from monitoring.observations import Records
from monitoring.segments import memberships_of
from monitoring.signals import LabelledRows
from monitoring.unlabelled import UnlabelledRows


def labelled_rows(labelled: Records, temperature: float, costs: FloatArray) -> LabelledRows:
    """
    Labelled predictions (n) as decisions with what they cost; ``costs`` (K + 1, K + 1) as ``costs.cost_matrix`` gives.

    Decisions stay those that were answered, whatever the ``temperature``.
    """
    top, targets = labelled["top"].astype(np.int64), labelled["truth"][:, :-1]
    decided = decided_labels(labelled)
    return LabelledRows(
        probabilities=softmax(labelled["logits"], temperature),
        top=top,
        is_ood=labelled["is_ood"],
        is_accepted=labelled["accepted"],
        targets=targets,
        costs=utterance_costs(targets, labelled["accepted"], decided, costs),
    )


def unlabelled_rows(predictions: Records, vectors: FloatArray) -> UnlabelledRows:
    """Predictions (n) as decisions; ``vectors`` (m, H) are the embeddings to look at now."""
    return UnlabelledRows(
        confidence=predictions["confidence"],
        energy=predictions["energy"],
        length=predictions["n_tokens"].astype(np.int64),
        language=predictions["lang"].astype(np.int64),
        decided=decided_labels(predictions),
        embeddings=vectors,
    )


def decided_labels(predictions: Records) -> IntArray:
    """(n,) main decided label as a position in the taxonomy, ood last."""
    n_intents = predictions.dtype["logits"].shape[0]
    return np.where(predictions["is_ood"], n_intents, predictions["top"]).astype(np.int64)


def confidence_at(records: Records, temperature: float) -> FloatArray:
    """(n,) probability of the top intent at a temperature, which need not be the one in force."""
    if len(records) == 0:
        return np.empty(0)
    return np.asarray(softmax(records["logits"], temperature).max(axis=1))


def is_in_scope(labelled: Records) -> BoolArray:
    """(n,), by the label."""
    return np.asarray(~labelled["truth"][:, -1])


def stage_times(predictions: Records) -> tuple[FloatArray, FloatArray]:
    """(n, 3) milliseconds of each stage, in the order of ``latency.STAGES``, and (n,) of all."""
    columns = [predictions[f"{stage}_ms"] for stage in STAGES]
    return np.column_stack(columns), np.asarray(predictions["total_ms"])


def segment_memberships(labelled: Records, taxonomy: Taxonomy) -> dict[str, BoolArray]:
    """
    Which of n labelled predictions are in each segment that occurs, named ``dimension=value``.

    ``intent`` goes by the label (an utterance with two is in both), ``decided`` by the decision: errors gather in the
    one when an intent is no longer recognised, in the other when labels turn away from it. Then ``lang``,
    ``high_risk`` (yes or no, as decided) and ``channel``.
    """
    truth, names = labelled["truth"], (*taxonomy.intents, OOD)
    intents = {
        f"intent={name}": truth[:, index] for index, name in enumerate(taxonomy.intents) if truth[:, index].any()
    }
    return {
        **intents,
        **memberships_of("decided", np.asarray(names)[decided_labels(labelled)].tolist()),
        **memberships_of("lang", np.asarray(LANGUAGES)[labelled["lang"]].tolist()),
        **memberships_of("high_risk", np.where(labelled["is_high_risk"], "yes", "no").tolist()),
        **memberships_of("channel", np.char.decode(labelled["channel"], "ascii").tolist()),
    }
