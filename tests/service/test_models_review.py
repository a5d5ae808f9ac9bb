"""Interleavings of reloads, unloads, crashes and registrations that hurt once."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ondol.errors import ModelBudgetError, ModelLoadError
from ondol.models import ModelPool, ModelSpec, ModelState
from ondol.testing import VirtualClock, run_virtual
from tests.service import isolation_models
from tests.service.models_fakes import Fleet, check_ended, use

if TYPE_CHECKING:
    from collections.abc import Coroutine


def test_a_reload_that_fails_is_the_matter_of_those_who_asked_for_it_alone() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("base"))
        pool.register(fleet.spec("app", ("base",)))
        async with pool:
            await use(pool, "base")
            caller = asyncio.create_task(use(pool, "app"))
            await asyncio.sleep(0)
            fleet.failing.add("base")
            with pytest.raises(ModelLoadError, match="base is broken"):
                await pool.reload("base")
            await caller
        check_ended(pool, fleet)

    run_virtual(scenario)


@pytest.mark.parametrize("is_lazy", [True, False])
def test_a_reload_without_room_for_two_brings_back_what_was_built_on_it(is_lazy: bool) -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("base", size_bytes=60))
        pool.register(fleet.spec("app", ("base",), size_bytes=20, residency="pinned"))
        async with pool:
            await pool.load("app")
            pool.configure(is_lazy_loading_enabled=is_lazy)
            reload = asyncio.create_task(pool.reload("base"))
            await asyncio.sleep(0.5)
            waiting = asyncio.create_task(use(pool, "app"))  # it comes back by itself: it is waited for
            await reload
            await waiting
            assert pool.status("app").state is ModelState.READY
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_replacement_that_would_not_fit_even_then_leaves_the_old_one_serving() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("a", size_bytes=60))
        pool.register(fleet.spec("b", size_bytes=40))
        async with pool:
            await use(pool, "a")
            await use(pool, "b")
            pool.register(fleet.spec("a", size_bytes=61), replace=True)
            await asyncio.sleep(100)
            status = pool.status("a")
            assert status.state is ModelState.READY
            assert "ready; a new copy was given up: no room to load 'a'" in status.reason
            assert fleet.loads() == ["a", "b"]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_what_prepares_the_memory_may_fail_without_a_lease_being_lost() -> None:
    def broken() -> None:
        message = "no such option"
        raise OSError(message)

    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, prepare_memory=broken)
        pool.register(fleet.spec("m"))
        async with pool:
            await use(pool, "m")
            assert pool.status("m").leases == 0
            assert await pool.unload("m")
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_caller_whose_question_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    from ondol.models.dispatch import Dispatcher

    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("m"))
        async with pool:
            with monkeypatch.context() as patched:
                patched.setattr(Dispatcher, "take_turn", lambda _self: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    await use(pool, "m")
            await use(pool, "m")
            assert pool.status("m").leases == 0
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_an_isolated_model_that_a_holder_closes_is_loaded_again() -> None:
    async def scenario() -> None:
        pool = ModelPool()
        crashed = asyncio.Event()
        pool.add_listener(lambda event, _name: crashed.set() if event == "crashed" else None)
        pool.register(ModelSpec("m", isolation_models.load, isolation="process"))
        async with pool:
            async with pool.lease("m") as model:
                await model.close()
            await asyncio.wait_for(crashed.wait(), 30)
            async with pool.lease("m") as model:
                assert await model.give(3) == 3

    asyncio.run(scenario())


def test_an_unload_is_not_undone_by_what_was_wanted_in_the_background() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("base"))
        pool.register(fleet.spec("app", ("base",)))
        async with pool:
            await pool.load("app")
            await pool.reload("base")
            await asyncio.sleep(0.5)
            assert pool.status("app").progress == pytest.approx(0.5)  # app is loaded anew as well, in the background
            assert await pool.unload("base")
            await asyncio.sleep(100)
            states = {pool.status(name).state for name in ("base", "app")}
            assert states == {ModelState.UNLOADED}
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_limits_and_replacements_from_other_threads_take_effect_in_the_loop() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("m", size_bytes=10, version="1"))
        async with pool:
            await use(pool, "m")

            def change() -> None:
                pool.configure(memory_limit_bytes=50)
                pool.register(fleet.spec("m", size_bytes=10, version="2"), replace=True)
                for index in range(20):
                    pool.register(fleet.spec(f"n{index}", ("m",)))

            thread = threading.Thread(target=change)
            thread.start()
            thread.join()
            assert pool.get_stats()["limit_bytes"] == 100  # the loop has not run since
            await asyncio.sleep(2)
            assert (pool.get_stats()["limit_bytes"], pool.status("m").version) == (50, "2")
            await use(pool, "n19")
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_loads_do_not_carry_the_context_of_whoever_set_them_off() -> None:
    request = contextvars.ContextVar("request", default="none")
    seen: list[str] = []

    async def load() -> str:
        seen.append(request.get())
        return "model"

    async def scenario(clock: VirtualClock) -> None:
        pool = ModelPool(clock=clock)
        pool.register(ModelSpec("m", load))
        async with pool:
            request.set("mine")
            async with pool.lease("m"):
                pass
        assert seen == ["none"]

    run_virtual(scenario)


def test_a_task_factory_that_starts_at_once_changes_nothing() -> None:
    """As Python 3.12's ``eager_task_factory`` does: the first step comes before ``create_task`` returns."""

    class Eager(asyncio.Task[Any]):
        def __init__(self, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
            super().__init__(coro, **options)
            eager.append(self.get_name())

    eager: list[str] = []

    async def scenario(clock: VirtualClock) -> None:
        asyncio.get_running_loop().set_task_factory(lambda loop, coro, **options: Eager(coro, loop=loop, **options))
        fleet, pool = Fleet(), ModelPool(clock=clock)
        pool.register(fleet.spec("base"))
        pool.register(fleet.spec("app", ("base",)))
        async with pool:
            await use(pool, "app")
            await pool.unload("base")
        assert not [name for name in eager if name.startswith(("ondol-load", "ondol-unload"))]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_model_too_large_beside_pinned_ones_is_refused_with_both_figures() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("base", size_bytes=30))
        pool.register(fleet.spec("kept", ("base",), size_bytes=30, residency="pinned"))
        pool.register(fleet.spec("big", size_bytes=50))
        async with pool:
            await use(pool, "kept")
            with pytest.raises(ModelBudgetError, match=r"needs 50 B beside 60 B of pinned"):
                await use(pool, "big")
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_reload_that_can_never_fit_is_refused_and_the_copy_that_serves_stays() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("m", size_bytes=10))
        pool.register(fleet.spec("kept", size_bytes=65, residency="pinned"))
        async with pool:
            await use(pool, "m")
            await use(pool, "kept")
            pool.register(fleet.spec("m", size_bytes=40), replace=True)
            with pytest.raises(ModelBudgetError, match="needs 40 B beside 65 B of pinned"):
                await pool.reload("m")
            assert pool.status("m").state is ModelState.READY
            assert "ready; a new copy was given up" in pool.status("m").reason
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_a_copy_goes_first_together_with_another_when_only_both_make_room() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("m", size_bytes=10))
        pool.register(fleet.spec("other", size_bytes=10))
        pool.register(fleet.spec("kept", size_bytes=55, residency="pinned"))
        async with pool:
            for name in ("m", "other", "kept"):
                await use(pool, name)
            pool.register(fleet.spec("m", size_bytes=40), replace=True)
            await pool.reload("m")
            assert sorted(fleet.journal[3:]) == ["load m", "unload m", "unload other"]
        check_ended(pool, fleet)

    run_virtual(scenario)


def test_old_bases_that_wait_for_a_copy_do_not_keep_its_renewal_waiting_for_ever() -> None:
    """The base's old copy stays for the app's old copy, whose successor has room only once one of them goes."""

    async def scenario(clock: VirtualClock) -> None:
        fleet, pool = Fleet(), ModelPool(clock=clock, memory_limit_bytes=100)
        pool.register(fleet.spec("base", size_bytes=35))
        pool.register(fleet.spec("app", ("base",), size_bytes=30))
        async with pool:
            await pool.load("app")
            await pool.reload("base")  # 35 + 35 + 30: no room for a second app
            await asyncio.sleep(100)
            assert fleet.loads() == ["base", "app", "base", "app"]
            assert fleet.journal[-3:] == ["unload app", "unload base", "load app"]
            assert [pool.status(name).state for name in ("base", "app")] == [ModelState.READY] * 2
        check_ended(pool, fleet)

    run_virtual(scenario)
