"""The loop turns whatever the log and the state do, and ends loudly when it cannot."""

import sqlite3
import threading
from collections.abc import Callable

import pytest

from monitoring.clock import SteadyClock
from monitoring.errors import LogUnavailable
from monitoring.loop import Loop, Pace
from monitoring.snapshot import Health, Snapshot, Watched
from monitoring.telemetry import Telemetry


class Scripted:
    """What is turned: each call raises what the test put there, or goes well."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails: dict[str, BaseException] = {}
        self.chunks_left = 0
        self.has_turned = threading.Event()

    def take_in(self, now: float) -> bool:
        """See Turning."""
        self._call("take in")
        self.chunks_left -= 1
        return self.chunks_left <= 0

    def assess(self, now: float) -> bool:
        """See Turning."""
        self._call("assess")
        return True

    def deliver(self, now: float) -> None:
        """See Turning."""
        self._call("deliver")

    def snapshot(self, now: float, health: Health) -> Snapshot:
        """See Turning."""
        self.has_turned.set()
        return Snapshot(at=now, health=health)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise self.fails[name]


class Turned:
    """A loop over it, at a time that a test moves."""

    def __init__(self, on_death: Callable[[], None] = lambda: None) -> None:
        self.now = 1000.0
        self.scripted = Scripted()
        self.watched = Watched()
        self.telemetry = Telemetry(lambda: self.watched.snapshot)
        pace = Pace(poll_s=0.01, assess_s=5.0)
        self.loop = Loop(self.scripted, self.watched, self.telemetry, pace, lambda: self.now, on_death)

    def turn(self, seconds: float = 0.0) -> bool:
        """One turn, so much later; whether there is time until the next poll."""
        self.now += seconds
        self.scripted.calls.clear()
        return self.loop.turn()

    @property
    def health(self) -> Health:
        """As it was published."""
        return self.watched.snapshot.health


@pytest.fixture
def turned() -> Turned:
    """Nothing fails yet."""
    return Turned()


def test_assessing_has_its_own_pace(turned: Turned) -> None:
    """Reading and delivering are done every turn."""
    turned.turn()
    assert turned.scripted.calls == ["take in", "assess", "deliver"]
    turned.turn(4.0)
    assert turned.scripted.calls == ["take in", "deliver"]
    turned.turn(1.0)
    assert turned.scripted.calls == ["take in", "assess", "deliver"]


def test_a_backlog_is_read_without_pauses_and_assessed_on_the_way(turned: Turned) -> None:
    """After an outage the verdicts do not wait for the last of a million events."""
    turned.scripted.chunks_left = 3
    assert [turned.turn(5.0) for _ in range(3)] == [False, False, True]
    assert "assess" in turned.scripted.calls


def test_a_log_that_cannot_be_read_stops_nothing_else(turned: Turned) -> None:
    """It is counted and told, and what is due goes out meanwhile; once it can be read all is well again."""
    turned.scripted.fails["take in"] = LogUnavailable("events.sqlite cannot be read: locked")
    assert turned.turn()
    assert turned.scripted.calls == ["take in", "assess", "deliver"]
    assert (turned.health.log, turned.health.log_problem) == ("unavailable", "events.sqlite cannot be read: locked")
    assert turned.telemetry.registry.get_sample_value("monitor_log_failures_total") == 1.0
    assert turned.telemetry.registry.get_sample_value("monitor_log_available") == 0.0
    turned.scripted.fails.clear()
    turned.turn()
    assert turned.health == Health("available")
    assert turned.telemetry.registry.get_sample_value("monitor_log_available") == 1.0


@pytest.mark.parametrize("where", ["take in", "assess", "deliver"])
def test_a_state_that_cannot_be_written_is_waited_for(turned: Turned, where: str) -> None:
    """A full disk ends nothing; readiness tells."""
    turned.turn()
    turned.scripted.fails[where] = sqlite3.OperationalError("disk is full")
    assert turned.turn(5.0)
    assert (turned.health.is_state_writable, turned.health.state_problem) == (False, "disk is full")
    turned.scripted.fails.clear()
    turned.turn(5.0)
    assert turned.health == Health("available")


def test_an_unexpected_error_ends_the_loop_and_is_heard() -> None:
    """Whoever started it can start it again; a loop that is dead and looks alive is the worst."""
    heard = threading.Event()
    turned = Turned(heard.set)
    turned.scripted.fails["assess"] = ZeroDivisionError("a defect")
    turned.loop.start()
    assert heard.wait(timeout=30)
    turned.loop.stop()
    assert turned.loop.has_died
    assert not turned.watched.is_well()


def test_it_turns_until_it_is_stopped() -> None:
    """On a thread of its own."""
    turned = Turned()
    turned.loop.start()
    for _ in range(3):
        assert turned.scripted.has_turned.wait(timeout=30)
        turned.scripted.has_turned.clear()
    assert turned.watched.is_well()
    turned.loop.stop()
    assert not turned.loop.has_died
    assert not turned.watched.is_alive


def test_time_goes_on_when_the_clock_steps_back() -> None:
    """Waits are counted in this time: a step back of a day may not stop the outbox for a day."""
    wall, monotonic = [1000.0], [50.0]
    clock = SteadyClock(lambda: wall[0], lambda: monotonic[0])
    wall[0], monotonic[0] = 1010.0, 60.0
    assert clock() == 1010.0
    wall[0], monotonic[0] = 1010.0 - 86_400.0, 65.0
    assert clock() == 1015.0
    wall[0], monotonic[0] = 1020.0 - 86_400.0, 75.0
    assert clock() == 1025.0


def test_a_step_forward_is_followed() -> None:
    """As after the machine has slept."""
    wall = [1000.0]
    clock = SteadyClock(lambda: wall[0], lambda: 0.0)
    wall[0] = 9000.0
    assert clock() == 9000.0
