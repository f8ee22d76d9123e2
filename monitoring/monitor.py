"""What one turn of the sidecar does: takes events in, measures, decides, delivers. No threads, no clock."""

from monitoring.journey import Journey
from monitoring.snapshot import Health, Snapshot


class Monitor:
    """Used from one thread."""

    def __init__(self, journey: Journey) -> None:
        self._journey = journey
        self._last_step_at: float | None = None
        self._is_caught_up = True

    def take_in(self, now: float) -> bool:
        """One chunk of the log; whether all was read. Raises LogUnavailable or sqlite3.Error, and nothing changed."""
        step = self._journey.step(now)
        self._last_step_at, self._is_caught_up = now, step.is_caught_up
        return step.is_caught_up

    def assess(self, now: float) -> bool:  # noqa: ARG002 - slice
        """Not yet."""
        return False

    def deliver(self, now: float) -> None:
        """Not yet."""

    def snapshot(self, now: float, health: Health) -> Snapshot:
        """The moment."""
        return Snapshot(
            at=now,
            health=health,
            counters=self._journey.counters,
            behind_s=0.0 if self._is_caught_up else max(0.0, now - self._journey.cursor.latest_at),
            last_step_at=self._last_step_at,
        )
