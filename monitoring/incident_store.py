"""
Incidents and the outbox in the state file: what is asked of actions is asked at least once, whatever happens between.

Every write belongs inside the caller's transaction. What runs at the moment is nowhere in the file: after a kill
everything that had no result is due again, under the same key. A try counts from its start, so that a request that
takes the process down with it is given up too.
"""

import json
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from monitoring.errors import HookFailed
from monitoring.incidents import Incident
from monitoring.remedies import ActionRequest, ActionResult
from monitoring.state_file import StateFile

KILLED = "the sidecar ended during it"

_TABLES = (
    "CREATE TABLE IF NOT EXISTS incidents (id TEXT PRIMARY KEY, began_at REAL NOT NULL, ended_at REAL, "
    "body TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS incidents_by_begin ON incidents (began_at)",
    "CREATE TABLE IF NOT EXISTS outbox (key TEXT PRIMARY KEY, incident TEXT NOT NULL, state TEXT NOT NULL, "
    "attempts INTEGER NOT NULL, tried_at REAL, due_at REAL NOT NULL, finished_at REAL, reasons TEXT NOT NULL, "
    "request TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS outbox_by_state ON outbox (state, due_at)",
)
_ROW = "SELECT request, state, attempts, tried_at, due_at, finished_at, reasons FROM outbox"


@dataclass(frozen=True)
class OutboxRules:
    """When a request is tried again, and when it is given up."""

    first_wait_s: float = 5.0
    """After the first failed try. Higher spares the other side, and acts later."""
    factor: float = 2.0
    """By which each further wait is longer."""
    longest_wait_s: float = 900.0
    """No wait is longer, whatever the other side asks for."""
    attempts: int = 8
    """Tries before it becomes a dead letter; with the defaults after about ten minutes."""
    jitter: float = 0.2
    """A wait is shortened by up to this share, at random, so that many do not come back at once."""

    def __post_init__(self) -> None:
        waits_are_ordered = 0.0 < self.first_wait_s <= self.longest_wait_s < np.inf
        if not (waits_are_ordered and 1.0 <= self.factor < np.inf and self.attempts >= 1 and 0.0 <= self.jitter < 1.0):
            raise ValueError(
                "an outbox needs 0 < first_wait_s <= longest_wait_s, factor >= 1, attempts >= 1, 0 <= jitter < 1, "
                f"got {self}"
            )


@dataclass(frozen=True)
class OutboxRow:
    """A request and how far it has come."""

    request: ActionRequest
    state: Literal["waiting", "done", "failed", "nothing_to_do", "dead", "withdrawn"]
    attempts: int
    """Tries that were started."""
    tried_at: float | None
    due_at: float
    """When it is to be tried, while it waits."""
    finished_at: float | None
    reasons: tuple[str, ...]
    """Why each try came to nothing, oldest first."""


@dataclass(frozen=True)
class OutboxCounts:
    """What metrics show of the outbox."""

    waiting: int
    """Without a result, running ones included."""
    dead: int
    oldest_asked_at: float | None
    """Of those that wait; None when none does."""


