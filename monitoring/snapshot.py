"""What the sidecar knows at one moment: made by the loop, replaced whole, read by whoever answers over HTTP."""

import time
from dataclasses import dataclass, field
from typing import Literal

from monitoring.assessment import Assessment
from monitoring.counters import Counters
from monitoring.incidents import Incident

SHOWN_INCIDENTS = 200
"""The latest ones; all of them stay in the state file for half a year."""
STALLED_S = 120.0
"""A loop that has finished no turn for so long is taken for dead: the longest turn is a chunk and an assessment."""


@dataclass(frozen=True)
class Health:
    """How reading and writing go."""

    log: Literal["not_seen", "available", "unavailable"] = "not_seen"
    log_problem: str | None = None
    is_state_writable: bool = True
    state_problem: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """One moment."""

    at: float
    """Unix time, seconds."""
    health: Health = field(default_factory=Health)
    counters: Counters = field(default_factory=Counters)
    behind_s: float = 0.0
    """Age of the last event read while more is waiting; 0 when all was read."""
    last_step_at: float | None = None
    """When the log was last read, whether or not anything was new."""
    last_assessment_at: float | None = None
    assessments: tuple[Assessment, ...] = ()
    """Of the champion's stream first, then a candidate's, if there are such."""
    open_incidents: tuple[Incident, ...] = ()
    """Those that have not ended, oldest first."""
    latest_incidents: tuple[Incident, ...] = ()
    """Newest first, ``SHOWN_INCIDENTS`` at most."""
    outbox_waiting: int = 0
    """Requests without a result, running ones included."""
    outbox_dead: int = 0
    outbox_oldest_s: float = 0.0
    """Age of the oldest one that waits."""


class Watched:
    """The loop, as those see it who answer for it."""

    def __init__(self) -> None:
        self.snapshot = Snapshot(at=time.time())
        """Replaced whole by the loop."""
        self.is_alive = False
        self.turned_at = time.monotonic()
        """When the loop last finished a turn."""

    def is_well(self) -> bool:
        """Whether the loop is alive and turning."""
        return self.is_alive and time.monotonic() - self.turned_at < STALLED_S
