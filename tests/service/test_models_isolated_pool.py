"""Models in processes of their own, as the pool keeps them."""

from __future__ import annotations

import asyncio
import functools
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from ondol.errors import (
    ConfigurationError,
    ModelCallTimeoutError,
    ModelCrashedError,
    ModelLoadError,
    ModelQuarantinedError,
)
from ondol.models import ModelPool, ModelSpec, ModelState, RetryPolicy
from tests.service import isolation_models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ondol.models.isolation import IsolatedModel

NOW = RetryPolicy(attempts=3, first_s=0.0)
PATH = "tests.service.isolation_models:load"


def spec(name: str = "m", load: Any = isolation_models.load, **fields: Any) -> ModelSpec:
    return ModelSpec(name, load, isolation="process", **fields)


_before: set[int] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    """Note which processes are there already: a server that other tests share is none of these tests' concern."""
    _before.clear()
    _before.update(child.pid for child in psutil.Process().children(recursive=True))


def own_children() -> list[psutil.Process]:
    """Return the processes that were started since, the fork server first."""
    return [child for child in psutil.Process().children(recursive=True) if child.pid not in _before]


class Events:
    """Waits for what the pool announces."""

    def __init__(self, pool: ModelPool) -> None:
        self.seen: list[tuple[str, str]] = []
        self._changed = asyncio.Event()
        pool.add_listener(self._noticed)

    def _noticed(self, event: str, name: str) -> None:
        self.seen.append((event, name))
        self._changed.set()

    async def wait_for(self, event: str, name: str = "m", count: int = 1) -> None:
        async with asyncio.timeout(60):
            while self.seen.count((event, name)) < count:
                self._changed.clear()
                await self._changed.wait()


async def echo(model: IsolatedModel) -> None:
    assert await model.give(41) == 41


@pytest.mark.parametrize("load", [isolation_models.load, PATH, functools.partial(isolation_models.load, 2.0)])
def test_a_lease_gives_a_proxy_and_the_process_ends_with_the_unload(load: Any) -> None:
    parted: list[Any] = []

    async def unload(model: IsolatedModel) -> None:
        parted.append(await model.give("bye"))

    async def scenario() -> None:
        pool = ModelPool(memory_limit_bytes=1 << 40)
        pool.register(spec(load=load, warm_up=echo, unload=unload))
        async with pool:
            async with pool.lease("m") as model:
                assert (await model.scaled(np.ones(3, np.float32))).tolist() in ([1.0] * 3, [2.0] * 3)
                pid = model.pid
            status = pool.status("m")
            assert (status.isolation, status.state) == ("process", ModelState.READY)
            assert status.size_bytes is not None
            assert 0 < status.size_bytes == pool.get_stats()["used_bytes"]
            assert await pool.unload("m")
            assert parted == ["bye"]
            assert not psutil.pid_exists(pid)
            assert pool.get_stats()["used_bytes"] == 0

    asyncio.run(scenario())


def test_nothing_is_left_after_the_stop() -> None:
    async def scenario() -> list[int]:
        pool = ModelPool()
        for name in ("a", "b"):
            pool.register(spec(name))
        async with pool:
            await asyncio.gather(pool.load("a"), pool.load("b"))
            return [child.pid for child in own_children()]

    pids = asyncio.run(scenario())
    assert len(pids) == 3  # the fork server and two models
    assert not any(map(psutil.pid_exists, pids))


