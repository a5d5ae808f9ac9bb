from __future__ import annotations

import fnmatch
import re

import pytest

from ondol.cache.disk_keys import Barrier, glob_prefix, is_cut, key_of, store_key, tag_digest
from ondol.cache.disk_records import NO_EXPIRY, Record, expiry_key, pack_record, unpack_record, weight_of
from ondol.cache.glob import Glob
from ondol.cache.keys import key_text, make_key
from ondol.cache.ports import Invalidation
from ondol.errors import CorruptEntryError

LONG = make_key("n", tuple("x" * 90 for _ in range(6)))
KEYS = ["", "\x00", make_key("user", (7,)), make_key("온돌", ("\ud800",)), "no nul", LONG, LONG[:-1] + "9", "é" * 300]


def test_every_key_has_its_own_key_in_the_store() -> None:
    raw_keys = [store_key(key) for key in KEYS]
    assert len(set(raw_keys)) == len(KEYS)
    assert all(1 <= len(raw) <= 511 for raw in raw_keys)
    assert [key_of(raw) for raw in raw_keys if not is_cut(raw)] == [
        key for key in KEYS if len(key.encode("utf-8", "surrogatepass")) <= 480
    ]


@pytest.mark.parametrize("pattern", ["", "*", "user:7", "user:*", "us?r:*", "n:xxx*", "n:" + "x" * 90 + ":*", "[u]*"])
def test_all_that_matches_a_glob_lies_behind_its_prefix(pattern: str) -> None:
    prefix, matches = glob_prefix(Glob(pattern)), re.compile(fnmatch.translate(pattern)).match
    for key in KEYS:
        if matches(key_text(key)) and key:
            assert store_key(key).startswith(prefix)


def test_records_survive_the_round_trip() -> None:
    for record in (Record(1, 2, 3, NO_EXPIRY, 5), Record(1, 2, 3, 4.5, 6, (b"tag", b""), b"key")):
        assert unpack_record(pack_record(record)) == record
    with pytest.raises(CorruptEntryError, match="not the record"):
        unpack_record(b"short")


def test_what_is_dear_for_its_size_is_worth_more() -> None:
    assert weight_of(2.0, 1000) > weight_of(1.0, 1000) > weight_of(1.0, 2000) >= 1
    assert weight_of(0.0, 1000) == weight_of(0.001, 1000) > weight_of(0.0, 10**12) == 1
    assert Record(0, 0, 0, 0.0, 10).used(5, 9)[:2] == (15, 9)


def test_times_of_expiry_sort_as_numbers() -> None:
    times = [-1.0, 0.0, 0.001, 1.0, 255.0, 256.0, 1.75e9, 1e300]
    keys = [expiry_key(time_s, 1) for time_s in times]
    assert keys == sorted(keys)


def test_a_barrier_stands_until_what_it_stands_for_is_done() -> None:
    barrier = Barrier()
    assert not barrier
    barrier.add(Invalidation("tag", ("t",)), 1)
    barrier.add(Invalidation("pattern", ("user:*",)), 2)
    barrier.add(Invalidation("tag", ("u",)), 3)
    assert barrier.stops("x\x00", ("t",))
    assert barrier.stops("x\x00", (tag_digest("t"),))
    assert barrier.stops(make_key("user", (7,)), ())
    assert not barrier.stops("x\x00", ("v",))
    barrier.lower(2)
    assert not barrier.stops(make_key("user", (7,)), ("t",))
    assert barrier.stops("x\x00", ("u",))
    barrier.add(Invalidation("all"), 4)
    barrier.lower(3)
    assert barrier.stops("x\x00", ())
    barrier.lower(4)
    assert not barrier
