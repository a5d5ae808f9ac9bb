"""The tier through a network that breaks: callers never see an error, and never wait longer than a time limit."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ondol.cache.adapters.redis_store import RedisStore
from ondol.cache.ports import ClaimRequest, Invalidation, LogPosition, Put, StoreFaultError
from ondol.cache.shared import SharedParams, SharedTier
from ondol.clock import SystemClock
from tests.service.redis_proxy import FaultProxy
from tests.service.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from ondol.cache.ports import SharedStore
    from tests.service.redis_proxy import Mode

KEY = "k:1\x00i1"
TOKEN = "t" * 32
TIMEOUT_S = 0.1
LIMIT_S = 10.0
FAST = SharedParams(probe_s=0.01, max_probe_s=0.02, settle_s=0.02, log_wait_s=0.05)
MODES: list[Mode] = ["slow", "cut", "half", "hole", "reset", "refuse", "garbage", "error"]
OPERATIONS: dict[str, Callable[[SharedStore], Coroutine[Any, Any, Any]]] = {
    "ping": lambda store: store.ping(),
    "get": lambda store: store.get_many([KEY, "other\x00"]),
    "claim": lambda store: store.claim_many([ClaimRequest(KEY, TOKEN)], 5.0),
    "put": lambda store: store.put_many([Put(KEY, b"x" * 1000, 5.0)]),
    "put with tags": lambda store: store.put_many([Put(KEY, b"x" * 1000, 5.0, ("t",))]),
    "extend": lambda store: store.extend_many([ClaimRequest(KEY, TOKEN)], 5.0),
    "release": lambda store: store.release(KEY, TOKEN),
    "invalidate keys": lambda store: store.invalidate(Invalidation("keys", (KEY,)), "me"),
    "invalidate tag": lambda store: store.invalidate(Invalidation("tag", ("t",)), "me"),
    "invalidate pattern": lambda store: store.invalidate(Invalidation("pattern", ("*",)), "me"),
    "invalidate all": lambda store: store.invalidate(Invalidation("all"), "me"),
    "position": lambda store: store.position(),
    "read_log": lambda store: store.read_log(LogPosition("e", "1-1 1 0-0"), 0.05),
}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.port) as running:
        yield running


def kind_of(result: Any) -> str | None:
    if isinstance(result, list) and result and isinstance(result[0], StoreFaultError):
        return result[0].kind
    return None


@pytest.mark.parametrize("mode", MODES)
def test_each_operation_ends_in_a_fault_in_time_and_the_store_works_again_after(proxy: FaultProxy, mode: Mode) -> None:
    async def one(name: str) -> None:
        store = RedisStore(proxy.url, namespace=f"{mode} {name}", timeout_s=TIMEOUT_S)
        proxy.mode = "pass"
        await store.open()
        await store.put_many([Put(KEY, b"before", None)])
        if mode == "refuse":
            await store.close()
            await store.open()
        proxy.mode = mode
        begun_s = time.monotonic()
        try:
            kind = kind_of(await OPERATIONS[name](store))
        except StoreFaultError as exc:
            kind = exc.kind
        assert kind is not None, f"{name} gave an answer although the connection is broken"
        assert time.monotonic() - begun_s < TIMEOUT_S * 2 + 1.0
        proxy.mode = "pass"
        # No reply of before is taken for the answer to this.
        assert (await store.get_many(["none\x00", KEY]))[0] is None
        await store.close()

    async def scenario() -> None:
        for name in OPERATIONS:
            await one(name)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("LOADING Redis is loading the dataset in memory", "loading"),
        ("READONLY You can't write against a read only replica.", "readonly"),
        ("MOVED 3999 127.0.0.1:6381", "moved"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "memory"),
        ("NOAUTH Authentication required.", "auth"),
        ("NOPERM this user has no permissions", "auth"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "reply"),
        ("ERR something else", "reply"),
        ("CLUSTERDOWN The cluster is down", "moved"),
    ],
)
def test_an_error_reply_is_a_fault_of_its_kind_and_a_miss_for_callers(proxy: FaultProxy, error: str, kind: str) -> None:
    tier = started(RedisStore(proxy.url, namespace=kind, timeout_s=TIMEOUT_S))
    try:
        assert tier.get_stats()["is_up"]
        proxy.error, proxy.mode = error, "error"
        assert tier.fetch_blocking(KEY) is None
        assert tier.claim_blocking(KEY) == (None, None)
        until(lambda: kind in tier.get_stats()["failures"])
        proxy.mode = "pass"
        until(lambda: tier.get_stats()["is_up"])
    finally:
        tier.stop()


@pytest.mark.parametrize("mode", MODES)
def test_callers_see_misses_only_and_everything_is_made_up_for(proxy: FaultProxy, mode: Mode) -> None:
    tier = started(RedisStore(proxy.url, namespace=f"tier {mode}", timeout_s=TIMEOUT_S))
    other = started(RedisStore(proxy.url.replace(str(proxy.port), str(proxy._server_port)), namespace=f"tier {mode}"))
    try:
        tier.put(KEY, b"old", ttl_s=None, tags=("t",))
        tier.put("kept\x00", b"kept", ttl_s=None)
        until(lambda: other.fetch_blocking(KEY) == b"old" and other.fetch_blocking("kept\x00") == b"kept")
        proxy.mode = mode
        until(lambda: tier.fetch_blocking(KEY) is None and not tier.get_stats()["is_up"])
        tier.invalidate(Invalidation("tag", ("t",)))
        begun_s = time.monotonic()
        assert tier.fetch_blocking(KEY) is None
        assert tier.claim_blocking(KEY) == (None, None)
        tier.put("kept\x00", b"dropped", ttl_s=None)
        assert time.monotonic() - begun_s < TIMEOUT_S
        proxy.mode = "pass"
        until(lambda: tier.get_stats()["is_up"])
        assert tier.fetch_blocking(KEY) is None
        assert other.fetch_blocking(KEY) is None
        assert other.fetch_blocking("kept\x00") is None  # a newer value could not be written: the old one is outdated
        assert tier.get_stats()["invalidations_replayed"] >= 2
    finally:
        tier.stop()
        other.stop()


def started(store: SharedStore, params: SharedParams = FAST) -> SharedTier:
    tier = SharedTier(
        store,
        SystemClock(),
        namespace="test",
        on_invalidated=lambda _invalidation: None,
        on_gap=lambda: None,
        params=params,
    )
    tier.start(LIMIT_S)
    return tier


def until(is_true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not is_true():
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.005)


def test_a_full_server_still_reads_and_a_full_queue_does_not_open_the_breaker() -> None:
    with RedisServer("unix", "--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as small:
        tier = started(RedisStore(small.url, namespace="full", timeout_s=1.0))
        try:
            tier.put(KEY, b"small", ttl_s=None)
            until(lambda: tier.fetch_blocking(KEY) == b"small")
            for number in range(40):
                tier.put(f"big:{number}\x00", b"x" * 200_000, ttl_s=None)
            until(lambda: "memory" in tier.get_stats()["failures"])
            until(lambda: tier.get_stats()["queued"] == 0)
            assert tier.get_stats()["dropped_puts"] > 0
            until(lambda: tier.fetch_blocking(KEY) == b"small")
        finally:
            tier.stop()


def test_a_wrong_password_is_a_store_that_is_down_and_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(password="right") as guarded:
        for url, is_up in ((guarded.url, True), (guarded.url.replace("right", "wr0ng"), False)):
            tier = started(RedisStore(url, namespace="auth", timeout_s=1.0))
            try:
                stats = tier.get_stats()
                assert stats["is_up"] == is_up
                assert tier.fetch_blocking(KEY) is None
                assert ":***@" in stats["address"]
                assert is_up or stats["failures"]["auth"]
            finally:
                tier.stop()
    assert caplog.records
    shown = caplog.text + repr(stats)
    assert "wr0ng" not in shown
    assert "right" not in shown


def test_an_unknown_host_is_a_store_that_is_down() -> None:
    tier = started(RedisStore("redis://no-such-host.invalid:1/0", namespace="n", timeout_s=1.0))
    try:
        assert not tier.get_stats()["is_up"]
        assert tier.fetch_blocking(KEY) is None
    finally:
        tier.stop()
