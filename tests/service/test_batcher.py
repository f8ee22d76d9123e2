"""Every answer reaches its caller, at once when idle, and whatever fails fails for those it concerns only."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from model_repo.contract.outputs import ModelOutputs
from service.batch_policy import BatchLimits
from service.batcher import Batcher, BatchTimings, Infer
from service.errors import BackendFailed, DeadlinePassed, Overloaded, ServiceError, ShuttingDown

PATIENCE_S = 30.0
"""Only ends a test that hangs."""

LIMITS = BatchLimits()


@dataclass(frozen=True)
class Utterance:
    """A queued item."""

    token_ids: tuple[int, ...]
    name: str = ""


class ManualClock:
    """Time moves when the test moves it."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


class EchoEngine:
    """Outputs encode the input: the first logit is the sum of the ids. Remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self._lock = threading.Lock()

    def infer(self, utterances: Sequence[Sequence[int]]) -> ModelOutputs:
        with self._lock:
            self.batches.append([sum(ids) for ids in utterances])
            self.threads.add(threading.current_thread().name)
        sums = np.array([[float(sum(ids))] for ids in utterances])
        return ModelOutputs(sums, sums[:, 0], sums)


class GatedEngine(EchoEngine):
    """Holds each batch until the test lets it through."""

    def __init__(self) -> None:
        super().__init__()
        self._entered = threading.Semaphore(0)
        self._gate = threading.Semaphore(0)

    def infer(self, utterances: Sequence[Sequence[int]]) -> ModelOutputs:
        self._entered.release()
        assert self._gate.acquire(timeout=PATIENCE_S)
        return super().infer(utterances)

    async def has_begun(self) -> None:
        """Wait until one more batch is inside."""
        assert await asyncio.to_thread(self._entered.acquire, timeout=PATIENCE_S)

    def let_through(self, batches: int = 1) -> None:
        """Allow this many batches."""
        for _ in range(batches):
            self._gate.release()


class BrokenEngine(GatedEngine):
    """Fails while ``error`` is set."""

    error: BaseException | None = None

    def infer(self, utterances: Sequence[Sequence[int]]) -> ModelOutputs:
        outputs = super().infer(utterances)
        if self.error is not None:
            raise self.error
        return outputs


def echo(items: Sequence[Utterance], outputs: ModelOutputs, timings: BatchTimings) -> list[tuple[str, float]]:
    """Answer: the item's name with the number that the engine gave for its row."""
    assert len(items) == len(outputs) == len(timings.queue_ms)
    return [(item.name, float(row[0])) for item, row in zip(items, outputs.logits, strict=True)]


