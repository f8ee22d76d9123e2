"""
The micro-batcher: concurrent requests in, one pass of the engine for those that wait together, answers to each caller.

    submit (event loop) -> waiting -> worker thread: choose, infer, finish -> one wake-up of the event loop -> answers

There is no window to fill: an idle worker starts at once with what is there, and while workers are busy the next
micro-batch gathers by itself.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

from model_repo.contract.outputs import ModelOutputs
from service.batch_policy import BatchLimits, choose
from service.errors import BackendFailed, DeadlinePassed, Overloaded, ServiceError, ShuttingDown

log = logging.getLogger(__name__)


class Tokenized(Protocol):
    """What a queued item must have; everything else about it is the business of ``finish``."""

    @property
    def token_ids(self) -> Sequence[int]:
        """1 or more ids."""


@dataclass(frozen=True)
class BatchTimings:
    """Where the time of one micro-batch went."""

    queue_ms: tuple[float, ...]
    """For each item, from ``submit`` to the moment a worker took it."""
    inference_ms: float
    """The pass of the engine that all items of the batch share."""


Item = TypeVar("Item", bound=Tokenized)
Answer = TypeVar("Answer")
Infer = Callable[[Sequence[Sequence[int]]], ModelOutputs]
Finish = Callable[[Sequence[Item], ModelOutputs, BatchTimings], Sequence[Answer]]


class _Waiting(Generic[Item, Answer]):
    """One submitted item and the future its caller awaits."""

    __slots__ = ("future", "item", "since")

    def __init__(self, item: Item, future: "asyncio.Future[Answer]", since: float) -> None:
        self.item = item
        self.future = future
        self.since = since


class Batcher(Generic[Item, Answer]):
    """
    Queues items for one model and runs them in micro-batches on its own worker threads.

    ``submit``, ``start`` and ``close`` belong to the event loop that called ``start``. ``infer`` and ``finish`` run on
    the worker threads, several at once when there are several workers. ``finish`` gets the items of a batch in the
    order of the outputs' rows and gives one answer each; what it raises fails the batch like a failing engine.
    """

    def __init__(
        self,
        infer: Infer,
        finish: Finish[Item, Answer],
        limits: BatchLimits,
        *,
        max_waiting: int = 512,
        workers: int = 1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """
        ``max_waiting`` bounds the queue, without what the workers hold; beyond it ``submit`` raises Overloaded.
        ``clock`` gives seconds and is read for timings only.
        """
        for name, value in (("max_waiting", max_waiting), ("workers", workers)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self._infer = infer
        self._finish = finish
        self.limits = limits
        """May be replaced at any time; a choice of what goes together reads it once."""
        self._max_waiting = max_waiting
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[_Waiting[Item, Answer]] = []
        self._idle = 0
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._closing = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batcher-{number}", daemon=True) for number in range(workers)
        ]
        self._running = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None

    def start(self) -> None:
        """Start the workers; call once, on the event loop that will submit."""
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._running = len(self._threads)
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Items that no worker has taken yet."""
        return len(self._waiting)

    @property
    def is_working(self) -> bool:
        """False before ``start``, after ``close``, and when every worker has died."""
        return self._running > 0

    async def submit(self, item: Item, timeout_s: float | None = None) -> Answer:
        """
        The answer that ``finish`` gave for this item.

        Raises BackendFailed, Overloaded, DeadlinePassed after ``timeout_s`` seconds, or ShuttingDown. A caller that
        is cancelled while it waits takes no batch slot.
        """
        loop = self._loop
        if loop is None:
            raise ShuttingDown("the batcher has not been started")
        future: asyncio.Future[Answer] = loop.create_future()
        self._enqueue(_Waiting(item, future, self._clock()))
        if timeout_s is None:
            return await future
        timer = loop.call_later(timeout_s, _expire, future, timeout_s)
        try:
            return await future
        finally:
            timer.cancel()

    async def close(self, timeout_s: float = 10.0) -> None:
        """Answer what waits, then stop the workers. What is unanswered after ``timeout_s`` fails with ShuttingDown."""
        with self._lock:
            self._closing = True
        for _ in self._threads:
            self._wake.put(None)
        if self._stopped is None or not self.is_working:
            return
        try:
            await asyncio.wait_for(self._stopped.wait(), timeout_s)
        except TimeoutError:
            with self._lock:
                left, self._waiting = self._waiting, []
            _fail(left, ShuttingDown(f"not answered within the {timeout_s} s given to close"))

    def _enqueue(self, waiting: _Waiting[Item, Answer]) -> None:
        with self._lock:
            if self._closing or not self._running:
                raise ShuttingDown("the batcher is closing or has no worker left")
            if len(self._waiting) >= self._max_waiting:
                self._drop_departed()
                if len(self._waiting) >= self._max_waiting:
                    raise Overloaded(f"{len(self._waiting)} utterances wait, at most {self._max_waiting} may")
            self._waiting.append(waiting)
            wake = self._idle > 0
            self._idle -= wake
        if wake:
            self._wake.put(None)

    # What follows runs on the worker threads.

    def _work(self) -> None:
        try:
            while self._work_once():
                pass
        except BaseException:
            # Nothing stands above a thread to raise to; `_leave` tells everybody whom it concerns.
            log.exception("a batcher worker died")
        finally:
            self._leave()

    def _work_once(self) -> bool:
        """Run one micro-batch, or sleep until there may be one; False when it is time to stop."""
        with self._lock:
            batch = self._take()
            if not batch:
                if self._closing:
                    return False
                self._idle += 1
        if batch:
            self._run(batch)
        else:
            self._wake.get()
        return True

    def _take(self) -> list[_Waiting[Item, Answer]]:
        """Under the lock: remove the next micro-batch from the queue."""
        self._drop_departed()
        waiting, limits = self._waiting, self.limits
        chosen = choose([len(one.item.token_ids) for one in waiting[: limits.look_ahead]], limits)
        batch = [waiting[index] for index in chosen]
        if len(chosen) == len(waiting):
            self._waiting = []
        else:
            for index in reversed(chosen):
                del waiting[index]
        return batch

    def _drop_departed(self) -> None:
        """Under the lock: forget callers that were cancelled or timed out, so that they take no batch slot."""
        if any(one.future.done() for one in self._waiting):
            self._waiting = [one for one in self._waiting if not one.future.done()]

    def _run(self, batch: list[_Waiting[Item, Answer]]) -> None:
        taken = self._clock()
        items = [one.item for one in batch]
        try:
            outputs = self._infer([item.token_ids for item in items])
            inference_ms = (self._clock() - taken) * 1e3
            timings = BatchTimings(tuple((taken - one.since) * 1e3 for one in batch), inference_ms)
            answers = list(self._finish(items, outputs, timings))
            if len(answers) != len(batch):
                raise ValueError(f"finish gave {len(answers)} answers for {len(batch)} items")
        except BackendFailed as error:
            self._notify(_fail, batch, error)
        except Exception as error:
            log.exception("a micro-batch of %d failed", len(batch))
            self._notify(_fail, batch, BackendFailed(f"{type(error).__name__}: {error}"))
        except BaseException:
            self._notify(_fail, batch, BackendFailed("the worker of this micro-batch died"))
            raise
        else:
            self._notify(_resolve, batch, answers)

    def _leave(self) -> None:
        """The last worker to go, for whatever reason, leaves nobody waiting for ever."""
        with self._lock:
            self._running -= 1
            last = self._running == 0
            left: list[_Waiting[Item, Answer]] = []
            if last:
                left, self._waiting = self._waiting, []
        if left:
            self._notify(_fail, left, ShuttingDown("the batcher has no worker left"))
        if last and self._stopped is not None:
            self._notify(self._stopped.set)

    def _notify(self, callback: Callable[..., object], *args: object) -> None:
        """Run a callback on the event loop; once for a whole batch, since each wake-up costs tens of microseconds."""
        loop = self._loop
        if loop is None:
            raise RuntimeError("a worker runs before the batcher was started")
        try:
            loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            # The event loop is closed: nobody awaits these futures any more.
            log.warning("the event loop closed before a micro-batch was answered")


def _resolve(batch: Sequence[_Waiting[Item, Answer]], answers: Sequence[Answer]) -> None:
    for one, answer in zip(batch, answers, strict=True):
        if not one.future.done():
            one.future.set_result(answer)


def _fail(batch: Sequence[_Waiting[Item, Answer]], error: ServiceError) -> None:
    # An exception of its own for each caller: a shared one would gather the tracebacks of all of them.
    for one in batch:
        if not one.future.done():
            own = type(error)(*error.args)
            own.__cause__ = error
            one.future.set_exception(own)


def _expire(future: "asyncio.Future[Answer]", timeout_s: float) -> None:
    if not future.done():
        future.set_exception(DeadlinePassed(f"no answer within {timeout_s * 1e3:.0f} ms"))
