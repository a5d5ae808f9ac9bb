"""The one suite that every shared store passes: the fake, and a real server by socket, over TLS and as a cluster."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from ondol.cache.adapters.redis_store import RedisStore
from ondol.cache.keys import make_key
from ondol.cache.ports import Claim, ClaimRequest, Invalidation, LogGapError, LogLine, LogPosition, Put, StoreFaultError
from ondol.clock import SystemClock
from ondol.testing.shared_store import FakeSharedServer, FakeSharedStore
from tests.service.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from ondol.cache.ports import SharedStore

LIMIT_S = 10.0
LEASE_S = 30.0
ME = "me"
KEYS = ("a:1\x00i1", "a:2\x00i1", "b:1\x00i1")
LONG = "a:" + "가" * 500 + "\x00s500"
ODD_KEYS = [
    make_key("plain", (1,)),
    make_key("name", ({"a": 1}, "}{", "x\x00~y")),
    make_key("star*?[a]\\^-", ("*",)),
    make_key("lone", ("\ud800",)),
    make_key("", ()),
    "no signature",
    LONG,
    make_key("한글", ("가" * 200, "나" * 300)),
]

_numbers = count(1)


def token() -> str:
    return f"{next(_numbers):032x}"


class Backend(Protocol):
    def store(self, namespace: str) -> SharedStore: ...


class FakeBackend:
    def __init__(self) -> None:
        self._servers: dict[str, FakeSharedServer] = {}

    def store(self, namespace: str) -> SharedStore:
        server = self._servers.setdefault(namespace, FakeSharedServer(SystemClock()))
        return FakeSharedStore(SystemClock(), server)


class RedisBackend:
    def __init__(self, server: RedisServer) -> None:
        self.server = server

    def store(self, namespace: str) -> SharedStore:
        return RedisStore(self.server.url, namespace=namespace, timeout_s=LIMIT_S)


@pytest.fixture(scope="module", params=["fake", "unix", "tls", "cluster"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "fake":
        yield FakeBackend()
        return
    with RedisServer(request.param) as server:
        yield RedisBackend(server)


@pytest.fixture
def run(backend: Backend) -> Callable[[Callable[[SharedStore], Coroutine[Any, Any, None]]], None]:
    """Run a scenario with an open store in a namespace of its own."""

    def runner(scenario: Callable[[SharedStore], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with opened(backend.store(f"n{next(_numbers)}")) as store:
                await scenario(store)

        asyncio.run(main())

    return runner


Run = Any


@asynccontextmanager
async def opened(store: SharedStore) -> AsyncIterator[SharedStore]:
    await store.open()
    await store.ping()
    try:
        yield store
    finally:
        await store.close()


async def claim(store: SharedStore, key: str, lease_token: str, lease_s: float = LEASE_S) -> Claim:
    (claimed,) = await store.claim_many([ClaimRequest(key, lease_token)], lease_s)
    assert isinstance(claimed, Claim)
    return claimed


async def put(store: SharedStore, key: str, frame: bytes = b"frame", **fields: Any) -> Any:
    fields = {"ttl_s": None, "tags": ()} | fields
    (result,) = await store.put_many([Put(key, frame, **fields)])
    return result


async def until(is_true: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Ask again and again until it is so: nothing else tells when a server forgets."""
    deadline_s = time.monotonic() + LIMIT_S
    while not await is_true():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.005)