@asynccontextmanager
async def running(
    infer: Infer,
    finish: Callable[[Sequence[Utterance], ModelOutputs, BatchTimings], Sequence[tuple[str, float]]] = echo,
    limits: BatchLimits = LIMITS,
    max_waiting: int = 512,
    workers: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> AsyncIterator[Batcher[Utterance, tuple[str, float]]]:
    """A started batcher, closed at the end."""
    batcher = Batcher(infer, finish, limits, max_waiting=max_waiting, workers=workers, clock=clock)
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.close(PATIENCE_S)


async def until_waiting(batcher: Batcher[Utterance, tuple[str, float]], count: int) -> None:
    """Let the submitting tasks run until so many items wait."""
    while batcher.waiting < count:  # noqa: ASYNC110 - the tasks that fill the queue run meanwhile
        await asyncio.sleep(0)


Held = tuple["asyncio.Task[tuple[str, float]]", list["asyncio.Task[tuple[str, float]]"]]


async def hold_one_and_queue(
    engine: GatedEngine, batcher: Batcher[Utterance, tuple[str, float]], values: Sequence[int]
) -> Held:
    """One item inside the engine and the others waiting behind it, in order."""
    inside = asyncio.create_task(batcher.submit(Utterance((1000,), "inside")))
    await engine.has_begun()
    behind = [asyncio.create_task(batcher.submit(Utterance((value,), str(value)))) for value in values]
    await until_waiting(batcher, len(values))
    return inside, behind


class TestAnswers:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_every_answer_reaches_the_caller_who_asked(self, workers: int) -> None:
        """A thousand callers with distinct utterances of many lengths: no cross-talk."""
        engine = EchoEngine()

        async def ask_all() -> None:
            async with running(engine.infer, limits=BatchLimits(40, 8), max_waiting=1000, workers=workers) as batcher:
                items = [Utterance((value, *[0] * (value % 37)), f"u{value}") for value in range(1000)]
                answers = await asyncio.gather(*(batcher.submit(item) for item in items))
            assert answers == [(f"u{value}", float(value)) for value in range(1000)]

        asyncio.run(ask_all())
        assert max(map(len, engine.batches)) <= 8

    def test_inference_and_finish_run_off_the_event_loop(self) -> None:
        """On the batcher's own threads."""
        engine, finish_threads = EchoEngine(), set[str]()

        def finish(items: Sequence[Utterance], outputs: ModelOutputs, timings: BatchTimings) -> list[tuple[str, float]]:
            finish_threads.add(threading.current_thread().name)
            return echo(items, outputs, timings)

        async def ask() -> None:
            async with running(engine.infer, finish) as batcher:
                await batcher.submit(Utterance((1,)))

        asyncio.run(ask())
        assert engine.threads == finish_threads == {"batcher-0"}

    def test_idle_worker_starts_with_what_is_there(self) -> None:
        """One utterance alone is a batch of one; nothing waits for company."""
        engine = EchoEngine()

        async def ask() -> None:
            async with running(engine.infer, workers=2) as batcher:
                for value in range(5):
                    await batcher.submit(Utterance((value,)))

        asyncio.run(ask())
        assert engine.batches == [[0], [1], [2], [3], [4]]

    def test_what_waits_together_is_computed_together(self) -> None:
        """While the worker is busy the next micro-batch gathers, in order of arrival."""
        engine = GatedEngine()

        async def ask() -> None:
            async with running(engine.infer) as batcher:
                inside, behind = await hold_one_and_queue(engine, batcher, [1, 2, 3])
                engine.let_through(2)
                assert list(await asyncio.gather(inside, *behind)) == [("inside", 1000), ("1", 1), ("2", 2), ("3", 3)]

        asyncio.run(ask())
        assert engine.batches == [[1000], [1, 2, 3]]

    def test_two_workers_compute_at_once(self) -> None:
        """A second micro-batch enters the engine while the first is still inside."""
        engine = GatedEngine()

        async def ask() -> None:
            async with running(engine.infer, workers=2) as batcher:
                first = asyncio.create_task(batcher.submit(Utterance((1,))))
                await engine.has_begun()
                second = asyncio.create_task(batcher.submit(Utterance((2,))))
                await engine.has_begun()
                engine.let_through(2)
                await asyncio.gather(first, second)

        asyncio.run(ask())
        assert len(engine.threads) == 2

    def test_timings_tell_waiting_from_working(self) -> None:
        """Waiting ends when a worker takes the item; the 2 s before the gate opens are the first batch's work."""
        clock, engine, seen = ManualClock(), GatedEngine(), list[BatchTimings]()

        def infer(utterances: Sequence[Sequence[int]]) -> ModelOutputs:
            outputs = engine.infer(utterances)
            clock.advance(3.0)
            return outputs

        def finish(items: Sequence[Utterance], outputs: ModelOutputs, timings: BatchTimings) -> list[tuple[str, float]]:
            seen.append(timings)
            return echo(items, outputs, timings)

        async def ask() -> None:
            async with running(infer, finish, clock=clock) as batcher:
                inside, behind = await hold_one_and_queue(engine, batcher, [1])
                clock.advance(2.0)
                engine.let_through(2)
                await asyncio.gather(inside, *behind)

        asyncio.run(ask())
        assert seen == [BatchTimings((0.0,), 5000.0), BatchTimings((5000.0,), 3000.0)]


class TestDeparture:
    def test_cancelled_request_takes_no_batch_slot(self) -> None:
        """A caller that left while queued is not computed; those around it are."""
        engine = GatedEngine()

        async def ask() -> None:
            async with running(engine.infer) as batcher:
                inside, behind = await hold_one_and_queue(engine, batcher, [1, 2, 3])
                behind[1].cancel()
                await asyncio.wait([behind[1]])
                engine.let_through(2)
                assert list(await asyncio.gather(inside, behind[0], behind[2])) == [
                    ("inside", 1000),
                    ("1", 1),
                    ("3", 3),
                ]

        asyncio.run(ask())
        assert engine.batches == [[1000], [1, 3]]

    def test_caller_cancelled_inside_the_engine_harms_nobody(self) -> None:
        """Its answer is dropped; its neighbour gets its own."""
        engine = GatedEngine()

        async def ask() -> None:
            async with running(engine.infer) as batcher:
                inside, behind = await hold_one_and_queue(engine, batcher, [1, 2])
                engine.let_through()
                await engine.has_begun()
                behind[0].cancel()
                engine.let_through()
                assert list(await asyncio.gather(inside, behind[1])) == [("inside", 1000), ("2", 2)]
                assert behind[0].cancelled()

        asyncio.run(ask())

    def test_deadline_passes_while_waiting(self) -> None:
        """The caller hears at once, and the utterance takes no slot."""
        engine = GatedEngine()

        async def ask() -> None:
            async with running(engine.infer) as batcher:
                inside, behind = await hold_one_and_queue(engine, batcher, [1])
                with pytest.raises(DeadlinePassed, match="no answer within 1 ms"):
                    await batcher.submit(Utterance((2,)), timeout_s=0.001)
                engine.let_through(2)
                await asyncio.gather(inside, *behind)

        asyncio.run(ask())
        assert engine.batches == [[1000], [1]]

    def test_deadline_passes_while_the_engine_hangs(self) -> None:
        """The caller need not wait for the engine to come back."""
        engine = GatedEngine()

        async def ask() -> None:
            async with running(engine.infer) as batcher:
                with pytest.raises(DeadlinePassed):
                    await batcher.submit(Utterance((1,)), timeout_s=0.001)
                engine.let_through()

        asyncio.run(ask())


class TestFailure:
    @pytest.mark.parametrize("error", [BackendFailed("NaN"), RuntimeError("engine broke"), MemoryError("no memory")])
    def test_failing_engine_fails_its_whole_batch_and_the_worker_goes_on(self, error: Exception) -> None:
        """All waiters of the batch get BackendFailed at once; the next batch is answered."""
        engine = BrokenEngine()

        async def ask() -> None:
            async with running(engine.infer) as batcher:
                inside, behind = await hold_one_and_queue(engine, batcher, [1, 2])
                engine.let_through()
                await inside
                engine.error = error
                engine.let_through()
                failures = await asyncio.gather(*behind, return_exceptions=True)
                assert [type(failure) for failure in failures] == [BackendFailed, BackendFailed]
                assert all(str(error) in str(failure) for failure in failures)
                assert failures[0] is not failures[1]
                engine.error = None
                engine.let_through()
                assert await batcher.submit(Utterance((5,), "after")) == ("after", 5)

        asyncio.run(ask())

    @pytest.mark.parametrize("answers", [[], [("a", 1.0), ("b", 2.0)]])
    def test_finish_must_answer_each_item(self, answers: list[tuple[str, float]]) -> None:
        """Too few or too many answers fail the batch rather than shift answers to other callers."""

        async def ask() -> None:
            async with running(EchoEngine().infer, lambda *_: answers) as batcher:
                with pytest.raises(BackendFailed, match=f"{len(answers)} answers for 1 items"):
                    await batcher.submit(Utterance((1,)))

        asyncio.run(ask())

    def test_dead_worker_leaves_nobody_waiting(self) -> None:
        """When the last worker dies, its batch and the queue behind it fail, and new items are refused."""
        engine = BrokenEngine()
        engine.error = SystemExit("killed")

        async def ask() -> None:
            async with running(engine.infer) as batcher:
                inside, behind = await hold_one_and_queue(engine, batcher, [1, 2])
                engine.let_through()
                failures = await asyncio.gather(inside, *behind, return_exceptions=True)
                assert all(isinstance(failure, ServiceError) for failure in failures)
                assert not batcher.is_working
                with pytest.raises(ShuttingDown):
                    await batcher.submit(Utterance((3,)))

        asyncio.run(ask())


class TestBounds:
    def test_full_queue_refuses_at_once(self) -> None:
        """With the two numbers; what was queued is still answered."""
        engine = GatedEngine()

        async def ask() -> None:
            async with running(engine.infer, max_waiting=2) as batcher:
                inside, behind = await hold_one_and_queue(engine, batcher, [1, 2])
                with pytest.raises(Overloaded, match="2 utterances wait, at most 2 may"):
                    await batcher.submit(Utterance((3,)))
                engine.let_through(2)
                await asyncio.gather(inside, *behind)

        asyncio.run(ask())

    def test_departed_callers_do_not_fill_the_queue(self) -> None:
        """Their places are free again."""
        engine = GatedEngine()

        async def ask() -> None:
            async with running(engine.infer, max_waiting=2) as batcher:
                inside, behind = await hold_one_and_queue(engine, batcher, [1, 2])
                behind[0].cancel()
                await asyncio.wait([behind[0]])
                late = asyncio.create_task(batcher.submit(Utterance((3,), "3")))
                # One more than needed where both go together: the worker may be quicker than the late one.
                engine.let_through(3)
                assert list(await asyncio.gather(inside, behind[1], late)) == [("inside", 1000), ("2", 2), ("3", 3)]

        asyncio.run(ask())

    def test_long_utterance_waits_behind_short_ones_but_is_served(self) -> None:
        """Passed over while it does not fit, it goes as soon as it is the oldest."""
        engine = GatedEngine()

        async def ask() -> None:
            async with running(engine.infer, limits=BatchLimits(max_tokens=10, max_utterances=8)) as batcher:
                inside, behind = await hold_one_and_queue(engine, batcher, [1])
                long = asyncio.create_task(batcher.submit(Utterance((2, *[0] * 19))))
                short = asyncio.create_task(batcher.submit(Utterance((3,))))
                await until_waiting(batcher, 3)
                engine.let_through(3)
                await asyncio.gather(inside, *behind, long, short)

        asyncio.run(ask())
        assert engine.batches == [[1000], [1, 3], [2]]

    def test_bad_bounds_are_named(self) -> None:
        """With the field and the limit."""
        with pytest.raises(ValueError, match="max_waiting must be >= 1, got 0"):
            Batcher(EchoEngine().infer, echo, LIMITS, max_waiting=0)
        with pytest.raises(ValueError, match="workers must be >= 1, got 0"):
            Batcher(EchoEngine().infer, echo, LIMITS, workers=0)


class TestClose:
    def test_close_answers_what_waits(self) -> None:
        """Everything submitted before is answered; everything after is refused."""
        engine = GatedEngine()

        async def ask() -> None:
            async with running(engine.infer, limits=BatchLimits(1, 1)) as batcher:
                inside, behind = await hold_one_and_queue(engine, batcher, [1, 2, 3])
                closing = asyncio.create_task(batcher.close(PATIENCE_S))
                await asyncio.sleep(0)
                with pytest.raises(ShuttingDown):
                    await batcher.submit(Utterance((9,)))
                engine.let_through(4)
                await closing
                assert list(await asyncio.gather(inside, *behind)) == [("inside", 1000), ("1", 1), ("2", 2), ("3", 3)]
                assert not batcher.is_working

        asyncio.run(ask())

    def test_close_gives_up_on_a_hanging_engine(self) -> None:
        """What waits fails; the process can end."""
        engine = GatedEngine()

        async def ask() -> None:
            async with running(engine.infer) as batcher:
                inside, behind = await hold_one_and_queue(engine, batcher, [1])
                await batcher.close(timeout_s=0.001)
                with pytest.raises(ShuttingDown):
                    await behind[0]
                engine.let_through()
                assert await inside == ("inside", 1000)

        asyncio.run(ask())

    def test_closing_twice_or_before_start_is_harmless(self) -> None:
        """And nothing can be submitted to what was never started."""

        async def ask() -> None:
            idle = Batcher(EchoEngine().infer, echo, LIMITS)
            with pytest.raises(ShuttingDown):
                await idle.submit(Utterance((1,)))
            await idle.close()
            async with running(EchoEngine().infer) as batcher:
                await batcher.close()

        asyncio.run(ask())