@pytest.mark.parametrize("way", ["kill", "exit", "segfault", "memory"])
def test_a_crash_reaches_the_caller_and_the_pool_loads_it_again(way: str) -> None:
    def kill(model: IsolatedModel) -> Any:
        psutil.Process(model.pid).kill()
        return model.hang()

    calls: dict[str, Callable[[IsolatedModel], Any]] = {
        "kill": kill,
        "exit": lambda model: model.leave(3),
        "segfault": lambda model: model.segfault(),
        "memory": lambda model: model.run_out_of_memory(),
    }

    async def scenario() -> None:
        pool = ModelPool(retry=NOW)
        events = Events(pool)
        pool.register(spec())
        pool.register(ModelSpec("other", lambda: "here"))
        async with pool, pool.lease("other"):
            async with pool.lease("m") as model:
                with pytest.raises(ModelCrashedError, match="process of model 'm'"):
                    await calls[way](model)
                await events.wait_for("crashed")
                with pytest.raises(ModelCrashedError):  # whoever holds it still is told the same
                    await model.give(1)
            async with pool.lease("m") as again:  # a new one, without doing anything about it
                assert again.pid != model.pid
                await echo(again)
            stats = pool.get_stats()
            assert (stats["crashes"], stats["loads"]) == (1, 3)
            told = [event for event, name in events.seen if name == "m" and event in {"ready", "leaving", "crashed"}]
            assert told == ["ready", "leaving", "crashed", "ready"]
            assert pool.status("m").failure_count == 1

    asyncio.run(scenario())


def test_a_model_that_crashes_again_and_again_is_quarantined() -> None:
    async def scenario() -> None:
        pool = ModelPool(retry=NOW)
        events = Events(pool)
        pool.register(spec())
        pool.register(ModelSpec("app", lambda: "app", depends_on=("m",)))
        async with pool:
            for number in (1, 2, 3):
                async with pool.lease("app"), pool.lease("m") as model:
                    model.kill()
                    await events.wait_for("crashed", count=number)
                    assert pool.status("app").state is not ModelState.READY
            with pytest.raises(ModelQuarantinedError, match="3 failure"):
                async with pool.lease("m"):
                    pass
            assert "ModelCrashedError" in (pool.status("m").last_error or "")
            pool.release("m")
            async with pool.lease("app"), pool.lease("m") as model:
                await echo(model)

    asyncio.run(scenario())


def test_what_was_built_on_a_crashed_model_is_loaded_again_without_being_asked_for() -> None:
    async def scenario() -> None:
        pool = ModelPool(retry=NOW)
        events = Events(pool)
        pool.register(spec())
        pool.register(ModelSpec("app", lambda: "app", depends_on=("m",)))
        async with pool:
            await pool.load("app")
            pool.configure(is_lazy_loading_enabled=False)
            async with pool.lease("m") as model:
                model.kill()
                await events.wait_for("crashed")
            await events.wait_for("ready", "app", count=2)
            async with pool.lease("app"):
                pass

    asyncio.run(scenario())


def test_a_crash_after_a_long_good_time_counts_as_the_first() -> None:
    async def scenario() -> None:
        pool = ModelPool(retry=RetryPolicy(attempts=2, first_s=0.0, stable_s=0.0))
        events = Events(pool)
        pool.register(spec())
        async with pool:
            for number in range(1, 5):
                async with pool.lease("m") as model:
                    model.kill()
                    await events.wait_for("crashed", count=number)
            async with pool.lease("m") as model:
                await echo(model)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (isolation_models.load_raises, "OSError.*no weights here"),
        (isolation_models.load_hangs, "was not (ready|loaded) within"),
        (isolation_models.load_exits, "exit code 9"),
        (isolation_models.load_out_of_memory, "ran out of memory"),
    ],
)
def test_each_way_in_which_a_load_can_fail(load: Any, message: str) -> None:
    async def scenario() -> None:
        pool = ModelPool(retry=None)
        limit_s = 0.5 if load is isolation_models.load_hangs else None
        pool.register(spec(load=load, load_timeout_s=limit_s))
        pool.register(spec("fine"))
        async with pool:
            with pytest.raises(ModelLoadError, match=message):
                await pool.load("m")
            status = pool.status("m")
            assert (status.state, status.failure_count) == (ModelState.FAILED, 1)
            async with pool.lease("fine") as model:
                await echo(model)
            assert pool.get_stats()["used_bytes"] == pool.status("fine").size_bytes

    asyncio.run(scenario())


