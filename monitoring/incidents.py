"""
An incident: one diagnosis, what was done about it, and the check afterwards that it helped. Pure values and functions.

``open_incident``, then ``ask`` for the walk's action. Its result comes by ``with_result``. While the branch goes on
firing, ``did_not_help`` says when that counts against the remedy; then ``with_check`` and ``next_remedy``, or
``with_needs_people`` when there is none. A walk that comes to another action supersedes: ``with_diagnosis``, and
``ask`` again. An action that must wait until enough has come is ``awaited`` before it is asked for. The end is a
``with_check`` that says recovered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Self

from monitoring.failure_tree import FailureTree, Outcome, Walk
from monitoring.observations import StreamKey
from monitoring.remedies import ActionRequest, ActionResult, Awaited, SignalRecord


@dataclass(frozen=True)
class Check:
    """Whether the signals came back after a remedy."""

    at: float
    """Unix time, seconds."""
    verdict: Literal["recovered", "not_recovered"]
    words: str
    signals: tuple[SignalRecord, ...]

    def to_json(self) -> dict[str, Any]:
        """Every field by its name."""
        return {
            "at": self.at,
            "verdict": self.verdict,
            "words": self.words,
            "signals": [record.to_json() for record in self.signals],
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """What ``to_json`` gave."""
        return cls(body["at"], body["verdict"], body["words"], _records(body["signals"]))


@dataclass(frozen=True)
class Remedy:
    """One action that was asked for."""

    key: str
    action: str
    asked_at: float
    attempts: int = 0
    """Tries so far; more than one after failures or a kill."""
    finished_at: float | None = None
    result: ActionResult | None = None
    """Set exactly when it has finished, well or not."""
    check: Check | None = None

    @property
    def is_unfinished(self) -> bool:
        """It waits in the outbox, or runs."""
        return self.result is None

    def to_json(self) -> dict[str, Any]:
        """Every field by its name."""
        return {
            "key": self.key,
            "action": self.action,
            "asked_at": self.asked_at,
            "attempts": self.attempts,
            "finished_at": self.finished_at,
            "result": None if self.result is None else self.result.to_json(),
            "check": None if self.check is None else self.check.to_json(),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """What ``to_json`` gave."""
        result = None if body["result"] is None else ActionResult.from_json(body["result"])
        check = None if body["check"] is None else Check.from_json(body["check"])
        return cls(**{**body, "result": result, "check": check})


@dataclass(frozen=True)
class Incident:
    """What is kept of it, and shown."""

    id: str
    """As in ``accuracy_down-20260101T120000``: the branch and when it began, UTC."""
    branch: str
    diagnosis: str
    """The latest, as in ``ece_up/swap_calibrator``."""
    stream: StreamKey
    """Whose signals began it; a remedy may have moved the traffic to another since."""
    began_at: float
    """Unix time, seconds."""
    path: tuple[str, ...]
    evidence: tuple[SignalRecord, ...]
    segment: str | None
    """The worst one, as in ``lang=ja-en``."""
    remedies: tuple[Remedy, ...] = ()
    """In the order in which they were asked for."""
    status: Literal["open", "recovered", "needs_people"] = "open"
    """``needs_people`` goes on: no remedy is left, and it may still recover."""
    ended_at: float | None = None
    """Set exactly when it has recovered."""
    awaited: Awaited | None = None
    """What an action waits for that is asked for next, the first time or once more."""

    @property
    def last_remedy(self) -> Remedy | None:
        """The one that was asked for last."""
        return self.remedies[-1] if self.remedies else None

    def to_json(self) -> dict[str, Any]:
        """Every field by its name."""
        return {
            "id": self.id,
            "branch": self.branch,
            "diagnosis": self.diagnosis,
            "stream": {"version": self.stream.version, "policy": self.stream.policy, "role": self.stream.role},
            "began_at": self.began_at,
            "path": list(self.path),
            "evidence": [record.to_json() for record in self.evidence],
            "segment": self.segment,
            "remedies": [remedy.to_json() for remedy in self.remedies],
            "status": self.status,
            "ended_at": self.ended_at,
            "awaited": None if self.awaited is None else self.awaited.to_json(),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """What ``to_json`` gave."""
        changed = {
            "stream": StreamKey(**body["stream"]),
            "path": tuple(body["path"]),
            "evidence": _records(body["evidence"]),
            "remedies": tuple(Remedy.from_json(remedy) for remedy in body["remedies"]),
            # Missing where an older sidecar saved it.
            "awaited": None if body.get("awaited") is None else Awaited.from_json(body["awaited"]),
        }
        return cls(**{**body, **changed})


def open_incident(walk: Walk, stream: StreamKey, began_at: float, segment: str | None = None) -> Incident:
    """The incident of a walk that fired; nothing is asked of any action yet."""
    return Incident(
        incident_id(walk.branch, began_at),
        walk.branch,
        walk.diagnosis,
        stream,
        began_at,
        walk.path,
        _evidence(walk),
        segment,
    )


def incident_id(branch: str, began_at: float) -> str:
    """
    Of a branch and a second.

    >>> incident_id("ece_up", 1767268800.7)
    'ece_up-20260101T120000'
    """
    return f"{branch}-{datetime.fromtimestamp(began_at, UTC):%Y%m%dT%H%M%S}"


def ask(incident: Incident, action: str, now: float, awaited: Awaited | None = None) -> tuple[Incident, ActionRequest]:
    """
    The incident with a further remedy, and the request for it; it is open again if it needed people. ``awaited`` is
    what had come for it.
    """
    key = f"{incident.id}/{len(incident.remedies) + 1}-{action}"
    remedies = (*incident.remedies, Remedy(key, action, now))
    request = ActionRequest(
        key, incident.id, action, incident.stream, now, incident.path, incident.evidence, incident.segment, awaited
    )
    return replace(incident, remedies=remedies, status="open", ended_at=None), request


def with_diagnosis(incident: Incident, walk: Walk, segment: str | None = None) -> Incident:
    """The same incident, whose branch has come to another action; nothing is asked of that one yet."""
    return replace(
        incident,
        diagnosis=walk.diagnosis,
        path=walk.path,
        evidence=_evidence(walk),
        segment=segment or incident.segment,
    )


def with_attempts(incident: Incident, key: str, attempts: int) -> Incident:
    """The incident whose remedy is tried for the so-manieth time; raises KeyError for a key it has not."""
    return _with_remedy(incident, replace(_remedy(incident, key), attempts=attempts))


def with_result(incident: Incident, key: str, result: ActionResult, at: float) -> Incident:
    """The incident whose remedy has finished; of two results the first stays. Raises KeyError for a key it has not."""
    remedy = _remedy(incident, key)
    if remedy.result is not None:
        return incident
    return _with_remedy(incident, replace(remedy, result=result, finished_at=at))


def with_check(incident: Incident, check: Check) -> Incident:
    """
    The check of its last remedy, if there is one. ``recovered`` ends the incident, whatever became of its remedies;
    an incident that has ended stays as it is.
    """
    if incident.ended_at is not None:
        return incident
    last = incident.last_remedy
    if last is not None:
        incident = _with_remedy(incident, replace(last, check=check))
    if check.verdict == "recovered":
        return replace(incident, status="recovered", ended_at=check.at, awaited=None)
    return incident


def with_needs_people(incident: Incident) -> Incident:
    """Nothing is left to be tried. It goes on until it recovers."""
    return incident if incident.ended_at is not None else replace(incident, status="needs_people")


def did_not_help(tree: FailureTree, incident: Incident, walk: Walk, now: float) -> bool:
    """
    Whether this walk counts against the last remedy: it comes to the diagnosis that the remedy was for, although the
    remedy has finished and has had its time. A remedy that failed needs no time.

    A walk that comes to another action is none that counts: what was measured since leads elsewhere, as
    ``ece_after_refit`` does.
    """
    last = incident.last_remedy
    if last is None or last.result is None or last.finished_at is None or last.check is not None:
        return False
    if incident.ended_at is not None or walk.outcome is not Outcome.FIRED or walk.diagnosis != incident.diagnosis:
        return False
    rule = tree.remedies.get(last.action)
    wait_s = 0.0 if rule is None or last.result.outcome == "failed" else rule.check_after_s
    # Behind the end of the remedy the clock has stepped back: how long ago that was cannot be told, so wait.
    return now >= last.finished_at + wait_s


def next_remedy(tree: FailureTree, incident: Incident) -> str | None:
    """
    What the tree has next for one whose last remedy has failed or did not help; None when nothing is left, or all of
    that was tried in this incident already.
    """
    last = incident.last_remedy
    rule = None if last is None else tree.remedies.get(last.action)
    tried = {remedy.action for remedy in incident.remedies}
    return None if rule is None or rule.next in tried else rule.next


def _remedy(incident: Incident, key: str) -> Remedy:
    for remedy in incident.remedies:
        if remedy.key == key:
            return remedy
    raise KeyError(f"incident {incident.id} has no remedy {key}")


def _with_remedy(incident: Incident, changed: Remedy) -> Incident:
    remedies = tuple(changed if remedy.key == changed.key else remedy for remedy in incident.remedies)
    return replace(incident, remedies=remedies)


def _evidence(walk: Walk) -> tuple[SignalRecord, ...]:
    return tuple(SignalRecord.of_signal(signal) for signal in walk.evidence)


def _records(body: list[Mapping[str, Any]]) -> tuple[SignalRecord, ...]:
    return tuple(SignalRecord.from_json(record) for record in body)
