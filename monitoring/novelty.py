"""
How many utterances of something new have come since the ood precision or recall fell, told from labels. Pure.

Ood decisions are right as often as the reference says. Where they begin to be right less often, something has begun to
come that is rejected and yet labelled with an intent, and what the precision lacks since then is of that kind. What the
recall lacks is of something that is labelled ood and yet taken for one of ours.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import rel_entr

from model_repo.contract.outputs import BoolArray, FloatArray
from monitoring.windows import StreamWindows

LOOKED_BACK = 500
"""Labelled ood decisions, the latest ones, among which the beginning is looked for. Higher finds one that is longer
ago; over many thousands the error of the reference itself would pass for one."""
SAMPLED = 2048
"""Predictions, the latest ones, that tell what share carries an embedding; of so many all embeddings are held."""


@dataclass(frozen=True)
class OodDecisions:
    """
    Utterances that one version decided ood, as far as the windows hold them; or, where the recall is asked about, those
    that should have been, by their label.
    """

    at: FloatArray
    """(n,) Unix time of each."""
    labelled_at: FloatArray
    """(m,) the same of those that have a label, in order."""
    is_wrong: BoolArray
    """(m,) whether that label names an intent; or whether they were decided in scope."""
    embedded_share: float
    """Of all predictions of lately, those that carry an embedding."""


NO_OOD_DECISIONS = OodDecisions(np.empty(0), np.empty(0), np.empty(0, dtype=np.bool_), 0.0)


def ood_decisions(streams: Iterable[StreamWindows], signal: str) -> OodDecisions:
    """
    Those of several streams together, as of one version under all of its policies: of the ``ood_precision`` all that
    were decided ood, of the ``ood_recall`` all that are labelled so.
    """
    windows = [(stream.latest(), stream.latest(SAMPLED, 0)) for stream in streams]
    if not windows:
        return NO_OOD_DECISIONS
    labelled = np.concatenate([held.labelled for held, _ in windows])
    labelled = labelled[np.argsort(labelled["at"], kind="stable")]
    decided, true = labelled["is_ood"], labelled["truth"][:, -1]
    sampled = sum(len(latest.predictions) for _, latest in windows)
    embedded = sum(len(latest.embeddings) for _, latest in windows)
    embedded_share = embedded / max(sampled, 1)
    if signal == "ood_recall":
        return OodDecisions(labelled["at"][true], labelled["at"][true], ~decided[true], embedded_share)
    rejected = np.concatenate([held.predictions["at"][held.predictions["is_ood"]] for held, _ in windows])
    return OodDecisions(rejected, labelled["at"][decided], ~true[decided], embedded_share)


def began_at(decisions: OodDecisions, precision: float) -> float | None:
    """
    Since when decisions are most likely right less often than ``precision``, Unix time; None when they are not.

    The stretch up to now under whose own share of wrong ones they are most likelier than under the known share:

        argmax over n of  n KL(share of the latest n, 1 - precision)

    >>> began_at(OodDecisions(np.arange(12.0), np.arange(12.0), np.arange(12) >= 8, 1.0), precision=0.7)
    8.0
    """
    is_wrong = decisions.is_wrong[::-1][:LOOKED_BACK]
    # Against a reference that knew no wrong one, the latest wrong one alone would be the beginning.
    n, known = np.arange(1, len(is_wrong) + 1), max(1.0 - precision, 1.0 / LOOKED_BACK)
    share = np.cumsum(is_wrong) / n
    gain = np.where(share > known, n * (rel_entr(share, known) + rel_entr(1.0 - share, 1.0 - known)), 0.0)
    if not gain.any():
        return None
    return float(decisions.labelled_at[::-1][int(gain.argmax())])


def novel_utterances(decisions: OodDecisions, since: float, precision: float) -> int:
    """
    Of the decisions since then, about how many carry an embedding and are of what is new.

    Right ones are a share ``precision`` of those that would have come anyway; the others are new:

        decided ood, embedded  *  (1 - precision since then / precision)

    Of the recall, what is new and was rejected passes for what would have come anyway: it is told too low then.

    >>> novel_utterances(OodDecisions(np.arange(12.0), np.arange(12.0), np.arange(12) >= 8, 0.5), 8.0, precision=0.7)
    2
    """
    is_wrong = decisions.is_wrong[decisions.labelled_at >= since]
    if len(is_wrong) == 0:
        return 0
    new_share = max(0.0, 1.0 - (1.0 - float(is_wrong.mean())) / precision)
    return int(decisions.embedded_share * float((decisions.at >= since).sum()) * new_share)