class IncidentStore:
    """Tables ``incidents`` and ``outbox``; used from the thread that owns the state file."""

    def __init__(self, state: StateFile) -> None:
        """Make the tables where they are missing."""
        self._connection = state.connection
        for statement in _TABLES:
            self._connection.execute(statement)

    def save(self, incident: Incident) -> None:
        """Keep an incident as it is now."""
        self._connection.execute(
            "INSERT OR REPLACE INTO incidents (id, began_at, ended_at, body) VALUES (?, ?, ?, ?)",
            (incident.id, incident.began_at, incident.ended_at, _json(incident.to_json())),
        )

    def get(self, incident_id: str) -> Incident | None:
        """One incident, or None."""
        found = self._incidents("WHERE id = ?", incident_id)
        return found[0] if found else None

    def open(self) -> list[Incident]:
        """Those that have not ended, those that need people included; oldest first."""
        return self._incidents("WHERE ended_at IS NULL ORDER BY began_at, id")

    def latest(self, most: int) -> list[Incident]:
        """The latest ones, newest first."""
        return self._incidents("ORDER BY began_at DESC, id DESC LIMIT ?", most)

    def forget(self, before: float) -> int:
        """Drop incidents that ended before a time, and their requests; how many incidents."""
        self._connection.execute(
            "DELETE FROM outbox WHERE incident IN (SELECT id FROM incidents WHERE ended_at < ?)", (before,)
        )
        return self._connection.execute("DELETE FROM incidents WHERE ended_at < ?", (before,)).rowcount

    def put(self, request: ActionRequest) -> bool:
        """Ask for an action, due at once; False when this key was asked for before, which changes nothing."""
        written = self._connection.execute(
            "INSERT INTO outbox (key, incident, state, attempts, due_at, reasons, request) "
            "VALUES (?, ?, 'waiting', 0, ?, '[]', ?) ON CONFLICT (key) DO NOTHING",
            (request.key, request.incident, request.asked_at, _json(request.to_json())),
        )
        return written.rowcount == 1

    def due(self, now: float) -> list[OutboxRow]:
        """
        What is to be tried, longest due first. It names those that run at the moment as well, once their wait is over:
        the caller knows which they are.
        """
        # A clock that has stepped back behind the last try would hold a row for as long as the step was.
        where = "WHERE state = 'waiting' AND (due_at <= ? OR ? < COALESCE(tried_at, due_at)) ORDER BY due_at, key"
        return self._rows(where, now, now)

    def record_attempt(self, key: str, now: float, rules: OutboxRules, rng: np.random.Generator) -> OutboxRow:
        """
        A try starts now. The row's state is ``dead``, and it must not be started, when a kill has ended the last one.

        Until something else is recorded it is due again after its wait: that is when a killed sidecar tries again.
        """
        row = self.row(key)
        killed = row.attempts - len(row.reasons)
        row = replace(row, reasons=row.reasons + (KILLED,) * killed)
        if row.attempts >= rules.attempts:
            return self._write(replace(row, state="dead", finished_at=now))
        attempts = row.attempts + 1
        return self._write(replace(row, attempts=attempts, tried_at=now, due_at=now + wait_s(attempts, rules, rng)))

    def record_failure(
        self, key: str, failure: HookFailed, now: float, rules: OutboxRules, rng: np.random.Generator
    ) -> OutboxRow:
        """The try came to nothing: due again after its wait, or ``dead`` when it was the last one."""
        row = self.row(key)
        if row.state != "waiting":
            return row
        row = replace(row, reasons=(*row.reasons, str(failure)))
        if row.attempts >= rules.attempts:
            return self._write(replace(row, state="dead", finished_at=now))
        wait = max(wait_s(row.attempts, rules, rng), failure.retry_after_s or 0.0)
        return self._write(replace(row, due_at=now + min(wait, rules.longest_wait_s)))

    def record_result(self, key: str, result: ActionResult, now: float) -> OutboxRow:
        """The try came to an end, well or not; of two results the first stays."""
        row = self.row(key)
        if row.state != "waiting":
            return row
        reasons = (*row.reasons, result.words) if result.outcome == "failed" else row.reasons
        return self._write(replace(row, state=result.outcome, finished_at=now, reasons=reasons))

    def withdraw(self, incident_id: str, now: float) -> list[str]:
        """Ask no longer for what an incident still waits for; the keys. What runs at the moment goes on."""
        keys = [row.request.key for row in self._rows("WHERE incident = ? AND state = 'waiting'", incident_id)]
        for key in keys:
            self._write(replace(self.row(key), state="withdrawn", finished_at=now))
        return keys

    def row(self, key: str) -> OutboxRow:
        """One request; raises KeyError."""
        rows = self._rows("WHERE key = ?", key)
        if not rows:
            raise KeyError(key)
        return rows[0]

    def dead(self) -> list[OutboxRow]:
        """Dead letters, oldest first."""
        return self._rows("WHERE state = 'dead' ORDER BY finished_at, key")

    def counts(self) -> OutboxCounts:
        """How many wait, and how many were given up."""
        waiting = self._rows("WHERE state = 'waiting'")
        (dead,) = self._connection.execute("SELECT count(*) FROM outbox WHERE state = 'dead'").fetchone()
        oldest = min((row.request.asked_at for row in waiting), default=None)
        return OutboxCounts(len(waiting), int(dead), oldest)

    def _incidents(self, where: str, *values: Any) -> list[Incident]:
        rows = self._connection.execute("SELECT body FROM incidents " + where, values)  # noqa: S608 - where is ours
        return [Incident.from_json(json.loads(body)) for (body,) in rows]

    def _rows(self, where: str, *values: Any) -> list[OutboxRow]:
        rows = self._connection.execute(f"{_ROW} {where}", values).fetchall()
        return [_row(*columns) for columns in rows]

    def _write(self, row: OutboxRow) -> OutboxRow:
        figures = (row.state, row.attempts, row.tried_at, row.due_at, row.finished_at, _json(row.reasons))
        self._connection.execute(
            "UPDATE outbox SET state = ?, attempts = ?, tried_at = ?, due_at = ?, finished_at = ?, reasons = ? "
            "WHERE key = ?",
            (*figures, row.request.key),
        )
        return row


def wait_s(attempts: int, rules: OutboxRules, rng: np.random.Generator) -> float:
    """
    Seconds to wait after so many tries.

    >>> steady = OutboxRules(jitter=0.0)
    >>> [wait_s(attempts, steady, np.random.default_rng(0)) for attempts in (1, 2, 3, 8, 5000)]
    [5.0, 10.0, 20.0, 640.0, 900.0]
    """
    doublings = min(attempts - 1, 64)
    wait = min(rules.first_wait_s * min(rules.factor**doublings, 1e12), rules.longest_wait_s)
    return wait * (1.0 - rules.jitter * float(rng.random()))


def dead_result(row: OutboxRow) -> ActionResult:
    """What an incident is told of a dead letter."""
    last = row.reasons[-1] if row.reasons else "never tried"
    return ActionResult(
        "failed", f"given up after {row.attempts} tries; the last one: {last}", {"reasons": list(row.reasons)}
    )


def _row(
    request: str, state: Any, attempts: int, tried_at: Any, due_at: float, finished_at: Any, reasons: str
) -> OutboxRow:
    asked = ActionRequest.from_json(json.loads(request))
    return OutboxRow(asked, state, attempts, tried_at, due_at, finished_at, tuple(json.loads(reasons)))


def _json(body: Any) -> str:
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
