"""Actions run one at a time each, none waits for another, and whatever they raise comes back as an outcome."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from model_repo.contract.labels import Taxonomy
from monitoring.deliverer import Deliverer
from monitoring.errors import HookFailed
from monitoring.hooks import WebhookHook
from monitoring.incident_store import IncidentStore, OutboxRules
from monitoring.observations import StreamKey, labelled_dtype, prediction_dtype
from monitoring.remedies import ActionRequest, ActionResult
from monitoring.state_file import StateFile
from monitoring.windows import Window
from tests.monitoring.webhook_receiver import NOW, SECRET, Clock, Receiver, WebhookServer

STREAM = StreamKey("3", "3.1", "champion")
DONE = ActionResult("done", "Done.")
WINDOW = Window(
    STREAM,
    Taxonomy(("a", "b")),
    np.zeros(0, dtype=prediction_dtype(2)),
    np.zeros(0, dtype=labelled_dtype(2)),
    np.empty((0, 0), dtype=np.float16),
)
LONGEST_S = 30.0
"""What no test takes; only one that fails waits so long."""


class GatedAction:
    """Runs until its gate opens; counts how many run at once."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.has_entered = threading.Semaphore(0)
        self.keys: list[str] = []
        self.at_once = self.most_at_once = 0

    def run(self, request: ActionRequest, window: Window) -> ActionResult:
        """See remedies.Action."""
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.has_entered.release()
        self.gate.wait(LONGEST_S)
        self.keys.append(request.key)
        self.at_once -= 1
        return DONE


class CallingAction:
    """Does what it was given."""

    def __init__(self, call: Callable[[], ActionResult]) -> None:
        self._call = call

    def run(self, request: ActionRequest, window: Window) -> ActionResult:
        """See remedies.Action."""
        return self._call()


def failing(error: BaseException) -> CallingAction:
    def fail() -> ActionResult:
        raise error

    return CallingAction(fail)


def asked(action: str, ordinal: int = 1) -> ActionRequest:
    return ActionRequest(f"i/{ordinal}-{action}", "i", action, STREAM, 0.0, (), (), None)


def outcomes(deliverer: Deliverer, count: int) -> dict[str, ActionResult | HookFailed]:
    """So many, once they have come."""
    got: dict[str, ActionResult | HookFailed] = {}
    give_up_at = time.monotonic() + LONGEST_S
    while len(got) < count and time.monotonic() < give_up_at:
        got.update(deliverer.finished())
        time.sleep(0.001)
    assert len(got) == count
    return got


@pytest.fixture
def hanging() -> Iterator[GatedAction]:
    """An action that hangs until the end of the test."""
    action = GatedAction()
    yield action
    action.gate.set()


def test_hanging_action_holds_up_no_other(hanging: GatedAction) -> None:
    """Nor do several: each action has its own slot, so that there is always one."""
    names = [f"hangs_{number}" for number in range(8)]
    deliverer = Deliverer({**dict.fromkeys(names, hanging), "quick": CallingAction(lambda: DONE)})
    for name in names:
        deliverer.start(asked(name), WINDOW)
    for number in range(20):
        deliverer.start(asked("quick", number), WINDOW)
        assert outcomes(deliverer, 1) == {f"i/{number}-quick": DONE}
    assert all(deliverer.is_running(f"i/1-{name}") for name in names)


def test_one_action_runs_once_at_a_time_and_in_order(hanging: GatedAction) -> None:
    """What is asked meanwhile waits in its slot, and counts as running."""
    deliverer = Deliverer({"retrain": hanging})
    for ordinal in (1, 2, 3):
        deliverer.start(asked("retrain", ordinal), WINDOW)
    assert hanging.has_entered.acquire(timeout=LONGEST_S)
    assert deliverer.is_busy("retrain")
    assert all(deliverer.is_running(f"i/{ordinal}-retrain") for ordinal in (1, 2, 3))
    hanging.gate.set()
    outcomes(deliverer, 3)
    assert hanging.keys == ["i/1-retrain", "i/2-retrain", "i/3-retrain"]
    assert hanging.most_at_once == 1
    assert not deliverer.is_busy("retrain")


def test_key_that_runs_is_not_started_again(hanging: GatedAction) -> None:
    """It may be due again while it runs; when it has come to an end it may be."""
    deliverer = Deliverer({"retrain": hanging})
    deliverer.start(asked("retrain"), WINDOW)
    deliverer.start(asked("retrain"), WINDOW)
    hanging.gate.set()
    outcomes(deliverer, 1)
    assert not deliverer.is_running("i/1-retrain")
    deliverer.start(asked("retrain"), WINDOW)
    outcomes(deliverer, 1)
    assert len(hanging.keys) == 2


