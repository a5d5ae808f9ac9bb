from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ondol.cache import Cache
from ondol.errors import AlreadyClosedError, ModelError, ModelLoadError
from ondol.similarity import EMBEDDERS
from ondol.similarity.embedding import CACHE_NAME, TextEmbedder, cache_parts
from ondol.testing import run_virtual
from tests.service.similarity_fakes import DEFAULT, E5, FakePool

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from ondol.similarity.records import Kind
    from ondol.testing import VirtualClock

INFO = EMBEDDERS[DEFAULT]
E5_INFO = EMBEDDERS[E5]


def make(pool: FakePool, *, cache: Cache | None = None) -> TextEmbedder:
    return TextEmbedder(pool, cache if cache is not None else Cache())


def test_concurrent_requests_share_batches_and_keep_their_order() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool = FakePool()
        pool.gate = asyncio.Event()
        embedder = make(pool)
        requests = [asyncio.create_task(embedder.embed(INFO, [f"a{n}", f"b{n}"], "passage")) for n in range(40)]
        await asyncio.sleep(1)
        pool.gate.set()
        answers = await asyncio.gather(*requests)
        assert [len(call) for call in pool.models[DEFAULT].calls] == [64, 16]
        for number, answer in enumerate(answers):
            alone = pool.models[DEFAULT].embed([f"a{number}", f"b{number}"], "passage")
            np.testing.assert_allclose([each.vector for each in answer], alone, atol=1e-6)
        assert embedder.get_stats()["texts_per_batch"] == 40.0

    run_virtual(scenario)


def test_equal_texts_are_computed_once_within_and_across_requests() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool = FakePool()
        embedder = make(pool)
        first, second = await asyncio.gather(
            embedder.embed(INFO, ["same", "other", "same"], "passage"), embedder.embed(INFO, ["same"], "query")
        )
        assert pool.models[DEFAULT].calls == [["same", "other"]]
        assert first[0] is first[2]
        assert first[0] is second[0]

    run_virtual(scenario)


def test_the_second_time_comes_from_the_cache_with_its_cost() -> None:
    async def scenario(clock: VirtualClock) -> None:
        pool, cache = FakePool(), Cache()
        embedder = TextEmbedder(pool, cache, clock=clock)
        (first,) = await embedder.embed(INFO, ["text"], "passage")
        (second,) = await embedder.embed(INFO, ["text"], "query")
        assert second.row is first.row
        assert cache.get_nowait(CACHE_NAME, *cache_parts(INFO, "query", "text")) is first.row
        assert not first.vector.flags.writeable
        assert first.row.base is None
        assert len(pool.models[DEFAULT].calls) == 1
        assert embedder.get_stats()["cached_texts"] == 1

    run_virtual(scenario)


def test_kinds_are_kept_apart_where_the_model_tells_them_apart() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool = FakePool()
        embedder = make(pool)
        (query,), (passage,) = await asyncio.gather(
            embedder.embed(E5_INFO, ["text"], "query"), embedder.embed(E5_INFO, ["text"], "passage")
        )
        assert len(pool.models[E5].calls) == 2
        assert not np.array_equal(query.vector, passage.vector)

    run_virtual(scenario)


def test_without_a_cache_every_call_computes() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool = FakePool()
        embedder = make(pool, cache=Cache(is_enabled=False))
        await embedder.embed(INFO, ["text"], "passage")
        await embedder.embed(INFO, ["text"], "passage")
        assert len(pool.models[DEFAULT].calls) == 2

    run_virtual(scenario)


def test_passages_for_the_store_do_not_fill_the_cache() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        cache = Cache()
        embedder = make(FakePool(), cache=cache)
        await embedder.embed(INFO, ["passage"], "passage", is_kept=False)
        assert cache.used_bytes == 0
        _first, (second,) = await asyncio.gather(
            embedder.embed(INFO, ["both"], "passage", is_kept=False), embedder.embed(INFO, ["both"], "passage")
        )
        assert cache.get_nowait(CACHE_NAME, *cache_parts(INFO, "passage", "both")) is second.row

    run_virtual(scenario)


def test_a_failing_batch_reaches_its_own_callers_and_nobody_else() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool = FakePool()
        embedder = make(pool)
        pool.models[E5].error = RuntimeError("broken")
        broken = [asyncio.create_task(embedder.embed(E5_INFO, [f"t{n}"], "query")) for n in range(3)]
        healthy = asyncio.create_task(embedder.embed(INFO, ["t"], "query"))
        results = await asyncio.gather(*broken, return_exceptions=True)
        assert [str(result) for result in results] == ["broken"] * 3
        assert len(await healthy) == 1
        pool.models[E5].error = None
        assert len(await embedder.embed(E5_INFO, ["t0"], "query")) == 1
        assert embedder.get_stats()["failed_batches"] == 1
        assert pool.open_leases == 0

    run_virtual(scenario)


