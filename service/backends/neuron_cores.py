"""
One executor thread for each NeuronCore, one queue for all of them.

A call that raises, or that does not come back in time, costs its core: the core takes nothing more, and the call is
tried once on another. Without a core left every waiter fails at once and the owner is told.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from model_repo.contract.outputs import ModelOutputs
from service.errors import BackendFailed

log = logging.getLogger(__name__)

Work = Callable[[int], ModelOutputs]
"""A pass of the model on the core of that number."""
MAX_TRIES = 2


class _Job:
    """One pass that somebody waits for. Guarded by the pool's lock, but for the event."""

    __slots__ = ("began", "core", "error", "outputs", "settled", "tries", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.tries = 0
        self.core: int | None = None
        self.began = 0.0
        self.outputs: ModelOutputs | None = None
        self.error: BackendFailed | None = None
        self.settled = threading.Event()


class CorePool:
    """``run`` may be called from several threads at once; the pool's threads are daemons, since one may be stuck."""

    def __init__(
        self,
        cores: int,
        on_dead: Callable[[str], None],
        *,
        stall_s: float = 5.0,
        poll_s: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        ``on_dead`` is called once, with the reason, when the last core is lost. A call is stalled after ``stall_s``
        of ``clock``, which is read every ``poll_s`` real seconds while somebody waits.
        """
        self._on_dead = on_dead
        self._stall_s = stall_s
        self._poll_s = poll_s
        self._clock = clock
        self._changed = threading.Condition()
        self._queue: deque[_Job] = deque()
        self._running: dict[int, _Job] = {}
        self._good = set(range(cores))
        self._closed = False
        for core in range(cores):
            threading.Thread(target=self._serve, args=(core,), name=f"neuron-core-{core}", daemon=True).start()

    @property
    def good_cores(self) -> tuple[int, ...]:
        """Those that still take work."""
        with self._changed:
            return tuple(sorted(self._good))

    def run(self, works: Sequence[Work]) -> list[ModelOutputs]:
        """Results in order; the passes run side by side where cores are free. Raises BackendFailed."""
        jobs = [_Job(work) for work in works]
        with self._changed:
            self._refuse_when_gone()
            self._queue.extend(jobs)
            self._changed.notify_all()
        return [self._wait(job) for job in jobs]

    def close(self) -> None:
        """Stop the threads; one that is stuck in a call is left behind."""
        with self._changed:
            self._closed = True
            self._fail_queue("the backend is closed")
            self._changed.notify_all()

    def _refuse_when_gone(self) -> None:
        if self._closed:
            raise BackendFailed("neuron: the backend is closed")
        if not self._good:
            raise BackendFailed("neuron: every core has failed")

    def _wait(self, job: _Job) -> ModelOutputs:
        while not job.settled.wait(self._poll_s):
            self._give_up_stalled()
        if job.outputs is None:
            raise job.error or BackendFailed("neuron: a pass ended without outputs")
        return job.outputs

    def _give_up_stalled(self) -> None:
        with self._changed:
            now = self._clock()
            stalled = [(core, job) for core, job in self._running.items() if now - job.began > self._stall_s]
            dead = [self._lose(core, job, f"no answer within {self._stall_s} s") for core, job in stalled]
        self._tell(dead)

    # What follows runs on the cores' threads, `_lose` also on those that wait.

    def _serve(self, core: int) -> None:
        while (job := self._take(core)) is not None:
            try:
                outputs = job.work(core)
            except BackendFailed as refused:
                # The core computed; what it gave must not become decisions. Another core would give the same.
                self._settle(core, job, error=refused)
            except Exception as error:
                log.exception("neuron core %d failed", core)
                with self._changed:
                    dead = self._lose(core, job, f"{type(error).__name__}: {error}")
                self._tell([dead])
            else:
                self._settle(core, job, outputs=outputs)

    def _take(self, core: int) -> _Job | None:
        """The next job; None when this core is to stop."""
        with self._changed:
            while core in self._good and not self._closed and not self._queue:
                self._changed.wait()
            if self._closed or core not in self._good:
                return None
            job = self._queue.popleft()
            job.tries += 1
            job.core, job.began = core, self._clock()
            self._running[core] = job
            return job

    def _settle(
        self, core: int, job: _Job, outputs: ModelOutputs | None = None, error: BackendFailed | None = None
    ) -> None:
        with self._changed:
            if self._running.get(core) is not job:
                # Given up as stalled meanwhile: its waiter has an answer from elsewhere, or an error.
                return
            del self._running[core]
            job.outputs, job.error = outputs, error
            job.settled.set()

    def _lose(self, core: int, job: _Job, why: str) -> str | None:
        """Under the lock: take a core out and try its job elsewhere; the reason when it was the last core."""
        if self._running.get(core) is not job:
            return None
        del self._running[core]
        self._good.discard(core)
        if self._good and job.tries < MAX_TRIES:
            self._queue.appendleft(job)
        else:
            job.error = BackendFailed(f"neuron: core {core}: {why}")
            job.settled.set()
        if not self._good:
            self._fail_queue("every core has failed")
        self._changed.notify_all()
        return None if self._good else f"the last core, {core}, is lost: {why}"

    def _fail_queue(self, why: str) -> None:
        for job in self._queue:
            job.error = BackendFailed(f"neuron: {why}")
            job.settled.set()
        self._queue.clear()

    def _tell(self, reasons: Sequence[str | None]) -> None:
        for reason in reasons:
            if reason is not None:
                log.critical("neuron: %s", reason)
                self._on_dead(reason)