def test_end_is_told_once(hanging: GatedAction) -> None:
    """And until it is told, the key counts as running."""
    deliverer = Deliverer({"quick": CallingAction(lambda: DONE)})
    deliverer.start(asked("quick"), WINDOW)
    assert deliverer.is_running("i/1-quick")
    assert outcomes(deliverer, 1) == {"i/1-quick": DONE}
    assert deliverer.finished() == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (HookFailed("busy", retry_after_s=7.0), "busy"),
        (ZeroDivisionError("in the fit"), "ZeroDivisionError: in the fit"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_whatever_is_raised_comes_back_and_the_slot_lives_on(error: BaseException, words: str) -> None:
    """To be tried again; what the other side asked for is kept."""
    deliverer = Deliverer({"retrain": failing(error)})
    for ordinal in (1, 2):
        deliverer.start(asked("retrain", ordinal), WINDOW)
        (failure,) = outcomes(deliverer, 1).values()
        assert isinstance(failure, HookFailed)
        assert str(failure) == words
        assert failure.retry_after_s == getattr(error, "retry_after_s", None)


def test_action_that_gives_no_result_has_failed() -> None:
    """It is not taken for done."""
    deliverer = Deliverer({"retrain": CallingAction(lambda: None)})  # type: ignore[arg-type, return-value]
    deliverer.start(asked("retrain"), WINDOW)
    (failure,) = outcomes(deliverer, 1).values()
    assert str(failure) == "retrain gave NoneType, not a result"


def test_action_that_nothing_does_is_a_failure_for_good() -> None:
    """As when the state is of another tree."""
    deliverer = Deliverer({})
    deliverer.start(asked("retrain"), WINDOW)
    assert outcomes(deliverer, 1) == {"i/1-retrain": ActionResult("failed", "nothing here does retrain")}


class TestClose:
    def test_it_waits_for_what_runs(self, hanging: GatedAction) -> None:
        """What it waits for can still be taken."""
        deliverer = Deliverer({"retrain": hanging, "idle": hanging})
        deliverer.start(asked("retrain"), WINDOW)
        assert hanging.has_entered.acquire(timeout=LONGEST_S)
        hanging.gate.set()
        assert deliverer.close(LONGEST_S) == []
        assert deliverer.finished() == [("i/1-retrain", DONE)]

    def test_it_names_what_does_not_end_and_starts_nothing_more(self, hanging: GatedAction) -> None:
        """Those behind it in the slot are not begun; they are due again after a start."""
        deliverer = Deliverer({"retrain": hanging})
        for ordinal in (1, 2):
            deliverer.start(asked("retrain", ordinal), WINDOW)
        assert hanging.has_entered.acquire(timeout=LONGEST_S)
        assert deliverer.close(0.0) == ["retrain"]
        hanging.gate.set()
        assert deliverer.close(LONGEST_S) == []
        assert hanging.keys == ["i/1-retrain"]


DELIVER_AND_DIE = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from monitoring.deliverer import Deliverer
from monitoring.hooks import WebhookHook
from monitoring.incident_store import IncidentStore, OutboxRules
from monitoring.state_file import StateFile

path, url, secret, now = sys.argv[1:]
state = StateFile(Path(path))
store = IncidentStore(state)
(row,) = store.due(float(now))
with state.transaction():
    store.record_attempt(row.request.key, float(now), OutboxRules(jitter=0.0), np.random.default_rng(0))
hook = WebhookHook(url, secret, 60.0, lambda: float(now))

class Send:
    def run(self, request, window):
        return hook.send(request, {})

deliverer = Deliverer({"retrain": Send()})
deliverer.start(row.request, None)
while not deliverer.finished():
    time.sleep(0.001)
# Delivered, and not yet recorded.
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_kill_between_delivery_and_record_delivers_again_under_the_same_key(tmp_path: Path) -> None:
    """A real process dies; the next one delivers again, and the receiver, which knows the key, does it once."""
    state_path, clock = tmp_path / "state.sqlite", Clock()
    receiver, rng = Receiver(clock), np.random.default_rng(0)
    request = asked("retrain")
    state = StateFile(state_path)
    with state.transaction():
        IncidentStore(state).put(request)
    state.close()
    with WebhookServer(receiver=receiver) as server:
        child = [sys.executable, "-c", DELIVER_AND_DIE, str(state_path), server.url, SECRET, str(NOW)]
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        run = subprocess.run(child, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == -signal.SIGKILL, run.stderr
        state = StateFile(state_path)
        store = IncidentStore(state)
        assert store.due(NOW + 4.9) == []
        (row,) = store.due(NOW + 5.0)
        assert (row.request, row.attempts) == (request, 1)
        with state.transaction():
            store.record_attempt(request.key, NOW + 5.0, OutboxRules(jitter=0.0), rng)
        hook = WebhookHook(server.url, SECRET, LONGEST_S, clock)
        deliverer = Deliverer({"retrain": CallingAction(lambda: hook.send(request, {}))})
        deliverer.start(row.request, WINDOW)
        (result,) = outcomes(deliverer, 1).values()
        assert isinstance(result, ActionResult)
        with state.transaction():
            assert store.record_result(request.key, result, NOW + 6.0).state == "done"
        assert store.due(NOW + 1e9) == []
        state.close()
    assert [headers["Idempotency-Key"] for headers, _ in server.got] == [request.key] * 2
    assert receiver.done == [request.key]
