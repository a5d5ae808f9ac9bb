"""One load: what bounds it, what is left behind when it is given up, and what becomes of that."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ondol.clock import SystemClock
from ondol.models import ModelPool, ModelSpec
from ondol.models.isolated import Isolator
from ondol.models.job import LoadJob, LoadTimeout, Tools
from ondol.models.meter import MemoryMeter
from ondol.models.parting import Parting
from ondol.testing import VirtualClock, run_virtual
from tests.service import isolation_models

if TYPE_CHECKING:
    from ondol.clock import Clock


class Isolated:
    """Stands for a model in another process; asking it for its size ends as the test likes, or never."""

    name = "m"

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.kills: list[str] = []
        self.asked = asyncio.Event()

    def pss_bytes(self) -> int:
        return 1000

    async def read(self, attribute: str) -> int:
        assert attribute == "size_bytes"
        self.asked.set()
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()
        return 0

    async def close(self) -> None:
        """End well, as if there were nothing left to kill."""

    def kill(self, *, reason: str) -> None:
        self.kills.append(reason)


class OneIsolated(Isolator):
    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.model = Isolated(error)

    async def start(self, *_: object, **__: object) -> Any:
        return self.model


def job_of(
    spec: ModelSpec, isolator: Isolator | None = None, *, clock: Clock | None = None, timeout_s: float | None = None
) -> LoadJob:
    meter = MemoryMeter(None)
    tools = Tools(clock or SystemClock(), meter, Parting(meter, None), isolator or Isolator())
    return LoadJob(spec, tools, is_demand=True, account="m", built_on=(), timeout_s=timeout_s)


def isolated_spec(**fields: Any) -> ModelSpec:
    return ModelSpec("m", isolation_models.load, isolation="process", **fields)


def bring_up(job: LoadJob) -> asyncio.Task[Any]:
    return asyncio.create_task(job.bring_up(lambda: None))


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_model_that_never_tells_its_size_is_given_up_in_time_and_ended() -> None:
    async def scenario(clock: VirtualClock) -> None:
        isolator = OneIsolated()
        with pytest.raises(LoadTimeout, match="was not loaded within"):
            await bring_up(job_of(isolated_spec(), isolator, clock=clock, timeout_s=5.0))
        assert clock.monotonic() == pytest.approx(5.0)
        assert isolator.model.kills == ["its load was given up"]

    run_virtual(scenario)


def test_a_load_can_be_cancelled_while_a_model_is_asked_for_its_size() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        isolator = OneIsolated()
        job = job_of(isolated_spec(), isolator)
        task = bring_up(job)
        await isolator.model.asked.wait()
        assert job.is_cancellable
        await cancel(task)
        assert isolator.model.kills == ["its load was given up"]
        assert not job.is_cancellable

    run_virtual(scenario)


def test_a_process_ends_when_its_measuring_fails() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        isolator = OneIsolated(ValueError("no such thing"))
        with pytest.raises(ValueError, match="no such thing"):
            await bring_up(job_of(isolated_spec(), isolator))
        assert isolator.model.kills == ["its load was given up"]

    run_virtual(scenario)


@pytest.mark.parametrize("is_in_warm_up", [True, False])
def test_a_process_ends_when_its_warm_up_or_the_unload_after_it_is_given_up(is_in_warm_up: bool) -> None:
    async def scenario(_clock: VirtualClock) -> None:
        reached = asyncio.Event()

        async def warm_up(_model: object) -> None:
            if not is_in_warm_up:
                raise OSError("cold")
            reached.set()
            await asyncio.Event().wait()

        async def unload(_model: object) -> None:
            reached.set()
            await asyncio.Event().wait()

        isolator = OneIsolated()
        task = bring_up(job_of(isolated_spec(warm_up=warm_up, unload=unload), isolator))
        await reached.wait()
        await cancel(task)
        assert isolator.model.kills == ["its load was given up"]

    run_virtual(scenario)


class Gate:
    """A function that says that it runs and ends when it is let go."""

    def __init__(self, result: object = None) -> None:
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self.result = result

    def __call__(self, *_: object) -> object:
        self.has_begun.set()
        self.may_end.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def begun(self) -> None:
        await asyncio.to_thread(self.has_begun.wait)


@pytest.mark.parametrize("part", ["load", "warm_up"])
@pytest.mark.parametrize("result", ["model", OSError("too late")])
@pytest.mark.parametrize("has_unload", [True, False])
def test_what_is_left_behind_is_over_when_its_thread_has_ended_and_its_model_is_put_away(
    part: str, result: object, has_unload: bool
) -> None:
    async def scenario() -> None:
        gate, unload = Gate(result), Gate()
        functions: dict[str, Any] = {"load": lambda: "model", part: gate}
        if has_unload:
            functions["unload"] = unload
        job = job_of(ModelSpec("m", **functions))
        task = bring_up(job)
        await gate.begun()
        await cancel(task)
        assert job.leftover is not None
        assert not job.leftover.done()
        gate.may_end.set()
        if has_unload and (part == "warm_up" or result == "model"):  # there is a model to put away
            await unload.begun()
            assert not job.leftover.done()
            unload.may_end.set()
        await job.leftover

    asyncio.run(scenario())


def test_a_load_that_takes_too_long_leaves_its_thread_behind() -> None:
    async def scenario() -> None:
        gate = Gate("model")
        job = job_of(ModelSpec("m", gate), timeout_s=0.01)
        with pytest.raises(LoadTimeout):
            await bring_up(job)
        assert job.leftover is not None
        gate.may_end.set()
        await job.leftover

    asyncio.run(scenario())


def test_nothing_is_left_behind_by_coroutines_and_by_loads_that_end() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        async def hang() -> None:
            await asyncio.Event().wait()

        cancelled, ended = job_of(ModelSpec("m", hang)), job_of(ModelSpec("m", lambda: "model"))
        task = bring_up(cancelled)
        await asyncio.sleep(1.0)
        await cancel(task)
        await bring_up(ended)
        assert (cancelled.leftover, ended.leftover) == (None, None)

    run_virtual(scenario)


@pytest.mark.parametrize("has_callback", [True, False])
def test_what_is_left_behind_may_outlive_its_loop(has_callback: bool, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate("model")
    threads: list[threading.Thread] = []

    def load() -> object:
        threads.append(threading.current_thread())
        return gate()

    job = job_of(ModelSpec("m", load))

    async def scenario() -> None:
        task = bring_up(job)
        await gate.begun()
        await cancel(task)
        assert job.leftover is not None
        if has_callback:
            job.leftover.add_done_callback(lambda _over: None)

    asyncio.run(scenario())
    assert job.leftover is not None
    assert not job.leftover.done()
    gate.may_end.set()
    threads[0].join()
    assert job.leftover.done()
    assert caplog.records == []


def test_a_model_that_fails_to_tell_its_size_is_loaded_and_unloaded_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Unsure:
        @property
        def size_bytes(self) -> int:
            raise RuntimeError("not yet")

    unloaded: list[Unsure] = []

    async def scenario(_clock: VirtualClock) -> None:
        pool = ModelPool(retry=None)
        pool.register(ModelSpec("m", Unsure, unload=unloaded.append))
        async with pool, pool.lease("m"):
            pass

    with caplog.at_level(logging.WARNING, "ondol.models"):
        run_virtual(scenario)
    assert len(unloaded) == 1
    assert [record.getMessage() for record in caplog.records] == ["model m cannot tell its size_bytes"]