def test_a_call_that_takes_too_long_ends_the_process_and_the_next_lease_gets_a_new_one() -> None:
    async def scenario() -> None:
        pool = ModelPool(retry=NOW)
        events = Events(pool)
        pool.register(spec(call_timeout_s=0.2))
        async with pool:
            async with pool.lease("m") as model:
                with pytest.raises(ModelCallTimeoutError, match=r"hang.*took longer than"):
                    await model.hang()
            await events.wait_for("crashed")
            async with pool.lease("m") as model:
                await echo(model)

    asyncio.run(scenario())


def test_a_stop_during_the_load_ends_the_process(tmp_path: Path) -> None:
    fifo = tmp_path / "loading"
    os.mkfifo(fifo)

    async def scenario() -> None:
        pool = ModelPool()
        pool.register(spec(load=functools.partial(isolation_models.load_says_so_and_hangs, str(fifo))))
        await pool.start()
        load = asyncio.create_task(pool.load("m"))
        assert await asyncio.to_thread(fifo.read_text, encoding="utf-8") == "loading"
        assert len(own_children()) == 2  # the fork server and the model
        await pool.stop(grace_s=20.0)
        assert isinstance((await asyncio.gather(load, return_exceptions=True))[0], Exception)
        assert own_children() == []

    asyncio.run(scenario())


def test_a_stop_while_a_model_is_asked_for_its_size_ends_the_process(tmp_path: Path) -> None:
    fifo = tmp_path / "asked"
    os.mkfifo(fifo)

    async def scenario() -> None:
        pool = ModelPool()
        pool.register(spec(load=functools.partial(isolation_models.Unsized, str(fifo))))
        await pool.start()
        load = asyncio.create_task(pool.load("m"))
        assert await asyncio.to_thread(fifo.read_text, encoding="utf-8") == "asked"
        await pool.stop(grace_s=20.0)
        assert isinstance((await asyncio.gather(load, return_exceptions=True))[0], Exception)
        assert own_children() == []

    asyncio.run(scenario())


def test_a_warm_up_that_fails_ends_the_process() -> None:
    async def cold(model: IsolatedModel) -> None:
        await model.fail("cold")

    async def scenario() -> None:
        pool = ModelPool(retry=None)
        pool.register(spec(warm_up=cold))
        async with pool:
            with pytest.raises(ModelLoadError, match="cold"):
                await pool.load("m")
            (server,) = own_children()
            assert server.children() == []

    asyncio.run(scenario())


def test_a_reload_swaps_processes() -> None:
    async def scenario() -> None:
        pool = ModelPool()
        pool.register(spec())
        async with pool:
            async with pool.lease("m") as old:
                await pool.reload("m")
                await echo(old)
                async with pool.lease("m") as new:
                    assert new.pid != old.pid
            await pool.unload("m")
            assert not psutil.pid_exists(old.pid or 0)

    asyncio.run(scenario())


def test_the_bytes_of_mapped_weights_count_once_for_two_processes(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    size = 32 << 20
    path.write_bytes(np.ones(size // 4, np.float32).tobytes())

    async def total(model: IsolatedModel) -> None:
        assert await model.total() == size // 4

    async def scenario() -> None:
        pool = ModelPool()
        for name in ("a", "b"):
            pool.register(spec(name, functools.partial(isolation_models.load_mapped, str(path)), warm_up=total))
        async with pool:
            await pool.load("a")
            await pool.load("b")
            alone, shared = (pool.status(name).size_bytes or 0 for name in ("a", "b"))
            assert alone > size
            assert shared < 0.75 * alone

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("load", "message"),
    [(lambda: 1, "lambda"), ("no.such.module:load", "cannot be found"), ("nonsense", "import path")],
)
def test_what_another_process_cannot_find_is_refused_at_registration(load: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ModelPool().register(spec(load=load))


def test_a_path_is_for_isolated_models_only() -> None:
    with pytest.raises(ConfigurationError, match="load of model 'm' must be a function, not"):
        ModelSpec("m", PATH)
    with pytest.raises(ConfigurationError, match="isolation of model 'm' must be one of"):
        ModelSpec("m", lambda: 1, isolation="thraed")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ConfigurationError, match="call_timeout_s of model 'm'"):
        ModelSpec("m", lambda: 1, call_timeout_s=1.0)
