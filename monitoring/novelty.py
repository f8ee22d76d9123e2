"""
How many utterances of something new have come since the ood precision fell, told from labels. Pure.

Ood decisions are right as often as the reference says. Where they begin to be right less often, something has begun to
come that is rejected and yet labelled with an intent, and what the precision lacks since then is of that kind.
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
    """Utterances that one version decided ood, as far as the windows hold them."""

    at: FloatArray
    """(n,) Unix time of each."""
    labelled_at: FloatArray
    """(m,) the same of those that have a label, in order."""
    is_wrong: BoolArray
    """(m,) whether that label names an intent."""
    embedded_share: float
    """Of all predictions of lately, those that carry an embedding."""


NO_OOD_DECISIONS = OodDecisions(np.empty(0), np.empty(0), np.empty(0, dtype=np.bool_), 0.0)


def ood_decisions(streams: Iterable[StreamWindows]) -> OodDecisions:
    """Those of several streams together, as of one version under all of its policies."""
    windows = [(stream.latest(), stream.latest(SAMPLED, 0)) for stream in streams]
    if not windows:
        return NO_OOD_DECISIONS
    rejected = np.concatenate([held.predictions["at"][held.predictions["is_ood"]] for held, _ in windows])
    labelled = np.concatenate([held.labelled[held.labelled["is_ood"]] for held, _ in windows])
    labelled = labelled[np.argsort(labelled["at"], kind="stable")]
    sampled = sum(len(latest.predictions) for _, latest in windows)
    embedded = sum(len(latest.embeddings) for _, latest in windows)
    return OodDecisions(rejected, labelled["at"], ~labelled["truth"][:, -1], embedded / max(sampled, 1))


def began_at(decisions: OodDecisions, precision: float) -> float | None:
    """
    Since when ood decisions are most likely right less often than ``precision``, Unix time; None when they are not.

    The stretch up to now under whose own share of wrong ones they are most likelier than under the known share:

        argmax over n of  n KL(share of the latest n, 1 - precision)

    >>> began_at(OodDecisions(np.arange(12.0), np.arange(12.0), np.arange(12) >= 8, 1.0), precision=0.7)
    8.0
    """
    is_wrong = decisions.is_wrong[::-1][:LOOKED_BACK]
    n, known = np.arange(1, len(is_wrong) + 1), 1.0 - precision
    share = np.cumsum(is_wrong) / n
    gain = np.where(share > known, n * (rel_entr(share, known) + rel_entr(1.0 - share, precision)), 0.0)
    if not gain.any():
        return None
    return float(decisions.labelled_at[::-1][int(gain.argmax())])


def novel_utterances(decisions: OodDecisions, since: float, precision: float) -> int:
    """
    Of the ood decisions since then, about how many carry an embedding and are of what is new.

    Right ones are a share ``precision`` of those that would have come anyway; the others are new:

        decided ood, embedded  *  (1 - precision since then / precision)

    >>> novel_utterances(OodDecisions(np.arange(12.0), np.arange(12.0), np.arange(12) >= 8, 0.5), 8.0, precision=0.7)
    2
    """
    is_wrong = decisions.is_wrong[decisions.labelled_at >= since]
    if len(is_wrong) == 0:
        return 0
    new_share = max(0.0, 1.0 - (1.0 - float(is_wrong.mean())) / precision)
    return int(decisions.embedded_share * float((decisions.at >= since).sum()) * new_share)
