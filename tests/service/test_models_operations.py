"""Actions on models that take their time: begun at once, shared, followed, remembered, never cancelled by leaving."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ondol.errors import (
    AlreadyClosedError,
    ModelLoadError,
    TooManyOperationsError,
    UnknownModelError,
    UnknownOperationError,
)
from ondol.models import ModelPool, ModelSpec
from ondol.models.actions import ACTIONS
from ondol.models.operations import Operations
from ondol.testing import run_virtual
from tests.server.http_fakes import FakePool

if TYPE_CHECKING:
    from ondol.models.actions import Action
    from ondol.testing import VirtualClock


def fake_pool(*names: str) -> FakePool:
    return FakePool(states=dict.fromkeys(names or ("m",), "registered"))


def test_it_returns_at_once_and_ends_by_itself() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = fake_pool()
        gate = pool.gates["m"] = asyncio.Event()
        operations = Operations(pool, clock)
        begun = operations.start("load", "m")
        assert (begun.status, begun.ended_at, begun.error) == ("running", None, None)
        assert begun.created_at == clock.wall()
        await asyncio.sleep(5)
        pool.changes["m"] = {"progress": 0.5, "eta_s": 5.0, "reason": "reading"}
        under_way = operations.get(begun.id)
        assert (under_way.progress, under_way.eta_s, under_way.detail) == (0.5, 5.0, "loading: reading")
        gate.set()
        await asyncio.sleep(1)
        ended = operations.get(begun.id)
        assert (ended.status, ended.progress, ended.eta_s, ended.detail) == ("succeeded", 1.0, None, "")
        assert ended.ended_at == begun.created_at + 5

    run_virtual(scenario)


def test_the_same_action_on_the_same_model_is_the_same_operation_while_it_runs() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = fake_pool("m", "other")
        gate = pool.gates["m"] = asyncio.Event()
        operations = Operations(pool, clock)
        first = operations.start("load", "m")
        assert operations.start("load", "m").id == first.id
        assert operations.start("reload", "m").id != first.id
        assert operations.start("load", "other").id != first.id
        gate.set()
        await asyncio.sleep(1)
        assert pool.calls.count(("load", "m")) == 1
        assert operations.start("load", "m").id != first.id
        await operations.close()

    run_virtual(scenario)


def test_a_reload_is_never_the_one_under_way_which_may_be_of_yesterdays_weights() -> None:
    async def scenario(clock: VirtualClock) -> None:
        weights = ["yesterday's"]

        async def load() -> str:
            read = weights[0]
            await asyncio.sleep(1)
            return read

        async with ModelPool(clock=clock) as pool:
            pool.register(ModelSpec("m", load))
            operations = Operations(pool, clock)
            await operations.run("load", "m")
            first = operations.start("reload", "m")
            await asyncio.sleep(0.5)
            weights[0] = "today's"
            second = await operations.run("reload", "m")
            assert (second.id != first.id, second.status) == (True, "succeeded")
            async with pool.lease("m") as model:
                assert model == "today's"

    run_virtual(scenario)


def test_what_is_done_at_once_is_done_also_when_the_same_action_runs_already() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = fake_pool()
        gate = pool.gates["m"] = asyncio.Event()
        operations = Operations(pool, clock)
        first = operations.start("pin", "m")
        operations.start("unpin", "m")
        assert operations.start("pin", "m").id == first.id
        assert "m" in pool.pinned
        gate.set()
        await asyncio.sleep(1)
        assert pool.calls == [("pin", "m"), ("unpin", "m"), ("pin", "m"), ("load", "m")]

    run_virtual(scenario)


@pytest.mark.parametrize("last", ["load", "pin", "reload"])
@pytest.mark.parametrize(("first", "pause_s"), [("load", 0.0), ("load", 0.1), ("reload", 0.1)])
def test_a_load_after_an_unload_that_waits_for_a_load_loads_again(first: Action, last: Action, pause_s: float) -> None:
    async def scenario(clock: VirtualClock) -> None:
        async with ModelPool(clock=clock) as pool:
            pool.register(ModelSpec("m", lambda: asyncio.sleep(1, "model"), load_seconds=1.0))
            operations = Operations(pool, clock)
            if first == "reload":
                await operations.run("load", "m")
            before = pool.status("m").load_count
            for action in (first, "unload"):
                operations.start(action, "m")
                await asyncio.sleep(pause_s)
            ended = await operations.run(last, "m")
            assert (ended.status, pool.status("m").state) == ("succeeded", "ready")
            await asyncio.sleep(5)
            assert (pool.status("m").state, pool.status("m").load_count) == ("ready", before + 2)

    run_virtual(scenario)


def test_unlike_actions_asked_for_during_a_load_are_done_in_their_order() -> None:
    async def scenario(clock: VirtualClock) -> None:
        async with ModelPool(clock=clock) as pool:
            pool.register(ModelSpec("m", lambda: asyncio.sleep(1, "model")))
            operations = Operations(pool, clock)
            actions: list[Action] = ["load", "unload", "load", "unload"]
            for action in actions:
                operations.start(action, "m")
                await asyncio.sleep(0.1)
            await asyncio.sleep(5)
            assert (pool.status("m").state, pool.status("m").load_count) == ("unloaded", 2)
            assert [operation.status for operation in operations.all()] == ["succeeded"] * 4

    run_virtual(scenario)


def test_unpin_and_release_have_ended_when_they_are_answered() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = fake_pool()
        operations = Operations(pool, clock)
        await operations.run("pin", "m")
        assert pool.calls == [("pin", "m"), ("load", "m")]
        for action in ("unpin", "release"):
            ended = operations.start(action, "m")
            assert (ended.status, ended.progress, ended.ended_at) == ("succeeded", 1.0, ended.created_at)
        assert pool.calls[2:] == [("unpin", "m"), ("release", "m")]

    run_virtual(scenario)


def test_what_goes_wrong_is_kept_as_text_and_raised_to_those_who_wait() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = fake_pool()
        pool.gates["m"] = asyncio.Event()
        pool.errors["m"] = ModelLoadError("no such file")
        operations = Operations(pool, clock)
        waiting = [asyncio.create_task(operations.run("load", "m")) for _ in range(3)]
        await asyncio.sleep(1)
        pool.gates["m"].set()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in ended] == [ModelLoadError] * 3
        (operation,) = operations.all()
        assert (operation.status, operation.error, operation.error_type) == (
            "failed",
            "no such file",
            "ModelLoadError",
        )
        assert (operation.progress, operation.eta_s) == (None, None)

    run_virtual(scenario)


def test_whoever_leaves_cancels_nothing() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = fake_pool()
        gate = pool.gates["m"] = asyncio.Event()
        operations = Operations(pool, clock)
        waiting = asyncio.create_task(operations.run("load", "m"))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.sleep(1)
        assert waiting.cancelled()
        gate.set()
        await asyncio.sleep(1)
        assert operations.all()[0].status == "succeeded"

    run_virtual(scenario)


@pytest.mark.parametrize("action", ACTIONS)
def test_an_unknown_model_begins_nothing(action: str) -> None:
    async def scenario(clock: VirtualClock) -> None:
        operations = Operations(fake_pool(), clock)
        with pytest.raises(UnknownModelError):
            operations.start(action, "nothing")  # type: ignore[arg-type]  # a parameter over literals
        assert operations.all() == []
        with pytest.raises(UnknownOperationError, match="'abc'"):
            operations.get("abc")

    run_virtual(scenario)


def test_the_oldest_that_ended_is_forgotten_and_a_running_one_never() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = fake_pool("slow", "slow too", "quick")
        gates = [pool.gates.setdefault(name, asyncio.Event()) for name in ("slow", "slow too")]
        operations = Operations(pool, clock, max_kept=2)
        slow = operations.start("load", "slow")
        quick = [operations.start("release", "quick").id for _ in range(3)]
        assert [operation.id for operation in operations.all()] == [quick[2], slow.id]
        with pytest.raises(UnknownOperationError, match="the last 2 are remembered"):
            operations.get(quick[0])
        operations.start("load", "slow too")
        with pytest.raises(TooManyOperationsError, match="2 operations run already"):
            operations.start("pin", "quick")
        assert "quick" not in pool.pinned, "what is refused does nothing"
        assert operations.start("load", "slow").id == slow.id, "one that runs needs no room"
        for gate in gates:
            gate.set()
        await asyncio.sleep(1)
        operations.start("release", "quick")

    run_virtual(scenario)


def test_closing_ends_the_watching_and_not_the_load() -> None:
    async def scenario(clock: VirtualClock) -> None:
        loaded = asyncio.Event()

        async def load() -> str:
            await asyncio.sleep(10)
            loaded.set()
            return "model"

        async with ModelPool(clock=clock) as pool:
            pool.register(ModelSpec("m", load))
            operations = Operations(pool, clock)
            waiting = asyncio.create_task(operations.run("load", "m"))
            await asyncio.sleep(1)
            unstarted = operations.start("reload", "m")
            await operations.close()
            await operations.close()
            with pytest.raises(AlreadyClosedError):
                await waiting
            with pytest.raises(AlreadyClosedError):
                operations.start("load", "m")
            assert operations.get(unstarted.id).error_type == "AlreadyClosedError"
            await loaded.wait()
            await pool.load("m")
            assert pool.status("m").load_count == 1

    run_virtual(scenario)


def test_a_reload_that_has_not_begun_is_not_complete() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = fake_pool()
        pool.states["m"] = "ready"
        gate = pool.gates["m"] = asyncio.Event()
        operations = Operations(pool, clock)
        begun = operations.start("reload", "m")
        assert begun.progress is None
        await asyncio.sleep(1)
        pool.changes["m"] = {"progress": 0.3}
        assert operations.get(begun.id).progress == 0.3
        assert operations.start("unload", "m").progress is None
        gate.set()
        await asyncio.sleep(1)
        assert {operation.progress for operation in operations.all()} == {1.0}

    run_virtual(scenario)


def test_ids_are_short_and_not_to_be_guessed() -> None:
    async def scenario(clock: VirtualClock) -> None:
        operations = Operations(fake_pool(), clock)
        ids = {operations.start("release", "m").id for _ in range(50)}
        assert len(ids) == 50
        assert all(len(one) == 16 and int(one, 16) >= 0 for one in ids)

    run_virtual(scenario)


def test_with_the_real_pool_every_action_does_what_it_says() -> None:
    async def scenario(clock: VirtualClock) -> None:
        attempts: list[int] = []

        def load() -> int:
            attempts.append(len(attempts))
            if len(attempts) <= 3:
                raise OSError("the disk is gone")
            return len(attempts)

        async with ModelPool(clock=clock) as pool:
            pool.register(ModelSpec("m", load, load_seconds=1.0))
            operations = Operations(pool, clock)
            with pytest.raises(ModelLoadError, match="the disk is gone"):
                await operations.run("load", "m")
            assert pool.status("m").state == "quarantined"
            operations.start("release", "m")
            assert pool.status("m").state != "quarantined"
            await operations.run("pin", "m")
            assert pool.status("m").is_pinned
            async with pool.lease("m") as model:
                assert model == 4
            await operations.run("reload", "m")
            async with pool.lease("m") as model:
                assert model == 5
            operations.start("unpin", "m")
            assert not pool.status("m").is_pinned
            await operations.run("unload", "m")
            assert pool.status("m").state == "unloaded"
            assert [operation.status for operation in operations.all()] == ["succeeded"] * 5 + ["failed"]

    run_virtual(scenario)
