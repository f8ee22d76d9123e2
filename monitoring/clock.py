"""Unix time that never goes back while the process runs."""

import time
from collections.abc import Callable


class SteadyClock:
    """
    The system's clock, but for its steps back: those are passed over at the pace of the monotonic one.

    Waits and cooldowns are counted in this time, so a clock that is set back by a day does not stop the outbox for a
    day. A clock that is set forward is followed.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._latest, self._at = wall(), monotonic()

    def __call__(self) -> float:
        """Seconds since 1970, at least as many as at any call before."""
        elapsed = self._monotonic() - self._at
        self._at += elapsed
        self._latest = max(self._wall(), self._latest + elapsed)
        return self._latest
