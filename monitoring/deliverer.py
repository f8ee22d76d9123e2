"""
Runs actions on threads of their own, so that one that hangs or fails holds up no other.

Each action has one slot, and what is asked of it runs there in order, one at a time: the slots cannot run out. Threads
are daemons: an action that does not come back does not keep the process from ending, and its request is due again.
"""

import logging
import threading
from collections.abc import Mapping
from queue import Empty, SimpleQueue

from monitoring.errors import HookFailed
from monitoring.remedies import Action, ActionRequest, ActionResult
from monitoring.windows import Window

log = logging.getLogger(__name__)

_Ended = SimpleQueue[tuple[str, ActionResult | HookFailed]]


class Deliverer:
    """Called from one thread; no method but ``close`` waits."""

    def __init__(self, actions: Mapping[str, Action]) -> None:
        """``actions`` by name, as in ``failure_modes.toml``; two names of one object may run it twice at once."""
        self._ended: _Ended = SimpleQueue()
        self._slots = {name: _Slot(name, action, self._ended) for name, action in actions.items()}
        self._running: dict[str, str] = {}
        """Action by key."""

    def start(self, request: ActionRequest, window: Window) -> None:
        """Run it, after what its slot has; ``finished`` tells the end. A key that runs already is not started again."""
        if request.key in self._running:
            return
        self._running[request.key] = request.action
        slot = self._slots.get(request.action)
        if slot is None:
            # Asked for by an older tree whose state this process goes on from.
            missing = ActionResult("failed", f"nothing here does {request.action}")
            self._ended.put((request.key, missing))
        else:
            slot.put(request, window)

    def finished(self) -> list[tuple[str, ActionResult | HookFailed]]:
        """By key, what has come to an end since the last call."""
        ended: list[tuple[str, ActionResult | HookFailed]] = []
        while True:
            try:
                key, outcome = self._ended.get_nowait()
            except Empty:
                return ended
            del self._running[key]
            ended.append((key, outcome))

    def is_running(self, key: str) -> bool:
        """Whether it was started and ``finished`` has not told its end."""
        return key in self._running

    def is_busy(self, action: str) -> bool:
        """Whether the slot of an action is taken; a further request would wait behind it."""
        return action in self._running.values()

    def close(self, wait_s: float = 5.0) -> list[str]:
        """
        Start nothing more, and wait so long for what runs; actions that still run then. Hooks are closed first by
        whoever made them, so that their commands end.
        """
        for slot in self._slots.values():
            slot.close()
        return [name for name, slot in self._slots.items() if not slot.ends_within(wait_s)]


class _Slot:
    """One action and its thread, which starts with the first request."""

    def __init__(self, name: str, action: Action, ended: _Ended) -> None:
        self._action = action
        self._ended = ended
        self._waiting: SimpleQueue[tuple[ActionRequest, Window] | None] = SimpleQueue()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"action-{name}", daemon=True)

    def put(self, request: ActionRequest, window: Window) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._waiting.put((request, window))

    def close(self) -> None:
        self._is_closed.set()
        self._waiting.put(None)

    def ends_within(self, wait_s: float) -> bool:
        if self._thread.ident is not None:
            self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (asked := self._waiting.get()) is not None and not self._is_closed.is_set():
            request, window = asked
            self._ended.put((request.key, _outcome(self._action, request, window)))


def _outcome(action: Action, request: ActionRequest, window: Window) -> ActionResult | HookFailed:
    try:
        result: object = action.run(request, window)
    except HookFailed as failed:
        return failed
    except BaseException as error:
        # Whatever it is, SystemExit included: a slot outlives its action, and the outbox hears why.
        log.exception("action %s broke", request.action, extra={"key": request.key})
        return HookFailed(f"{type(error).__name__}: {error}")
    if not isinstance(result, ActionResult):
        return HookFailed(f"{request.action} gave {type(result).__name__}, not a result")
    return result
