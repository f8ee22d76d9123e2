"""A monitor over a real log and state, with signals and actions that a test decides."""

from collections.abc import Mapping

import numpy as np

from monitoring.alerts import AlertRules
from monitoring.assessment import Assessment
from monitoring.course import WaitRule
from monitoring.errors import HookFailed
from monitoring.failure_tree import load
from monitoring.incident_store import OutboxRules
from monitoring.journey import Journey
from monitoring.label_join import Joined
from monitoring.monitor import Monitor, Rules
from monitoring.observations import StreamKey
from monitoring.remedies import ActionRequest, ActionResult
from monitoring.segments import SegmentFinding
from monitoring.signals import Signal, Verdict
from monitoring.snapshot import Health, Snapshot
from monitoring.state_file import StateFile
from monitoring.telemetry import Telemetry
from monitoring.windows import StreamWindows, Window
from tests.monitoring.event_logs import BEGAN, WrittenLog, prediction, taxonomy_of

TREE = load()
DONE = ActionResult("done", "done as asked")


def measured(name: str, verdict: Verdict, n: int = 1000) -> Signal:
    """A signal with a value that suits its verdict: back at the reference, or twice its threshold worse."""
    watch = TREE.watches[name]
    worse = 2 * watch.threshold if verdict is Verdict.BREACHED else 0.0
    value = 0.5 - worse if watch.worse == "down" else 0.5 + worse
    return Signal(name, value, value, value, n, verdict, 0.5, watch.threshold)


class DecidedWatches:
    """Signals as a test says; remembers what was asked of it."""

    def __init__(self) -> None:
        self.signals: dict[str, Signal] = {}
        self.segments: tuple[SegmentFinding, ...] = ()
        self.restarted: list[StreamKey] = []
        self.followed = 0
        self.heard: list[str] = []

    def say(self, *signals: Signal) -> None:
        """What is measured from now on."""
        self.signals = {signal.name: signal for signal in signals}

    def follow(self, joined: Joined) -> Mapping[str, bytes]:
        """See Watches."""
        self.heard.append("follow")
        self.followed += sum(len(stream.predictions) for stream in joined.streams)
        return {"watches": str(self.followed).encode()}

    def take_over(self) -> None:
        """See Watches."""
        self.heard.append("take over")

    def roll_back(self) -> None:
        """See Watches."""
        self.heard.append("roll back")

    def pin_due(self, windows: StreamWindows) -> Mapping[str, bytes]:
        """Never."""
        return {}

    def restart(self, key: StreamKey, windows: StreamWindows) -> Mapping[str, bytes]:
        """See Watches."""
        self.restarted.append(key)
        return {"watches": b"restarted"}

    def assess(self, windows: StreamWindows, now: float, extra: Mapping[str, Signal]) -> Assessment:
        """See Watches."""
        return Assessment(windows.key, now, {**self.signals, **extra}, self.segments, 1, 0, "production")


class HandDeliverer:
    """Actions come to an end when a test says so."""

    def __init__(self) -> None:
        self.started: list[ActionRequest] = []
        self.windows: list[Window] = []
        self.is_full = False
        """Takes nothing more."""
        self._ended: list[tuple[str, ActionResult | HookFailed]] = []
        self._running: set[str] = set()

    def start(self, request: ActionRequest, window: Window) -> None:
        """See Deliverer."""
        self.started.append(request)
        self._running.add(request.key)
        self.windows.append(window)

    def finished(self) -> list[tuple[str, ActionResult | HookFailed]]:
        """See Deliverer."""
        ended, self._ended = self._ended, []
        self._running -= {key for key, _ in ended}
        return ended

    def is_busy(self, action: str) -> bool:
        """See Deliverer."""
        return self.is_full or any(key.endswith(f"-{action}") for key in self._running)

    def end(self, outcome: ActionResult | HookFailed = DONE) -> None:
        """The one that was started last comes to an end."""
        self._ended.append((self.started[-1].key, outcome))

    @property
    def keys(self) -> list[str]:
        """Of what was started, in order, without the incident's time."""
        return [request.key.split("/")[1] for request in self.started]


class Monitored:
    """The monitor, and time that a test moves: a second a turn."""

    def __init__(
        self,
        log: WrittenLog,
        state: StateFile,
        now: float = BEGAN,
        acts: bool = True,
        waits: Mapping[str, WaitRule] | None = None,
        attempts: int = 3,
    ) -> None:
        self.log = log
        self.now = now
        self.watches = DecidedWatches()
        self.deliverer = HandDeliverer()
        self.telemetry = Telemetry(lambda: self.snapshot)
        self.serving: int | None = 1
        self.journey = Journey(log.path, state, taxonomy_of)
        self.monitor = Monitor(
            state,
            self.journey,
            TREE,
            self.watches,
            self.deliverer,
            Rules(
                AlertRules(begin_after=2, end_after=2, cooldown_s=0.0),
                OutboxRules(jitter=0.0, attempts=attempts),
                acts,
                waits or {},
            ),
            self.telemetry,
            lambda: self.serving,
            np.random.default_rng(0),
        )

    @property
    def snapshot(self) -> Snapshot:
        """The moment."""
        return self.monitor.snapshot(self.now, Health("available"))

    def open_count(self) -> int:
        """Incidents that have not ended."""
        return len(self.snapshot.open_incidents)

    def turn(self, count: int = 1, seconds: float = 1.0) -> None:
        """So many turns, each with one new prediction."""
        for _ in range(count):
            self.now += seconds
            self.log.predict(prediction(int(self.now * 10) % 10**9, at=self.now))
            self.monitor.take_in(self.now)
            self.monitor.assess(self.now)
            self.monitor.deliver(self.now)

    def metric(self, name: str, **labels: str) -> float | None:
        """A sample."""
        return self.telemetry.registry.get_sample_value(name, labels)
