"""What the sidecar knows at one moment: made by the loop, replaced whole, read by whoever answers over HTTP."""

import time
from dataclasses import dataclass, field
from typing import Literal

from monitoring.counters import Counters

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
