from __future__ import annotations

import asyncio
import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from ondol.cache.ports import StoreFaultError
from ondol.errors import InvalidSettingError
from ondol.preload.history import History
from ondol.preload.history_redis import KEPT_S, MAX_NODES, MAX_PACKED_BYTES, MAX_PLAIN_BYTES, RedisHistory
from ondol.preload.ports import Taken
from ondol.testing import FakeClock
from tests.service.history_fakes import CountingKnowledge
from tests.service.redis_proxy import FaultProxy
from tests.service.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service.redis_proxy import Mode

PLAIN = {"format": 1, "models": {"한국어\ud800": [3, 1.5]}}


@pytest.fixture(scope="module", params=["unix", "tls", "cluster"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(request.param) as running:
        yield running


@pytest.fixture
def one(server: RedisServer, request: pytest.FixtureRequest) -> RedisHistory:
    return node_of(server, "one", request.node.name)


def node_of(server: RedisServer, name: str, test: str, clock: FakeClock | None = None) -> RedisHistory:
    namespace = f"t{zlib.crc32(test.encode())}"
    return RedisHistory(server.url, namespace=namespace, node=name, clock=clock or FakeClock())


def key_of(history: RedisHistory, node: str) -> str:
    return f"{history._index.decode()}:{node}"


def put_raw(server: RedisServer, history: RedisHistory, node: str, value: bytes) -> None:
    """Store any bytes as what a node left."""
    decoded = "string.gsub(ARGV[1], '..', function(h) return string.char(tonumber(h, 16)) end)"
    script = f"return redis.call('SET', KEYS[1], ({decoded}))"
    assert server.command("EVAL", script, "1", key_of(history, node), value.hex()) == b"+OK\r\n"
    server.command("ZADD", history._index.decode(), "1750000000", node)


def test_what_one_leaves_the_other_takes_until_it_has_seen_it(
    server: RedisServer, one: RedisHistory, request: pytest.FixtureRequest
) -> None:
    two = node_of(server, "two", request.node.name)
    assert two.take({}) == Taken()
    one.leave(PLAIN)
    [foreign] = two.take({}).nodes
    assert (foreign.node, foreign.written_at_s, foreign.knowledge) == ("one", 1_750_000_000.0, PLAIN)
    assert two.take({"one": foreign.written_at_s}) == Taken()
    assert one.take({}) == Taken()
    left_s = int(server.command("TTL", key_of(one, "one"))[1:])
    assert KEPT_S - 60 <= left_s <= KEPT_S
    assert KEPT_S - 60 <= int(server.command("TTL", one._index.decode())[1:]) <= KEPT_S


def test_the_freshest_nodes_come_first_and_not_all(
    server: RedisServer, one: RedisHistory, request: pytest.FixtureRequest
) -> None:
    clock = FakeClock()
    for number in range(MAX_NODES + 5):
        clock.advance(10.0)
        node_of(server, f"n{number}", request.node.name, clock).leave({"number": number})
    numbers = [foreign.knowledge["number"] for foreign in one.take({}).nodes]
    assert numbers == list(range(MAX_NODES + 4, 4, -1))
    clock.advance(KEPT_S - 100.0)
    node_of(server, "late", request.node.name, clock).leave({"number": -1})
    assert server.command("ZCARD", one._index.decode()) == b":11\r\n"


def damaged_values() -> dict[str, bytes]:
    def packed(value: Any) -> bytes:
        return zlib.compress(json.dumps(value).encode())

    good = packed({"format": 1, "node": "bad", "knowledge": {}})
    return {
        "rubbish": b"rubbish",
        "cut off": good[:-3],
        "more behind": good + b"x",
        "no json": zlib.compress(b"{"),
        "no text": zlib.compress(b"\xff\xff"),
        "deep": zlib.compress(b"[" * 200_000),
        "a list": packed([]),
        "another format": packed({"format": 2, "node": "bad", "knowledge": {}}),
        "another node's": packed({"format": 1, "node": "x", "knowledge": {}}),
        "no knowledge": packed({"format": 1, "node": "bad", "knowledge": [1]}),
        "unpacks to far too much": zlib.compress(b" " * (MAX_PLAIN_BYTES + 1)),
    }


@pytest.mark.parametrize("name", list(damaged_values()))
def test_what_is_damaged_is_ignored_and_counted(
    server: RedisServer, one: RedisHistory, request: pytest.FixtureRequest, name: str
) -> None:
    node_of(server, "good", request.node.name).leave(PLAIN)
    put_raw(server, one, "bad", damaged_values()[name])
    taken = one.take({})
    assert ([foreign.node for foreign in taken.nodes], taken.damaged) == (["good"], 1)


def test_a_key_of_another_type_one_too_large_and_one_that_is_gone_are_ignored(
    server: RedisServer, one: RedisHistory, request: pytest.FixtureRequest
) -> None:
    node_of(server, "good", request.node.name).leave(PLAIN)
    server.command("LPUSH", key_of(one, "list"), "x")
    server.command("SETRANGE", key_of(one, "large"), str(MAX_PACKED_BYTES), "x")
    for node in ("list", "large", "gone"):
        server.command("ZADD", one._index.decode(), "1750000000", node)
    server.command("ZADD", one._index.decode(), "inf", "never")
    taken = one.take({})
    assert ([foreign.node for foreign in taken.nodes], taken.damaged) == (["good"], 2)


def test_what_is_too_large_is_not_left(one: RedisHistory, server: RedisServer) -> None:
    with pytest.raises(ValueError, match="too large"):
        one.leave({"x": " " * (MAX_PLAIN_BYTES + 1)})
    assert server.command("EXISTS", key_of(one, "one")) == b":0\r\n"


def test_an_index_of_another_type_is_a_fault(one: RedisHistory, server: RedisServer) -> None:
    server.command("SET", one._index.decode(), "x")
    with pytest.raises(StoreFaultError, match="WRONGTYPE"):
        one.leave(PLAIN)
    with pytest.raises(StoreFaultError, match="WRONGTYPE"):
        one.take({})


@pytest.mark.parametrize("mode", ["slow", "cut", "half", "hole", "reset", "refuse", "garbage", "error"])
def test_a_broken_network_is_a_fault_in_time(mode: Mode) -> None:
    with RedisServer() as running, FaultProxy(running.port) as proxy:
        history = RedisHistory(proxy.url, namespace="broken", node="one", clock=FakeClock(), timeout_s=0.1)
        history.leave(PLAIN)
        proxy.mode = mode
        with pytest.raises(StoreFaultError):
            history.leave(PLAIN)
        with pytest.raises(StoreFaultError):
            history.take({})
        proxy.mode = "pass"
        history.leave(PLAIN)


def test_addresses_are_checked_at_once_and_shown_without_password() -> None:
    with pytest.raises(InvalidSettingError):
        RedisHistory("http://host", namespace="t")
    with pytest.raises(InvalidSettingError):
        RedisHistory("redis://host?no_such_option=1", namespace="t")
    history = RedisHistory("redis://:secret@host:1/0", namespace="t")
    assert history.address == "redis://:***@host:1/0"
    assert history.node


def test_a_history_over_a_server_that_goes_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    def node(name: str, server: RedisServer) -> tuple[CountingKnowledge, History]:
        knowledge, clock = CountingKnowledge(), FakeClock()
        shared = RedisHistory(server.url, namespace="whole", node=name, clock=clock)
        return knowledge, History(knowledge, None, clock=clock, shared=shared)

    async def life(name: str, server: RedisServer, *uses: str) -> CountingKnowledge:
        knowledge, history = node(name, server)
        await history.start()
        for use in uses:
            knowledge.use(use, 0.0)
        await history.stop()
        shared = history.get_stats()["shared"]
        assert shared["failures"] == (2 if server.process is None else 0)
        return knowledge

    with RedisServer() as server:
        asyncio.run(life("one", server, "a", "a"))
        assert asyncio.run(life("two", server, "b")).counts == {"a": 2, "b": 1}
        server.kill()
        assert asyncio.run(life("three", server)).counts == {}
        assert sum(bool(record.exc_info) for record in caplog.records) == 1
        server.start_again()
        asyncio.run(life("one", server, "c"))
        assert asyncio.run(life("three", server)).counts == {"c": 1}
