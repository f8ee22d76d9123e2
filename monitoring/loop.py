"""
The sidecar's own thread: reads, measures, decides and delivers, turn after turn. It alone touches the state.

A log that cannot be read and a state that cannot be written are waited for; anything else ends the loop, and with it
the process, so that whoever started it hears of it.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from monitoring.errors import LogUnavailable
from monitoring.snapshot import Health, Snapshot, Watched
from monitoring.telemetry import Telemetry

log = logging.getLogger(__name__)


class Turning(Protocol):
    """What is turned: ``monitor.Monitor``."""

    def take_in(self, now: float) -> bool:
        """One chunk of the log; whether all was read. Raises LogUnavailable or sqlite3.Error."""

    def assess(self, now: float) -> bool:
        """Measure and decide; whether there was anything new. Raises sqlite3.Error."""

    def deliver(self, now: float) -> None:
        """Hand out what is due and take back what is done. Raises sqlite3.Error."""

    def snapshot(self, now: float, health: Health) -> Snapshot:
        """The moment."""


@dataclass(frozen=True)
class Pace:
    """How often."""

    poll_s: float
    """Between looks at a log that was read to its end."""
    assess_s: float


class Loop:
    """Started once, stopped once."""

    def __init__(
        self,
        turning: Turning,
        watched: Watched,
        telemetry: Telemetry,
        pace: Pace,
        clock: Callable[[], float],
        on_death: Callable[[], None],
    ) -> None:
        """``clock`` gives Unix time; ``on_death`` is called from the thread when it ends by an error."""
        self._turning = turning
        self._watched = watched
        self._telemetry = telemetry
        self._pace = pace
        self._clock = clock
        self._on_death = on_death
        self._health = Health()
        self._assess_at = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor-loop")
        self.has_died = False
        """Ended by an error."""

    def start(self) -> None:
        """Begin turning."""
        self._watched.is_alive = True
        self._thread.start()

    def stop(self) -> None:
        """End after the turn under way, which is at most a chunk and an assessment; returns when it has."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def turn(self) -> bool:
        """One turn; whether there is time until the next poll."""
        now = self._clock()
        is_caught_up = self._read(now)
        try:
            if now >= self._assess_at:
                self._assess(now)
            self._turning.deliver(now)
            if not self._health.is_state_writable and is_caught_up is not None:
                log.info("the state can be written again")
                self._health = Health(self._health.log, self._health.log_problem)
        except sqlite3.Error as error:
            self._note_state(error)
        self._watched.snapshot = self._turning.snapshot(now, self._health)
        self._watched.turned_at = time.monotonic()
        return is_caught_up is not False

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                if self.turn():
                    self._stopped.wait(self._pace.poll_s)
        except BaseException as error:
            self.has_died = True
            log.critical("the loop died: %s", error, exc_info=error)
            self._on_death()
        finally:
            self._watched.is_alive = False

    def _read(self, now: float) -> bool | None:
        """Whether all was read; None when nothing could be."""
        began = time.perf_counter()
        try:
            is_caught_up = self._turning.take_in(now)
        except LogUnavailable as error:
            self._note_log(error)
            return None
        except sqlite3.Error as error:
            self._note_state(error)
            return None
        self._telemetry.record_step(time.perf_counter() - began)
        if self._health.log != "available":
            log.info("the event log can be read")
            self._health = Health("available", None, self._health.is_state_writable, self._health.state_problem)
        return is_caught_up

    def _assess(self, now: float) -> None:
        began = time.perf_counter()
        if self._turning.assess(now):
            self._telemetry.record_assessment(time.perf_counter() - began)
        self._assess_at = self._clock() + self._pace.assess_s

    def _note_log(self, error: LogUnavailable) -> None:
        self._telemetry.record_log_failure()
        if self._health.log != "unavailable":
            log.warning("waiting for the event log: %s", error)
        self._health = Health("unavailable", str(error), self._health.is_state_writable, self._health.state_problem)

    def _note_state(self, error: sqlite3.Error) -> None:
        if self._health.is_state_writable:
            log.error("the state cannot be written; nothing is lost, it is tried again: %s", error)
        self._health = Health(self._health.log, self._health.log_problem, False, str(error))
