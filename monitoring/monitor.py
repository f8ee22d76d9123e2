"""
What one turn of the sidecar does: takes events in, measures, decides, delivers. No threads, and ``now`` is an argument.

Everything that must survive a kill is written in one transaction with what it follows from: evidence with the cursor,
incidents and requests with the alerts, a result with what became of its request.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from monitoring.alerts import AlertRules, AlertState, advance
from monitoring.assessment import Assessment
from monitoring.course import Changes, Moment, WaitRule, confirmed, extra_signals, proceed, wait_on
from monitoring.errors import HookFailed
from monitoring.failure_tree import FailureTree, walk
from monitoring.incident_store import IncidentStore, OutboxRules, dead_result
from monitoring.incidents import with_attempts, with_result
from monitoring.journey import Journey
from monitoring.label_join import Joined
from monitoring.novelty import OodDecisions, ood_decisions
from monitoring.observations import StreamKey
from monitoring.remedies import ActionRequest, ActionResult
from monitoring.segments import SEGMENT_SIGNALS, worst_segment
from monitoring.signals import Signal
from monitoring.snapshot import SHOWN_INCIDENTS, Health, Snapshot
from monitoring.state_file import StateFile
from monitoring.telemetry import Telemetry
from monitoring.windows import StreamWindows, Window

ALERTS, SERVING = "alerts", "serving"
KEPT_INCIDENTS_S = 180 * 86_400.0
"""Incidents that ended earlier are forgotten, with their requests."""
_FORGET_EVERY_S = 3600.0


class Watches(Protocol):
    """The evidence and signals of streams: ``stream_watch.StreamWatches``."""

    def follow(self, joined: Joined) -> Mapping[str, bytes]:
        """New evidence, to be saved with the chunk; nothing is taken over yet."""

    def take_over(self) -> None:
        """What was to be saved was committed."""

    def roll_back(self) -> None:
        """It was not."""

    def pin_due(self, windows: StreamWindows) -> Mapping[str, bytes]:
        """The reference of a version, to be saved, once there are rows enough; nothing is taken over yet."""

    def restart(self, key: StreamKey, windows: StreamWindows) -> Mapping[str, bytes]:
        """Evidence of a stream anew, to be saved: rows so far count no longer. Nothing is taken over yet."""

    def assess(self, windows: StreamWindows, now: float, extra: Mapping[str, Signal]) -> Assessment:
        """Every signal of a stream."""


class Deliverer(Protocol):
    """What runs actions on threads of its own: ``deliverer.Deliverer``."""

    def start(self, request: ActionRequest, window: Window) -> None:
        """Begin; what comes of it is in ``finished`` later."""

    def finished(self) -> list[tuple[str, ActionResult | HookFailed]]:
        """By key, what has come to an end since the last call."""

    def is_busy(self, action: str) -> bool:
        """Whether a further request for this action would have to wait."""


@dataclass(frozen=True)
class Rules:
    """When something counts, and when it is tried again."""

    alerts: AlertRules
    outbox: OutboxRules
    acts: bool = True
    """Off: only diagnoses."""
    waits: Mapping[str, WaitRule] = field(default_factory=dict)
    """By action, what it waits for before it is asked for."""


class Monitor:
    """Used from one thread, which owns the state."""

    def __init__(
        self,
        state: StateFile,
        journey: Journey,
        tree: FailureTree,
        watches: Watches,
        deliverer: Deliverer,
        rules: Rules,
        telemetry: Telemetry,
        serving: Callable[[], int | None],
        rng: np.random.Generator,
    ) -> None:
        """
        Go on where the state is; raises BadState when it cannot be read. ``serving`` gives the number of the
        deployment, None while it cannot be read.
        """
        self._state = state
        self._journey = journey
        self._tree = tree
        self._watches = watches
        self._deliverer = deliverer
        self._rules = rules
        self._telemetry = telemetry
        self._serving_now = serving
        self._rng = rng
        self._store = IncidentStore(state)
        saved_alerts, saved_serving = state.get(ALERTS), state.get(SERVING)
        self._alerts = AlertState() if saved_alerts is None else AlertState.from_json(saved_alerts)
        self._serving = None if saved_serving is None else int(saved_serving)
        self._open = self._store.open()
        self._latest = self._store.latest(SHOWN_INCIDENTS)
        self._outbox = self._store.counts()
        self._assessments: tuple[Assessment, ...] = ()
        self._assessed: object = None
        """What there was to assess at the last time."""
        self._running: set[str] = set()
        """Keys that were started, and whose end is not saved yet. In memory only: after a kill all are due again."""
        self._ended: list[tuple[str, ActionResult | HookFailed]] = []
        """What has come to an end and is not saved yet."""
        self._is_caught_up = True
        self._last_step_at: float | None = None
        self._last_assessment_at: float | None = None
        self._forget_at = 0.0

    def take_in(self, now: float) -> bool:
        """One chunk of the log; whether all was read. Raises LogUnavailable or sqlite3.Error, and nothing changed."""
        try:
            step = self._journey.step(now, self._watches.follow)
        except BaseException:
            self._watches.roll_back()
            raise
        self._watches.take_over()
        self._last_step_at, self._is_caught_up = now, step.is_caught_up
        return step.is_caught_up

    def assess(self, now: float) -> bool:
        """
        Measure, walk the tree, decide; whether there was anything new to measure. Raises sqlite3.Error, and nothing
        changed.

        The tree is walked for the champion: of its streams the one that answered last. Without a new row nothing is
        measured, so that walks which count up to an alert are not all of the same rows; only waits come to their end.
        """
        self._look_at_deployment()
        keys = self._streams_of_interest()
        extra = extra_signals(self._open)
        counted = self._journey.counters.streams
        to_assess = tuple((key, counted[key].predictions, counted[key].labelled) for key in keys), tuple(extra)
        if not keys:
            return False
        is_champion = keys[0].role == "champion"
        if to_assess == self._assessed:
            if is_champion:
                self._wait_on(keys[0], now)
            return False
        windows = self._journey.windows
        for key in keys:
            self._save(self._watches.pin_due(windows.stream(key)))
        assessments = tuple(self._watches.assess(windows.stream(key), now, extra) for key in keys)
        if is_champion:
            self._walk(assessments[0], now)
        self._assessments, self._assessed, self._last_assessment_at = assessments, to_assess, now
        return True

    def deliver(self, now: float) -> None:
        """Take back what is done, hand out what is due. Raises sqlite3.Error, and the rest waits for the next turn."""
        self._ended += self._deliverer.finished()
        while self._ended:
            self._finish(*self._ended[0], now)
            self._running.discard(self._ended.pop(0)[0])
        for row in self._store.due(now) if self._rules.acts else ():
            # One of each action at a time: what would wait behind it gets a fresher window later.
            if row.request.key not in self._running and not self._deliverer.is_busy(row.request.action):
                self._start(row.request, now)
        self._forget(now)

    def snapshot(self, now: float, health: Health) -> Snapshot:
        """The moment."""
        oldest = self._outbox.oldest_asked_at
        return Snapshot(
            at=now,
            health=health,
            counters=self._journey.counters,
            behind_s=0.0 if self._is_caught_up else max(0.0, now - self._journey.cursor.latest_at),
            last_step_at=self._last_step_at,
            last_assessment_at=self._last_assessment_at,
            assessments=self._assessments,
            open_incidents=tuple(self._open),
            latest_incidents=tuple(self._latest),
            outbox_waiting=self._outbox.waiting,
            outbox_dead=self._outbox.dead,
            outbox_oldest_s=0.0 if oldest is None else max(0.0, now - oldest),
        )

    def _streams_of_interest(self) -> list[StreamKey]:
        """The champion's stream first, then a candidate's: of several the one that answered last."""
        windows = self._journey.windows
        latest: dict[str, tuple[int, StreamKey]] = {}
        for key in windows.stream_keys():
            numbers = windows.stream(key).latest(1, 0).predictions["number"]
            if len(numbers) and key.role in ("champion", "candidate"):
                latest[key.role] = max(latest.get(key.role, (-1, key)), (int(numbers[0]), key))
        return [latest[role][1] for role in ("champion", "candidate") if role in latest]

    def _look_at_deployment(self) -> None:
        """When something else serves, what was seen before says nothing of it: evidence begins anew."""
        serving = self._serving_now()
        if serving is None or serving == self._serving:
            return
        windows = self._journey.windows
        champions = [key for key in windows.stream_keys() if key.role == "champion"]
        for key in champions if self._serving is not None else ():
            self._save(self._watches.restart(key, windows.stream(key)))
        with self._state.transaction():
            self._state.put(SERVING, str(serving).encode())
        self._serving = serving

    def _save(self, changed: Mapping[str, bytes]) -> None:
        """What the watches want saved; they take it over once it is."""
        if not changed:
            return
        try:
            with self._state.transaction():
                for name, body in changed.items():
                    self._state.put(name, body)
        except BaseException:
            self._watches.roll_back()
            raise
        self._watches.take_over()

    def _walk(self, assessment: Assessment, now: float) -> None:
        walks = confirmed(walk(self._tree, assessment.signals), assessment.signals, self._open, self._tree)
        alerts, transitions = advance(self._alerts, walks, now, self._rules.alerts)
        segment = worst_segment(list(assessment.segments), self._tree.watches[SEGMENT_SIGNALS[0]])
        changes = proceed(walks, transitions, self._open, self._moment(assessment.key, now, segment))
        with self._state.transaction():
            self._state.put(ALERTS, alerts.to_json())
            self._write(changes, now)
        self._alerts = alerts
        for event, incident in changes.events:
            self._telemetry.record_incident(incident.branch, incident.diagnosis, event)
        if changes.incidents:
            self._reload()

    def _wait_on(self, key: StreamKey, now: float) -> None:
        changes = wait_on(self._open, self._moment(key, now))
        if changes.incidents:
            with self._state.transaction():
                self._write(changes, now)
            self._reload()

    def _moment(self, key: StreamKey, now: float, segment: str | None = None) -> Moment:
        rules = self._rules
        return Moment(
            self._tree, key, now, segment, rules.acts, rules.waits, lambda signal: self._decisions(key, signal)
        )

    def _decisions(self, key: StreamKey, signal: str) -> OodDecisions:
        """Of the version in this role, whatever the policy: a revision meanwhile must not hide what came before it."""
        windows = self._journey.windows
        same = [other for other in windows.stream_keys() if (other.version, other.role) == (key.version, key.role)]
        return ood_decisions((windows.stream(other) for other in same), signal)

    def _write(self, changes: Changes, now: float) -> None:
        for incident_id in changes.withdrawn:
            self._store.withdraw(incident_id, now)
        for incident in changes.incidents.values():
            self._store.save(incident)
        for request in changes.requests:
            self._store.put(request)

    def _start(self, request: ActionRequest, now: float) -> None:
        with self._state.transaction():
            row = self._store.record_attempt(request.key, now, self._rules.outbox, self._rng)
            incident = self._store.get(request.incident)
            if incident is not None:
                self._store.save(with_attempts(incident, request.key, row.attempts))
            if row.state == "dead":
                self._save_result(request, dead_result(row), now)
        self._reload()
        if row.state == "dead":
            self._telemetry.record_remedy(request.action, "dead")
            return
        self._running.add(request.key)
        if request.stream in self._journey.windows.stream_keys():
            self._deliverer.start(request, self._journey.windows.stream(request.stream).latest())
        else:
            words = f"{request.stream.name} has been silent for so long that its rows were let go"
            self._ended.append((request.key, ActionResult("failed", words)))

    def _finish(self, key: str, outcome: ActionResult | HookFailed, now: float) -> None:
        with self._state.transaction():
            if isinstance(outcome, HookFailed):
                row = self._store.record_failure(key, outcome, now, self._rules.outbox, self._rng)
                counted = "dead" if row.state == "dead" else "retried"
                if row.state == "dead":
                    self._save_result(row.request, dead_result(row), now)
            else:
                row = self._store.record_result(key, outcome, now)
                counted = outcome.outcome
                self._save_result(row.request, outcome, now)
        self._telemetry.record_remedy(row.request.action, counted)
        self._reload()

    def _save_result(self, request: ActionRequest, result: ActionResult, now: float) -> None:
        incident = self._store.get(request.incident)
        if incident is not None:
            self._store.save(with_result(incident, request.key, result, now))

    def _forget(self, now: float) -> None:
        if now < self._forget_at:
            return
        with self._state.transaction():
            self._store.forget(now - KEPT_INCIDENTS_S)
        self._forget_at = now + _FORGET_EVERY_S

    def _reload(self) -> None:
        self._open = self._store.open()
        self._latest = self._store.latest(SHOWN_INCIDENTS)
        self._outbox = self._store.counts()
