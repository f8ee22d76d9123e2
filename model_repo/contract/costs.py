"""What each kind of mistake costs the business."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from model_repo.contract.errors import BadCosts, CannotMeasure
from model_repo.contract.labels import OOD, Taxonomy
from model_repo.contract.outputs import BoolArray, FloatArray, IntArray


def cost_matrix(table: Mapping[str, Any], taxonomy: Taxonomy) -> FloatArray:
    """
    (K + 1, K + 1) cost of deciding the column when the row is true, ood last; the diagonal is zero.

    ``table`` is as a TOML file gives it: ``default`` for every mistake, ``[missed]`` for a true label decided as
    anything else, ``[decided]`` factors for a wrongly decided label, and ``[mistaken.<true>]`` for single cells,
    which win. Raises BadCosts for a label the taxonomy lacks, so a table never applies to other intents by accident.

    >>> taxonomy = Taxonomy(("refund", "hello"))
    >>> cost_matrix({"default": 1, "missed": {"refund": 4}, "mistaken": {"hello": {"ood": 0.5}}}, taxonomy).tolist()
    [[0.0, 4.0, 4.0], [1.0, 0.0, 0.5], [1.0, 1.0, 0.0]]
    """
    labels = (*taxonomy.intents, OOD)
    unknown = set(table) - {"default", "missed", "decided", "mistaken"}
    if unknown:
        raise BadCosts(f"unknown keys in the cost table: {', '.join(sorted(unknown))}")
    costs = np.full((len(labels), len(labels)), _cost("default", table.get("default", 1.0)))
    for true, cost in table.get("missed", {}).items():
        costs[_position(true, labels)] = _cost(f"missed.{true}", cost)
    for decided, factor in table.get("decided", {}).items():
        costs[:, _position(decided, labels)] *= _cost(f"decided.{decided}", factor)
    for true, cells in table.get("mistaken", {}).items():
        for decided, cost in cells.items():
            costs[_position(true, labels), _position(decided, labels)] = _cost(f"mistaken.{true}.{decided}", cost)
    np.fill_diagonal(costs, 0.0)
    return costs


def utterance_costs(targets: BoolArray, is_accepted: BoolArray, decided: IntArray, costs: FloatArray) -> FloatArray:
    """
    (n,) what each decision cost: the dearest true label that was not accepted, at its price for the decided label.

    ``targets`` and ``is_accepted`` (n, K); ``decided`` (n,) is the top intent, or K for ood. An utterance without
    targets is ood: it costs nothing when decided as such. Extra accepted intents beside the true ones cost nothing.
    The order of an utterance's intents plays no part, so labels that arrive as a set are enough.

    >>> costs = np.array([[0.0, 4.0, 4.0], [1.0, 0.0, 0.5], [1.0, 2.0, 0.0]])
    >>> targets = np.array([[True, False], [True, True], [False, False]])
    >>> accepted = np.array([[False, True], [False, True], [False, True]])
    >>> utterance_costs(targets, accepted, np.array([1, 1, 1]), costs).tolist()
    [4.0, 4.0, 2.0]
    """
    if targets.shape != is_accepted.shape or len(decided) != len(targets):
        raise CannotMeasure(
            f"rows differ: targets {targets.shape}, is_accepted {is_accepted.shape}, decided {decided.shape}"
        )
    if costs.shape != (targets.shape[1] + 1,) * 2:
        raise CannotMeasure(f"costs must be {(targets.shape[1] + 1,) * 2}, ood last, got {costs.shape}")
    missed = np.where(targets & ~is_accepted, costs[:-1, decided].T, 0.0).max(axis=-1)
    return np.asarray(np.where(targets.any(axis=-1), missed, costs[-1, decided]))


def _position(label: str, labels: tuple[str, ...]) -> int:
    if label not in labels:
        raise BadCosts(f"unknown label {label!r} in the cost table; known: {', '.join(labels)}")
    return labels.index(label)


def _cost(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise BadCosts(f"{field} must be a number >= 0, got {value!r}")
    return float(value)
