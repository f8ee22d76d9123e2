"""
A diagnosis that has begun or ended: hysteresis, cooldown, and one open alert a diagnosis. Pure: ``now`` is an argument.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from monitoring.errors import BadState
from monitoring.failure_tree import Outcome, Walk
from monitoring.remedies import SignalRecord


@dataclass(frozen=True)
class AlertRules:
    """When an alert begins and ends."""

    begin_after: int = 2
    """Walks in which it must fire, with none that clears between. Higher bears a passing spike, and acts later."""
    end_after: int = 3
    """Walks in which its branch must be clear, with none that fires between."""
    cooldown_s: float = 3600.0
    """After its end, the same diagnosis does not begin again before this. Higher spares the hooks."""

    def __post_init__(self) -> None:
        if self.begin_after < 1 or self.end_after < 1 or not self.cooldown_s >= 0.0:
            raise ValueError(f"begin_after and end_after must be >= 1 and cooldown_s >= 0, got {self}")


@dataclass(frozen=True)
class Alert:
    """An open diagnosis, as it was when it began."""

    walk: Walk
    began_at: float
    """Unix time, seconds."""


@dataclass(frozen=True)
class Transition:
    """What hooks hear of; once for each beginning and each end."""

    kind: Literal["begun", "recovered", "superseded"]
    alert: Alert
    at: float


@dataclass(frozen=True)
class AlertState:
    """What must be remembered from walk to walk; a value, so that it can be stored and resumed."""

    open: Mapping[str, Alert] = field(default_factory=dict)
    """By diagnosis."""
    fired: Mapping[str, int] = field(default_factory=dict)
    """By diagnosis, walks it fired in since its branch was last clear or went another way."""
    cleared: Mapping[str, int] = field(default_factory=dict)
    """By branch, walks it was clear in since it last fired."""
    quiet_until: Mapping[str, float] = field(default_factory=dict)
    """By diagnosis, the end of its cooldown."""

    def to_json(self) -> bytes:
        """As it is saved."""
        opened = {
            name: {"began_at": alert.began_at, "walk": _walk_json(alert.walk)} for name, alert in self.open.items()
        }
        counts = {"fired": dict(self.fired), "cleared": dict(self.cleared), "quiet_until": dict(self.quiet_until)}
        return orjson.dumps({"open": opened, **counts})

    @staticmethod
    def from_json(body: bytes) -> "AlertState":
        """Inverse of ``to_json``, but that numbers which are not finite are NaN; raises BadState."""
        try:
            data = orjson.loads(body)
            opened = {
                name: Alert(_walk_of(alert["walk"]), float(alert["began_at"])) for name, alert in data["open"].items()
            }
            return AlertState(opened, data["fired"], data["cleared"], data["quiet_until"])
        except (ValueError, TypeError, KeyError, AttributeError) as wrong:
            raise BadState(f"the saved alerts cannot be read: {wrong!r}") from wrong


def advance(
    state: AlertState, walks: Iterable[Walk], now: float, rules: AlertRules
) -> tuple[AlertState, list[Transition]]:
    """
    The state after one walk of each branch, and what has begun or ended.

    A walk that is held changes nothing. When a branch comes to another diagnosis, the open one is superseded.
    """
    transitions: list[Transition] = []
    for walk in walks:
        if walk.outcome is Outcome.FIRED:
            state, changed = _fire(state, walk, now, rules)
        elif walk.outcome is Outcome.CLEAR:
            state, changed = _clear(state, walk, now, rules)
        else:
            changed = []
        transitions += changed
    return state, transitions


def _fire(state: AlertState, walk: Walk, now: float, rules: AlertRules) -> tuple[AlertState, list[Transition]]:
    name, others = walk.diagnosis, _of_branch(state.fired, walk.branch)
    fired = {key: count for key, count in state.fired.items() if key not in others}
    fired[name] = min(state.fired.get(name, 0) + 1, rules.begin_after)
    cleared = {key: count for key, count in state.cleared.items() if key != walk.branch}
    begins = name not in state.open and fired[name] >= rules.begin_after and now >= state.quiet_until.get(name, now)
    if not begins:
        return AlertState(state.open, fired, cleared, state.quiet_until), []
    superseded = _of_branch(state.open, walk.branch)
    ended = [Transition("superseded", state.open[key], now) for key in superseded]
    alert = Alert(walk, now)
    still_open = {key: other for key, other in state.open.items() if key not in superseded}
    opened = AlertState(still_open | {name: alert}, fired, cleared, state.quiet_until)
    return opened, [*ended, Transition("begun", alert, now)]


def _clear(state: AlertState, walk: Walk, now: float, rules: AlertRules) -> tuple[AlertState, list[Transition]]:
    count = min(state.cleared.get(walk.branch, 0) + 1, rules.end_after)
    cleared = {**state.cleared, walk.branch: count}
    fired = {key: n for key, n in state.fired.items() if key not in _of_branch(state.fired, walk.branch)}
    ending = _of_branch(state.open, walk.branch) if count >= rules.end_after else []
    still_open = {key: alert for key, alert in state.open.items() if key not in ending}
    quiet_until = {**state.quiet_until, **dict.fromkeys(ending, now + rules.cooldown_s)}
    transitions = [Transition("recovered", state.open[key], now) for key in ending]
    return AlertState(still_open, fired, cleared, quiet_until), transitions


def _of_branch(by_diagnosis: Mapping[str, object], branch: str) -> list[str]:
    return [key for key in by_diagnosis if key.split("/", 1)[0] == branch]


def _walk_json(walk: Walk) -> dict[str, Any]:
    return {
        "branch": walk.branch,
        "outcome": str(walk.outcome),
        "path": list(walk.path),
        "action": walk.action,
        "evidence": [SignalRecord.of_signal(signal).to_json() for signal in walk.evidence],
    }


def _walk_of(data: Mapping[str, Any]) -> Walk:
    evidence = tuple(SignalRecord.from_json(record).to_signal() for record in data["evidence"])
    return Walk(data["branch"], Outcome(data["outcome"]), tuple(data["path"]), data["action"], evidence)