def test_a_model_that_cannot_be_loaded_is_told_and_not_remembered() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool = FakePool()
        pool.error = ModelLoadError("no weights")
        embedder = make(pool)
        with pytest.raises(ModelLoadError, match="no weights"):
            await embedder.embed(INFO, [f"text {number}" for number in range(200)], "passage")
        pool.error = None
        assert len(await embedder.embed(INFO, ["text 1"], "passage")) == 1

    run_virtual(scenario)


@pytest.mark.parametrize("bad", [np.full((1, 512), np.nan), np.ones((1, 3)), np.ones((2, 512)), np.ones(512)])
def test_a_model_that_gives_something_else_than_vectors_is_an_error(bad: npt.NDArray[np.float64]) -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool = FakePool()

        def embed(texts: Sequence[str], kind: Kind) -> npt.NDArray[np.float32]:
            return bad.astype(np.float32)

        pool.models[DEFAULT].embed = embed  # type: ignore[method-assign]  # a model that misbehaves
        with pytest.raises(ModelError, match="gave"):
            await make(pool).embed(INFO, ["text"], "passage")

    run_virtual(scenario)


def test_a_caller_that_leaves_hurts_nobody() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool = FakePool()
        pool.gate = asyncio.Event()
        embedder = make(pool)
        leaving = asyncio.create_task(embedder.embed(INFO, ["shared", "mine"], "passage"))
        staying = asyncio.create_task(embedder.embed(INFO, ["shared", "yours"], "passage"))
        await asyncio.sleep(1)
        leaving.cancel()
        pool.gate.set()
        assert len(await staying) == 2
        assert leaving.cancelled()

    run_virtual(scenario)


def test_texts_nobody_waits_for_any_more_are_not_computed() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool = FakePool()
        pool.gate = asyncio.Event()
        embedder = make(pool)
        first = asyncio.create_task(embedder.embed(INFO, ["first"], "passage"))
        await asyncio.sleep(1)  # the first batch is taken and waits for its lease
        leaving = asyncio.create_task(embedder.embed(INFO, ["gone"], "passage"))
        staying = asyncio.create_task(embedder.embed(INFO, ["here"], "passage"))
        await asyncio.sleep(1)
        leaving.cancel()
        await asyncio.sleep(1)
        pool.gate.set()
        await asyncio.gather(first, staying)
        assert pool.models[DEFAULT].calls == [["first"], ["here"]]
        assert len(await embedder.embed(INFO, ["gone"], "passage")) == 1

    run_virtual(scenario)


def test_urgent_texts_overtake_those_in_the_background() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool = FakePool()
        pool.gate = asyncio.Event()
        embedder = make(pool)
        background = [f"later {number}" for number in range(200)]
        slow = asyncio.create_task(embedder.embed(INFO, background, "passage", is_urgent=False))
        await asyncio.sleep(1)
        urgent = asyncio.create_task(embedder.embed(INFO, ["now", background[150]], "passage"))
        await asyncio.sleep(1)
        pool.gate.set()
        await asyncio.gather(slow, urgent)
        calls = pool.models[DEFAULT].calls
        assert calls[1][:2] == ["now", background[150]]
        assert sorted(text for call in calls for text in call) == sorted(["now", *background])

    run_virtual(scenario)


def test_long_texts_make_small_batches() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool = FakePool()
        texts = [f"{number} " + "x" * 19_990 for number in range(8)]
        await make(pool).embed(INFO, texts, "passage")
        assert [len(call) for call in pool.models[DEFAULT].calls] == [3, 3, 2]

    run_virtual(scenario)


def test_closing_tells_those_who_wait_and_leaves_it_usable() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool = FakePool()
        pool.gate = asyncio.Event()
        embedder = make(pool)
        waiting = asyncio.create_task(embedder.embed(INFO, ["text"], "passage"))
        await asyncio.sleep(1)
        await embedder.close()
        with pytest.raises(AlreadyClosedError):
            await waiting
        pool.gate.set()
        assert len(await embedder.embed(INFO, ["text"], "passage")) == 1
        assert pool.open_leases == 0

    run_virtual(scenario)


def test_it_outlives_the_event_loop() -> None:
    pool = FakePool()
    embedder = make(pool, cache=Cache(is_enabled=False))

    async def scenario(_clock: VirtualClock) -> None:
        assert len(await embedder.embed(INFO, ["text"], "passage")) == 1

    run_virtual(scenario)
    run_virtual(scenario)

    async def abandoned() -> None:
        pool.gate = asyncio.Event()
        task = asyncio.create_task(embedder.embed(INFO, ["never"], "passage"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(abandoned())
    pool.gate = None
    run_virtual(scenario)
    assert len(asyncio.run(embedder.embed(INFO, ["never"], "passage"))) == 1
