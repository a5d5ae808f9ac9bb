"""The shared tier's decisions: when the breaker opens, what the outbox keeps, how keys are called."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest

from ondol.cache.adapters.redis_url import masked, read_url
from ondol.cache.keys import key_text, make_key
from ondol.cache.ports import Invalidation, Put
from ondol.cache.shared.breaker import CircuitBreaker
from ondol.cache.shared.leases import Lease
from ondol.cache.shared.names import MAX_NAME_BYTES, Naming
from ondol.cache.shared.outbox import Outbox
from ondol.cache.shared.params import SharedParams
from ondol.errors import InvalidSettingError

PARAMS = SharedParams(queue_puts=3, queue_bytes=100, queue_values=3)
A, B, C = "a:1\x00i1", "b:1\x00i1", "c:1\x00i1"


def closed_breaker(**params: Any) -> CircuitBreaker:
    breaker = CircuitBreaker(SharedParams(**params), lambda: 0.5)
    breaker.close(0.0)
    return breaker


def test_the_breaker_begins_open_and_closes_after_a_probe() -> None:
    breaker = CircuitBreaker(SharedParams(), lambda: 0.0)
    states: list[str] = [breaker.state]
    for step in (breaker.probe, breaker.probe_failed, lambda: breaker.close(1.0)):
        step()
        states.append(breaker.state)
    assert states == ["open", "half-open", "open", "closed"]
    assert breaker.opened == 0


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not() -> None:
    breaker = closed_breaker()
    assert [breaker.failed(1.0), breaker.failed(1.0)] == [False, False]
    breaker.succeeded()
    assert [breaker.failed(1.0), breaker.failed(1.0), breaker.failed(1.0), breaker.failed(1.0)] == [
        False,
        False,
        True,
        False,
    ]
    assert breaker.opened == 1


def test_one_failure_is_enough_when_it_is_final() -> None:
    assert closed_breaker().failed(1.0, is_final=True)


def test_many_failures_among_successes_open_it() -> None:
    breaker = closed_breaker(failures_in_a_row=100)
    opened_by = []
    for number in range(40):
        if number % 5 < 2:
            breaker.succeeded()
        elif breaker.failed(1.0):
            opened_by.append(number)
    assert opened_by == [19]


def test_probes_come_ever_more_rarely_and_not_all_at_once() -> None:
    breaker = CircuitBreaker(SharedParams(probe_s=0.1, max_probe_s=1.0), lambda: 0.5)
    assert [round(breaker.next_probe_s(), 3) for _ in range(6)] == [0.075, 0.15, 0.3, 0.6, 0.75, 0.75]
    breaker.close(100.0)
    breaker.failed(101.0, is_final=True)  # soon after: as rarely as before
    assert breaker.next_probe_s() == 0.75
    breaker.close(200.0)
    breaker.failed(300.0, is_final=True)
    assert breaker.next_probe_s() == pytest.approx(0.075)


def test_the_outbox_keeps_the_order_and_writes_together_what_may_be() -> None:
    outbox = Outbox(SharedParams())
    for key in (A, B, A):
        outbox.put(Put(key, b"x", None), None, is_up=True)
    outbox.invalidate(Invalidation("keys", (A,)))
    outbox.invalidate(Invalidation("keys", (B,)))
    outbox.invalidate(Invalidation("tag", ("t",)))
    outbox.put(Put(C, b"x", None), None, is_up=True)
    batches = []
    while len(outbox):
        batch = outbox.take()
        batches.append([outgoing.what for outgoing in batch])
        outbox.done([True] * len(batch))
    assert [[type(what).__name__ for what in batch] for batch in batches] == [
        ["Put", "Put"],
        ["Put"],
        ["Invalidation", "Invalidation"],
        ["Invalidation"],
        ["Put"],
    ]
    assert outbox.dropped_puts == 0


def test_what_is_on_its_way_blocks_reads_of_it_and_of_nothing_else() -> None:
    outbox = Outbox(SharedParams())
    assert not outbox.blocks(A)
    outbox.put(Put(A, b"x", None), None, is_up=True)
    outbox.invalidate(Invalidation("pattern", ("b:*",)))
    outbox.put(Put(C, b"computed", None, token="t"), None, is_up=True)
    assert [outbox.blocks(key) for key in (A, B, C)] == [True, True, False]
    outbox.invalidate(Invalidation("tag", ("t",)))
    assert outbox.blocks(C)
    while len(outbox):
        outbox.done([True] * len(outbox.take()))
    assert not any(outbox.blocks(key) for key in (A, B, C))


def test_a_value_that_cannot_be_written_ends_the_use_of_the_older_one() -> None:
    outbox = Outbox(PARAMS)
    assert not outbox.put(Put(A, b"x", None), None, is_up=False)
    assert not outbox.put(Put(B, b"x" * 101, None), None, is_up=True)
    assert [outgoing.what for outgoing in outbox.take()] == [Invalidation("keys", (A, B))]
    assert outbox.dropped_puts == 2


def test_a_computed_value_that_cannot_be_written_is_just_dropped() -> None:
    told: list[Any] = []
    outbox = Outbox(PARAMS)
    outbox.put(Put(A, b"x", None, token="t"), told.append, is_up=False)
    assert not outbox.take()
    assert outbox.due == [(told.append, None)]


def test_too_many_invalidations_become_one_of_everything_and_all_who_wait_are_told() -> None:
    told: list[Any] = []
    outbox = Outbox(PARAMS)
    outbox.put(Put(A, b"x", None), None, is_up=True)
    outbox.invalidate(Invalidation("keys", (A, B)), told.append)
    outbox.invalidate(Invalidation("keys", (A, C)), told.append)
    assert [outgoing.what for outgoing in outbox.take()] == [Invalidation("all")]
    outbox.done([7])
    for receipt, result in outbox.due:
        receipt(result)
    assert told == [7, 7]
    assert (outbox.overflows, outbox.dropped_puts, outbox.invalidations) == (1, 1, 0)


def test_what_failed_comes_again_first_and_values_are_dropped() -> None:
    outbox = Outbox(SharedParams())
    outbox.invalidate(Invalidation("tag", ("t",)))
    outbox.put(Put(A, b"x", None), None, is_up=True)
    outbox.take()
    outbox.failed()
    assert [outgoing.what for outgoing in outbox.take()] == [Invalidation("tag", ("t",))]
    outbox.done([1])
    outbox.take()
    outbox.failed()
    assert [outgoing.what for outgoing in outbox.take()] == [Invalidation("keys", (A,))]


def test_when_the_store_goes_down_values_are_dropped_and_invalidations_stay_in_order() -> None:
    outbox = Outbox(SharedParams())
    outbox.invalidate(Invalidation("tag", ("t",)))
    for key in (A, B):
        outbox.put(Put(key, b"x", None), None, is_up=True)
    outbox.put(Put(C, b"x", None, token="t"), None, is_up=True)
    outbox.invalidate(Invalidation("pattern", ("x*",)))
    outbox.drop_puts()
    left = []
    while batch := outbox.take():
        left += [outgoing.what for outgoing in batch]
        outbox.done([0] * len(batch))
    assert left == [Invalidation("tag", ("t",)), Invalidation("keys", (A, B)), Invalidation("pattern", ("x*",))]


def test_what_another_process_invalidated_is_not_written_after_it() -> None:
    outbox = Outbox(SharedParams())
    for key in (A, B):
        outbox.put(Put(key, b"x", None), None, is_up=True)
    outbox.take()
    outbox.put(Put(C, b"x", None), None, is_up=True)
    outbox.drop_overtaken(lambda put: put.key != B)
    outbox.done([True, True])
    assert [outgoing.what for outgoing in outbox.take()] == [Invalidation("keys", (C,)), Invalidation("keys", (A,))]


KEYS = [
    make_key("user", (1,)),
    make_key("user", ({"a": "}"}, "{", "x\x00~y")),
    "user:" + "가" * 300 + "\x00s300",
    "user:" + "가" * 301 + "\x00s301",
    "\ud800\x00",
    "",
]


def test_names_are_short_distinct_and_keep_value_and_lease_in_one_slot() -> None:
    naming = Naming("n" * 48)
    names = [naming.of_key(key) for key in KEYS]
    assert all(len(name.value) <= MAX_NAME_BYTES for name in names)
    assert len({name.value for name in names} | {name.lease for name in names}) == 2 * len(KEYS)
    for name in names:
        begin = name.value.index(b"{")
        assert name.value[begin : begin + 10] == name.lease[begin : begin + 10]
        assert name.value[begin + 9 : begin + 10] == b"}"
        assert naming.is_value(name.value)
        assert not naming.is_value(name.lease)


def test_a_long_key_stands_in_front_of_its_value_and_another_is_told_apart() -> None:
    naming = Naming("n")
    one, other = naming.of_key(KEYS[2]), naming.of_key(KEYS[3])
    assert one.frame_of(one.header + b"frame") == b"frame"
    assert one.frame_of(other.header + b"frame") is None
    assert naming.key_in_header(one.header + b"frame") == KEYS[2]
    assert naming.key_in_header(one.header[:100]) is None
    assert naming.of_key(KEYS[0]).frame_of(b"frame") == b"frame"


@pytest.mark.parametrize("pattern", ["user:*", "user:가*", "*", "user:1", "us[e]r:*", "user:" + "가" * 200 + "*"])
def test_the_servers_glob_finds_the_name_of_every_key_that_matches(pattern: str) -> None:
    naming = Naming("a*[b]?")
    glob = naming.scan_glob("vl", pattern).decode("utf-8", "surrogatepass")
    # As the server reads it; Python's globs have no backslash.
    for sign in "*?[]\\^-":
        glob = glob.replace("\\" + sign, f"[{sign}]" if sign in "*?[" else sign)
    for key in KEYS:
        if fnmatch.fnmatchcase(key_text(key), pattern):
            name = naming.of_key(key).value.decode("utf-8", "replace")
            assert fnmatch.fnmatchcase(name, glob) or "\ufffd" in name


@pytest.mark.parametrize(
    ("url", "client_url", "is_cluster"),
    [
        ("redis://h:1/2", "redis://h:1/2", False),
        ("valkey://u:p%40@h", "redis://u:p%40@h", False),
        ("valkeys://h", "rediss://h", False),
        ("redis+cluster://h:1", "redis://h:1", True),
        ("rediss+cluster://h:1/0?ssl_ca_certs=/a", "rediss://h:1/0?ssl_ca_certs=%2Fa", True),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1", False),
    ],
)
def test_addresses_are_read(url: str, client_url: str, is_cluster: bool) -> None:
    address = read_url(url)
    assert (address.client_url, address.is_cluster) == (client_url, is_cluster)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://u:secret@h", "rediss\\+cluster://"),
        ("", "redis://"),
        ("redis://:secret@", "host"),
        ("redis://:secret@h:99999", "(?i)port"),
        ("redis://:secret@h:port", "(?i)port"),
        ("redis://:secret@h:0", "port"),
        ("redis://:secret@h/zero", "database"),
        ("redis+cluster://:secret@h/1", "database 0"),
        ("unix://", "socket"),
        ("redis://h?password=secret&decode_responses=1", "decode_responses"),
        ("redis://[:secret@h", "CACHE_REDIS_URL"),
    ],
)
def test_an_address_that_cannot_work_is_refused_without_showing_the_password(url: str, reason: str) -> None:
    with pytest.raises(InvalidSettingError, match=reason) as caught:
        read_url(url)
    assert "CACHE_REDIS_URL" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_masking_keeps_what_is_no_password() -> None:
    assert masked("redis://:p@ss@h:1/0?db=1") == "redis://:***@h:1/0?db=1"
    assert masked("redis://user@h") == "redis://user@h"
    assert masked("redis://h?password=x") == "redis://h?password=***"


def test_an_unknown_option_of_the_address_is_refused() -> None:
    pytest.importorskip("redis")
    from ondol.cache.adapters.redis_store import RedisStore

    with pytest.raises(InvalidSettingError, match="no_such_option"):
        RedisStore("redis://h?no_such_option=1", namespace="n")
    for namespace in ("", "a{b", "x" * 49):
        with pytest.raises(InvalidSettingError, match="namespace"):
            RedisStore("redis://h", namespace=namespace)


def test_params_are_checked() -> None:
    with pytest.raises(InvalidSettingError, match=r"lease_s=0[^\d]"):
        SharedParams(lease_s=0)
    with pytest.raises(InvalidSettingError, match="queue_puts='1'"):
        SharedParams(queue_puts="1")  # type: ignore[arg-type]
    assert SharedParams(settle_s=0.0).settle_s == 0


class Owner:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def commit(self, frame: bytes, ttl_s: float | None, tags: tuple[str, ...], done: Any) -> None:
        self.calls.append(f"commit {frame!r} {ttl_s} {tags}")

    def release(self) -> None:
        self.calls.append("release")


def test_a_lease_ends_once_and_at_the_latest_when_it_is_forgotten() -> None:
    owner = Owner()
    lease = Lease(owner)
    lease.commit(b"x", float("inf"), ["t"])
    lease.release()
    lease.commit(b"y", None)
    del lease
    assert owner.calls == ["commit b'x' None ('t',)"]
    Lease(owner)
    assert owner.calls[1:] == ["release"]
