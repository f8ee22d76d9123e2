"""A lost core costs nobody an answer while another is left; without one, nobody waits for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from model_repo.contract.outputs import ModelOutputs
from service.backends.neuron_cores import CorePool, Work
from service.errors import BackendFailed

STALL_S = 5.0


class ManualClock:
    """Moves when a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Deaths:
    """Remembers what the pool told its owner."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.told = threading.Semaphore(0)

    def __call__(self, reason: str) -> None:
        self.reasons.append(reason)
        self.told.release()


def answer(number: float) -> ModelOutputs:
    """One row that can be told from others."""
    return ModelOutputs(np.full((1, 2), number), np.zeros(1), np.zeros((1, 1)))


def constant(number: float) -> Work:
    """A pass that always succeeds."""
    return lambda core: answer(number)


class FailsFirst:
    """A pass that raises the first ``times`` times, whichever core it is on."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.cores: list[int] = []

    def __call__(self, core: int) -> ModelOutputs:
        self.cores.append(core)
        if len(self.cores) <= self.times:
            raise RuntimeError("NRT_EXEC_HW_ERR")
        return answer(7)


class StallsFirst:
    """A pass that does not come back the first ``times`` times until it is let go."""

    def __init__(self, times: int = 1) -> None:
        self.times = times
        self.entered = threading.Semaphore(0)
        self.let_go = threading.Event()
        self.calls = 0

    def __call__(self, core: int) -> ModelOutputs:
        self.calls += 1
        if self.calls <= self.times:
            self.entered.release()
            assert self.let_go.wait(60)
            return answer(-1)
        return answer(7)


def make_pool(cores: int = 2, clock: ManualClock | None = None) -> tuple[CorePool, Deaths]:
    """A pool that looks for stalls often, by a clock that stands still."""
    deaths = Deaths()
    return CorePool(cores, deaths, stall_s=STALL_S, poll_s=0.01, clock=clock or ManualClock()), deaths


def test_results_come_in_the_order_of_the_work() -> None:
    """Though the cores finish as they like."""
    pool, _ = make_pool()
    results = pool.run([constant(number) for number in range(50)])
    assert [result.logits[0, 0] for result in results] == list(range(50))
    pool.close()


def test_both_cores_work_at_once() -> None:
    """Each of two passes waits for the other to have begun."""
    pool, _ = make_pool()
    both = threading.Barrier(2)

    def meet(core: int) -> ModelOutputs:
        both.wait(60)
        return answer(core)

    cores = {float(result.logits[0, 0]) for result in pool.run([meet, meet])}
    assert cores == {0.0, 1.0}
    pool.close()


def test_call_that_raises_is_answered_by_another_core() -> None:
    """The first core takes nothing more."""
    pool, deaths = make_pool()
    failing = FailsFirst(1)
    assert pool.run([failing])[0].logits[0, 0] == 7
    first, second = failing.cores
    assert pool.good_cores == (second,)
    assert first != second
    assert pool.run([constant(3)] * 4)[0].logits[0, 0] == 3
    assert deaths.reasons == []
    pool.close()


def test_call_that_raises_twice_fails_its_waiter() -> None:
    """It is not tried a third time, though a third core is left."""
    pool, deaths = make_pool(cores=3)
    failing = FailsFirst(9)
    with pytest.raises(BackendFailed, match="NRT_EXEC_HW_ERR"):
        pool.run([failing])
    assert len(failing.cores) == 2
    assert len(pool.good_cores) == 1
    assert deaths.reasons == []
    pool.close()


def test_last_core_lost_is_told_once_and_fails_everybody() -> None:
    """Those that wait and those that come later."""
    pool, deaths = make_pool()
    with pytest.raises(BackendFailed):
        pool.run([FailsFirst(9), *[constant(1)] * 5, FailsFirst(9)])
    with pytest.raises(BackendFailed, match="every core has failed"):
        pool.run([constant(1)])
    assert pool.good_cores == ()
    # The core's own thread tells, after its waiter has the error.
    assert deaths.told.acquire(timeout=60)
    assert len(deaths.reasons) == 1
    assert "NRT_EXEC_HW_ERR" in deaths.reasons[0]


def test_stalled_call_is_answered_by_another_core() -> None:
    """After the stall time of the clock; the late answer of the stalled core is dropped."""
    clock = ManualClock()
    pool, deaths = make_pool(clock=clock)
    stalling = StallsFirst()
    with ThreadPoolExecutor(1) as caller:
        waiting = caller.submit(pool.run, [stalling])
        assert stalling.entered.acquire(timeout=60)
        clock.now += STALL_S + 1
        assert waiting.result(60)[0].logits[0, 0] == 7
    stalling.let_go.set()
    assert len(pool.good_cores) == 1
    assert pool.run([constant(2)])[0].logits[0, 0] == 2
    assert deaths.reasons == []
    pool.close()


def test_every_core_stalled_fails_the_waiter() -> None:
    """With the time that it was given."""
    clock = ManualClock()
    pool, deaths = make_pool(clock=clock)
    stalling = StallsFirst(times=2)
    with ThreadPoolExecutor(1) as caller:
        waiting = caller.submit(pool.run, [stalling])
        for _ in range(2):
            assert stalling.entered.acquire(timeout=60)
            clock.now += STALL_S + 1
        with pytest.raises(BackendFailed, match=r"no answer within 5\.0 s"):
            waiting.result(60)
    stalling.let_go.set()
    assert len(deaths.reasons) == 1


def test_outputs_that_must_not_be_used_cost_no_core() -> None:
    """Another core would give the same; only this batch fails."""
    pool, _ = make_pool()

    def nan(core: int) -> ModelOutputs:
        raise BackendFailed("a logit is NaN")

    with pytest.raises(BackendFailed, match="NaN"):
        pool.run([nan])
    assert pool.good_cores == (0, 1)
    pool.close()


def test_closed_pool_takes_nothing() -> None:
    """Rather than wait for ever."""
    pool, _ = make_pool()
    pool.close()
    with pytest.raises(BackendFailed, match="closed"):
        pool.run([constant(1)])