def test_values_of_all_kinds_of_keys_come_back(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        frames = [b"frame %d \x00\xff" % index for index in range(len(ODD_KEYS))]
        puts = [Put(key, frame, None) for key, frame in zip(ODD_KEYS, frames, strict=True)]
        assert await store.put_many(puts) == [True] * len(puts)
        assert await store.get_many([*ODD_KEYS, "other\x00"]) == [*frames, None]

    run(scenario)


def test_an_empty_frame_is_a_value(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        await put(store, KEYS[0], b"")
        assert await store.get_many([KEYS[0]]) == [b""]
        assert (await claim(store, KEYS[0], token())).frame == b""

    run(scenario)


def test_namespaces_do_not_meet(backend: Backend) -> None:
    async def scenario() -> None:
        # The second begins as the first does, and holds what a glob would take for a sign.
        async with opened(backend.store("ns")) as one, opened(backend.store("ns*")) as other:
            for store in (one, other):
                await put(store, KEYS[0], store.address.encode(), tags=("t",))
            await put(other, LONG)
            assert await one.invalidate(Invalidation("all"), ME) == 1
            assert await one.invalidate(Invalidation("pattern", ("*",)), ME) == 0
            assert await one.invalidate(Invalidation("tag", ("t",)), ME) == 0
            assert None not in await other.get_many([KEYS[0], LONG])
            assert await other.invalidate(Invalidation("all"), ME) == 2

    asyncio.run(scenario())


def test_a_value_ends_with_its_time(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        await put(store, KEYS[0], ttl_s=0.02, tags=("t",))
        await put(store, KEYS[1], ttl_s=3600.0)

        async def is_gone() -> bool:
            return await store.get_many([KEYS[0], KEYS[1]]) == [None, b"frame"]

        await until(is_gone)
        assert (await claim(store, KEYS[0], token())).is_granted

    run(scenario)


def test_one_of_all_who_claim_is_granted_the_lease(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        many = await asyncio.gather(*(claim(store, LONG, token()) for _ in range(8)))
        assert sum(one.is_granted for one in many) == 1
        assert all(0 < one.wait_s <= LEASE_S for one in many if not one.is_granted)
        assert all(one.frame is None for one in many)

    run(scenario)


def test_a_commit_ends_the_lease_and_needs_its_token(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        mine = token()
        stamp = (await claim(store, KEYS[0], mine)).stamp
        assert await put(store, KEYS[0], b"other", token=token(), stamp=stamp) is False
        assert await put(store, KEYS[0], b"mine", token=mine, stamp=stamp, ttl_s=60.0) is True
        assert await put(store, KEYS[0], b"again", token=mine, stamp=stamp) is False
        assert (await claim(store, KEYS[0], token())).frame == b"mine"

    run(scenario)


def test_a_lease_runs_out_and_goes_to_another_whose_commit_alone_counts(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        dead = token()
        stamp = (await claim(store, KEYS[0], dead, 0.02)).stamp
        later = token()

        async def is_granted() -> bool:
            return (await claim(store, KEYS[0], later)).is_granted

        await until(is_granted)
        assert await put(store, KEYS[0], b"dead", token=dead, stamp=stamp) is False
        assert await store.extend_many([ClaimRequest(KEYS[0], dead)], LEASE_S) == [False]
        await store.release(KEYS[0], dead)
        assert await put(store, KEYS[0], b"later", token=later, stamp=stamp) is True

    run(scenario)


def test_an_extended_lease_lasts(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        mine = token()
        await claim(store, KEYS[0], mine, 1.0)
        assert await store.extend_many([ClaimRequest(KEYS[0], mine), ClaimRequest(KEYS[1], mine)], LEASE_S) == [
            True,
            False,
        ]
        assert (await claim(store, KEYS[0], token())).wait_s > 2.0

    run(scenario)


def test_a_released_lease_is_granted_to_the_next(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        mine = token()
        await claim(store, KEYS[0], mine)
        await store.release(KEYS[0], mine)
        assert (await claim(store, KEYS[0], token())).is_granted

    run(scenario)


@pytest.mark.parametrize("tags", [(), ("t",)])
def test_a_value_put_without_a_lease_ends_the_lease_of_who_computes_it(run: Run, tags: tuple[str, ...]) -> None:
    async def scenario(store: SharedStore) -> None:
        mine = token()
        stamp = (await claim(store, KEYS[0], mine)).stamp
        assert await put(store, KEYS[0], b"newer", tags=tags) is True
        assert await put(store, KEYS[0], b"older", token=mine, stamp=stamp, tags=tags) is False
        assert await store.get_many([KEYS[0]]) == [b"newer"]

    run(scenario)


INVALIDATIONS = [
    Invalidation("keys", (KEYS[0], LONG)),
    Invalidation("tag", ("t",)),
    Invalidation("pattern", ("a:*",)),
    Invalidation("all"),
]


@pytest.mark.parametrize("invalidation", INVALIDATIONS, ids=lambda one: one.kind)
def test_what_was_computed_before_an_invalidation_is_never_stored(run: Run, invalidation: Invalidation) -> None:
    async def scenario(store: SharedStore) -> None:
        for key in (KEYS[0], LONG):
            mine = token()
            stamp = (await claim(store, key, mine)).stamp
            assert await store.invalidate(invalidation, ME) == 0
            assert await put(store, key, b"old", token=mine, stamp=stamp, tags=("t", "u")) is False
            assert await store.get_many([key]) == [None]
            assert (await claim(store, key, token())).is_granted  # nobody has to wait for who was refused

    run(scenario)


@pytest.mark.parametrize("invalidation", INVALIDATIONS, ids=lambda one: one.kind)
def test_what_is_computed_after_an_invalidation_is_stored_and_found_by_the_next(
    run: Run, invalidation: Invalidation
) -> None:
    async def scenario(store: SharedStore) -> None:
        for _ in range(3):
            for key in (KEYS[0], LONG):
                mine = token()
                stamp = (await claim(store, key, mine)).stamp
                assert await put(store, key, token=mine, stamp=stamp, tags=("t",), ttl_s=60.0) is True
            await put(store, KEYS[2], tags=("other",))
            assert await store.invalidate(invalidation, ME) == 2 + (invalidation.kind == "all")

    run(scenario)


def test_a_tag_finds_what_has_it_and_nothing_else(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        tags = ("t", "{odd}*\x00~", "가" * 300)
        for index, key in enumerate(ODD_KEYS):
            await put(store, key, tags=(tags[index % 3], f"own {index}"))
        await put(store, "untagged\x00")
        assert await store.invalidate(Invalidation("tag", ("T", "none")), ME) == 0
        left = len(ODD_KEYS)
        for tag in tags:
            gone = await store.invalidate(Invalidation("tag", (tag,)), ME)
            left -= gone
            assert gone
        assert left == 0
        assert await store.get_many(["untagged\x00"]) == [b"frame"]

    run(scenario)


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("a:*", [0, 1, 3]),
        ("*", [0, 1, 2, 3, 4, 5]),
        ("a:1", [0]),
        ("?:1", [0, 2]),
        ("[ab]:1", [0, 2]),
        ("[!a]:1", [2]),
        ("a:가*가", [3]),
        ("a:" + "가" * 499 + "?", [3]),
        ("a:" + "가" * 499, []),
        ("a[*]b\\*", [4]),
        ("가:?", [5]),
        ("a:1\x00*", []),
        ("A:*", []),
    ],
)
def test_a_pattern_matches_readable_keys_as_globs_do(run: Run, pattern: str, matching: list[int]) -> None:
    async def scenario(store: SharedStore) -> None:
        keys = [*KEYS, LONG, "a*b\\\x00", "가:나\x00s1"]
        for key in keys:
            await put(store, key)
        assert await store.invalidate(Invalidation("pattern", (pattern,)), ME) == len(matching)
        expected = [None if index in matching else b"frame" for index in range(len(keys))]
        assert await store.get_many(keys) == expected

    run(scenario)


def test_many_values_go_at_once(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        keys = [make_key("many", (number,)) for number in range(1_200)]
        for begin in range(0, len(keys), 500):
            await store.put_many([Put(key, b"x", None, ("t",)) for key in keys[begin : begin + 500]])
        assert await store.invalidate(Invalidation("tag", ("t",)), ME) == len(keys)
        await store.put_many([Put(key, b"x", None) for key in keys])
        assert await store.invalidate(Invalidation("pattern", ("many:1*",)), ME) == 311
        position = await store.position()
        assert await store.invalidate(Invalidation("keys", tuple(keys)), ME) == len(keys) - 311
        page = await store.read_log(position, 0.0)
        assert [key for line in page.lines for key in line.invalidation.values] == keys

    run(scenario)


def test_the_log_tells_each_process_what_came_after_its_position(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        begin = await store.position()
        assert await store.read_log(begin, 0.0) == (begin, (), ())
        lines = []
        for sender, invalidation in (("one", Invalidation("tag", ("\ud800가",))), ("two", Invalidation("all"))):
            await store.invalidate(invalidation, sender)
            lines.append(LogLine(sender, invalidation))
        page = await store.read_log(begin, 0.0)
        assert page.lines == tuple(lines)
        assert page.position == await store.position()
        assert (await store.read_log(page.position, 0.0)).lines == ()

    run(scenario)


def test_who_follows_the_log_is_woken(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        position = await store.position()
        following = asyncio.create_task(store.read_log(position, LIMIT_S))
        await asyncio.sleep(0)
        await store.invalidate(Invalidation("keys", ("k\x00",)), ME)
        page = await following
        assert page.lines == (LogLine(ME, Invalidation("keys", ("k\x00",))),)
        assert (await store.read_log(page.position, 0.01)).lines == ()

    run(scenario)


@pytest.mark.parametrize("is_committed", [True, False])
def test_the_end_of_a_lease_is_told_when_somebody_waits(run: Run, is_committed: bool) -> None:
    async def scenario(store: SharedStore) -> None:
        position = await store.position()
        for key, is_awaited in ((KEYS[0], False), (LONG, True)):
            mine = token()
            stamp = (await claim(store, key, mine)).stamp
            if is_awaited:
                await claim(store, key, token())
                await store.extend_many([ClaimRequest(key, mine)], LEASE_S)
            if is_committed:
                await put(store, key, token=mine, stamp=stamp)
            else:
                await store.release(key, mine)
        assert (await store.read_log(position, LIMIT_S)).woken == (LONG,)

    run(scenario)


def test_a_position_of_another_life_is_a_gap(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        position = await store.position()
        with pytest.raises(LogGapError) as caught:
            await store.read_log(LogPosition("another", position.offset), 0.0)
        assert not caught.value.is_rollback

    run(scenario)


def test_operations_under_way_at_once_do_not_mix_up(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        async def one(number: int) -> None:
            key = make_key("mixed", (number,))
            await put(store, key, b"%d" % number, tags=("t",) if number % 2 else ())
            assert await store.get_many([key, "none\x00"]) == [b"%d" % number, None]

        await asyncio.gather(*(one(number) for number in range(12)))

    run(scenario)


def test_a_cancelled_operation_leaves_the_store_usable(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        for key in KEYS:
            await put(store, key, key.encode())
        for steps in range(30):
            task = asyncio.create_task(store.get_many([KEYS[0]]))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await store.get_many(KEYS) == [key.encode() for key in KEYS]

    run(scenario)


def test_a_closed_store_says_so_and_opens_again(run: Run) -> None:
    async def scenario(store: SharedStore) -> None:
        await put(store, KEYS[0])
        await store.close()
        await store.close()
        with pytest.raises(StoreFaultError) as caught:
            await store.get_many([KEYS[0]])
        assert caught.value.kind == "connection"
        await store.open()
        assert await store.get_many([KEYS[0]]) == [b"frame"]

    run(scenario)
