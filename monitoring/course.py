"""
The course of incidents: what the walks of one moment change about them, and what is asked of actions next. Pure.

    begun        a new incident, and its first remedy; or, in an open one, another diagnosis and a further remedy
    waits        for a remedy that needs more than has come: asked for once that has, or the longest wait is over; and
                 once more when twice as much has come as it was asked for with
    fires on     after a remedy that had its time: it did not help; the next one, or people
    recovered    the incident has ended, and what it still waited for is withdrawn
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from monitoring.alerts import Transition
from monitoring.calibration import CALIBRATION_SIGNALS
from monitoring.failure_tree import FailureTree, Outcome, Walk
from monitoring.incidents import (
    Check,
    Incident,
    ask,
    did_not_help,
    next_remedy,
    open_incident,
    with_check,
    with_diagnosis,
    with_needs_people,
)
from monitoring.latency import LATENCY_SIGNALS
from monitoring.novelty import NO_OOD_DECISIONS, OodDecisions, began_at, novel_utterances
from monitoring.observations import StreamKey
from monitoring.remedies import ActionRequest, Awaited, SignalRecord
from monitoring.signals import LABELLED_SIGNALS, OOD_SIGNALS, Signal, Verdict

Event = Literal["begun", "recovered", "superseded", "needs_people"]
ENOUGH = 0.8
"""Of the rows that a signal was breached over, the share that must speak for its recovery: a window of so many labels
does not always hold as many that the signal is about."""

LEFT = 0.25
"""Of the change that an incident began with, the share that may be left where the interval holds what was before. A
ratio of 150 rows differs from window to window by more than half of a threshold of two points: it would be back by
chance alone."""

_OF_WHAT_IT_WAS = frozenset((*LABELLED_SIGNALS, *CALIBRATION_SIGNALS, *LATENCY_SIGNALS))
"""These come back to what they were before the incident; distances between distributions, to the reference in force."""


@dataclass
class Changes:
    """What is to be written, all in one transaction."""

    incidents: dict[str, Incident] = field(default_factory=dict)
    """As they are now, by id."""
    requests: list[ActionRequest] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    """Incidents whose waiting requests are asked for no longer."""
    events: list[tuple[Event, Incident]] = field(default_factory=list)

    def save(self, incident: Incident) -> None:
        """The incident as it is now."""
        self.incidents[incident.id] = incident


@dataclass(frozen=True)
class WaitRule:
    """How much of what is new must have come before an action is asked for."""

    utterances: int
    """Higher shows it more surely, and later."""
    longest_s: float
    """From the diagnosis on; after that it is asked for with what there is."""


@dataclass(frozen=True)
class Moment:
    """Whose walks those are, and when."""

    tree: FailureTree
    stream: StreamKey
    now: float
    segment: str | None = None
    """The worst one."""
    acts: bool = True
    """Off: incidents are recorded, and nothing is asked of any action."""
    waits: Mapping[str, WaitRule] = field(default_factory=dict)
    """By action; the others are asked for at once."""
    decisions: Callable[[str], OodDecisions] = lambda _: NO_OOD_DECISIONS
    """Of the version that is walked, by the signal that fell; gathered only when something waits for what is new."""


def confirmed(
    walks: Iterable[Walk], signals: Mapping[str, Signal], open_incidents: Sequence[Incident], tree: FailureTree
) -> list[Walk]:
    """
    The walks, but a clear one of a branch with an open incident is held until the recovery can be told from too little.

    Evidence begins anew when something else serves, and evidence that has seen few rows has found nothing yet. So each
    signal that was breached must have come back (below half of its threshold, or below a quarter of the change that it
    was breached by while what was before lies inside its interval), over about as many rows as it was breached over.
    """
    by_branch = {incident.branch: incident for incident in open_incidents}
    return [
        replace(walk, outcome=Outcome.HELD)
        if walk.outcome is Outcome.CLEAR
        and walk.branch in by_branch
        and not has_come_back(by_branch[walk.branch], signals, tree)
        else walk
        for walk in walks
    ]


def has_come_back(incident: Incident, signals: Mapping[str, Signal], tree: FailureTree) -> bool:
    """Whether the signals that its branch fired on say so by themselves; see ``confirmed``."""
    of_branch = {name for branch in tree.branches if branch.node == incident.branch for name in branch.signals}
    for record in incident.evidence:
        if record.verdict != "breached" or record.name not in of_branch:
            continue
        signal = signals.get(record.name)
        if signal is None or signal.n < ENOUGH * record.n:
            return False
        watch, reference = tree.watches[record.name], signal.reference
        if record.name in _OF_WHAT_IT_WAS and record.reference is not None:
            # A version that took over is no recovery for being as bad as it was from its first day.
            reference = record.reference
        then, left = record.to_signal(), watch.change_for_the_worse(signal.value, reference)
        holds_what_was = signal.low <= reference <= signal.high
        most_left = LEFT * watch.change_for_the_worse(then.value, then.reference) if holds_what_was else 0.0
        # NaN is no recovery either.
        if not (left < watch.threshold / 2 or left < most_left):
            return False
    return True


def proceed(
    walks: Iterable[Walk], transitions: Iterable[Transition], open_incidents: Sequence[Incident], moment: Moment
) -> Changes:
    """What follows from the walks and the transitions they led to; ``open_incidents`` hold one a branch at most."""
    by_branch = {incident.branch: incident for incident in open_incidents}
    by_walk = {walk.branch: walk for walk in walks}
    changes = Changes()
    for transition in transitions:
        branch = transition.alert.walk.branch
        incident = by_branch.get(branch)
        if transition.kind == "begun":
            by_branch[branch] = _begin(incident, transition.alert.walk, moment, changes)
        elif transition.kind == "recovered" and incident is not None:
            _recover(incident, by_walk.get(branch), moment, changes)
            del by_branch[branch]
        elif transition.kind == "superseded" and incident is not None:
            changes.events.append(("superseded", incident))
    for branch, incident in by_branch.items():
        if branch in by_walk and did_not_help(moment.tree, incident, by_walk[branch], moment.now):
            _go_on(incident, by_walk[branch], moment, changes)
        elif incident.awaited is not None:
            _wait(incident, incident.awaited, moment, changes)
    return changes


def wait_on(open_incidents: Sequence[Incident], moment: Moment) -> Changes:
    """What follows without a walk: a wait comes to its end although nothing new does."""
    changes = Changes()
    for incident in open_incidents:
        if incident.awaited is not None:
            _wait(incident, incident.awaited, moment, changes)
    return changes


def extra_signals(open_incidents: Sequence[Incident]) -> dict[str, Signal]:
    """What remedies measured, as ``ece_after_refit``; of several the latest."""
    finished = [remedy for incident in open_incidents for remedy in incident.remedies if remedy.result is not None]
    finished.sort(key=lambda remedy: remedy.finished_at or 0.0)
    return {
        record.name: record.to_signal()
        for remedy in finished
        if remedy.result is not None
        for record in remedy.result.signals
    }


def _begin(incident: Incident | None, walk: Walk, moment: Moment, changes: Changes) -> Incident:
    if incident is None:
        incident = open_incident(walk, moment.stream, moment.now, moment.segment)
        changes.events.append(("begun", incident))
    else:
        incident = with_diagnosis(incident, walk, moment.segment)
        changes.events.append(("begun", incident))
    tried = {remedy.action for remedy in incident.remedies}
    # What was tried is not tried again: two diagnoses that take turns would ask for ever.
    if moment.acts and walk.action is not None and walk.action not in tried:
        if incident.remedies:
            # What the diagnosis before still waits for is not wanted any longer.
            changes.withdrawn.append(incident.id)
        incident = replace(incident, awaited=_awaited(walk, moment))
        if incident.awaited is None:
            incident = _ask(incident, walk.action, moment, changes)
    changes.save(incident)
    return incident


def _awaited(walk: Walk, moment: Moment) -> Awaited | None:
    """What its action waits for; nothing where no ood precision or recall has fallen that could tell what is new."""
    rule = moment.waits.get(str(walk.action))
    fallen = [one for one in walk.evidence if one.name in OOD_SIGNALS and one.verdict is Verdict.BREACHED]
    if rule is None or not fallen:
        return None
    signal, precision = fallen[0].name, fallen[0].reference
    since = began_at(moment.decisions(signal), precision)
    return Awaited(
        action=str(walk.action),
        need=rule.utterances,
        have=0,
        since=moment.now if since is None else since,
        until=moment.now + rule.longest_s,
        precision=precision,
        signal=signal,
    )


def _wait(incident: Incident, awaited: Awaited, moment: Moment, changes: Changes) -> None:
    """Ask, if enough has come or the wait is over; the next time is when twice as much has come as by then."""
    last = incident.last_remedy
    is_under_way = last is not None and last.action == awaited.action and last.is_unfinished
    if not moment.acts or is_under_way:
        return
    decisions = moment.decisions(awaited.signal)
    counted = replace(awaited, have=novel_utterances(decisions, awaited.since, awaited.precision))
    is_over = counted.until is not None and moment.now >= counted.until
    if is_over or not counted.is_short:
        incident = _ask(incident, counted.action, moment, changes, counted)
        counted = replace(counted, need=max(counted.need, 2 * counted.have), until=None)
    if counted != awaited:
        changes.save(replace(incident, awaited=counted))


def _recover(incident: Incident, walk: Walk | None, moment: Moment, changes: Changes) -> None:
    signals = tuple(SignalRecord.of_signal(signal) for signal in walk.evidence) if walk is not None else ()
    last = incident.last_remedy
    words = "the signals came back" if last is None else f"the signals came back after {last.action}"
    incident = with_check(incident, Check(moment.now, "recovered", words, signals))
    changes.withdrawn.append(incident.id)
    changes.events.append(("recovered", incident))
    changes.save(incident)


def _go_on(incident: Incident, walk: Walk, moment: Moment, changes: Changes) -> None:
    """The last remedy did not help."""
    last = incident.last_remedy
    signals = tuple(SignalRecord.of_signal(signal) for signal in walk.evidence)
    words = f"{walk.diagnosis} still holds after {last.action if last else 'nothing'}"
    following = next_remedy(moment.tree, incident)
    incident = with_check(incident, Check(moment.now, "not_recovered", words, signals))
    if following is None:
        incident = with_needs_people(incident)
        changes.events.append(("needs_people", incident))
    elif moment.acts:
        incident = _ask(incident, following, moment, changes)
    changes.save(incident)


def _ask(incident: Incident, action: str, moment: Moment, changes: Changes, awaited: Awaited | None = None) -> Incident:
    """The action is about the stream that is walked now: a remedy before it may have moved the traffic."""
    incident, request = ask(incident, action, moment.now, awaited)
    changes.requests.append(replace(request, stream=moment.stream))
    return incident
