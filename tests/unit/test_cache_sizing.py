from __future__ import annotations

import json
import sys
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import pytest

from ondol import Cache
from ondol.cache.sizing import DEADLINE_OVERHEAD_BYTES, ENTRY_OVERHEAD_BYTES, FLAT_TYPES, entry_size, size_of
from ondol.cache.tags import TAG_OVERHEAD_BYTES

FLAT_VALUES = ["", "abc" * 100, "가나다" * 100, b"x" * 1000, bytearray(77), 1, -(10**100), 1.5, 1 + 2j]


@pytest.mark.parametrize("value", FLAT_VALUES)
def test_flat_values_are_exact_up_to_the_allocators_rounding(value: object) -> None:
    assert 0 <= size_of(value) - sys.getsizeof(value) < 16


def test_shared_constants_cost_nothing() -> None:
    assert size_of(None) == size_of(True) == size_of(False) == 0  # the value is what is tested


def test_key_and_overhead_are_counted() -> None:
    assert entry_size("k" * 100, None, has_timing=False) >= ENTRY_OVERHEAD_BYTES + 100
    plain, expiring = (entry_size("k", None, has_timing=flag) for flag in (False, True))
    assert expiring - plain == DEADLINE_OVERHEAD_BYTES
    assert entry_size("k", None, tag_count=3) - plain == 3 * TAG_OVERHEAD_BYTES


def test_keys_of_several_parts_count_them() -> None:
    text, number = "".join(["long part "] * 9), 10**9
    one = entry_size(text, None) - ENTRY_OVERHEAD_BYTES
    several = entry_size((text, number), None) - ENTRY_OVERHEAD_BYTES
    assert several == one + size_of(number) + (sys.getsizeof((text, number)) + 15) // 16 * 16
    assert entry_size((text, 7), None) < entry_size((text, number), None)  # small integers belong to everybody


@pytest.mark.parametrize("key", ["", "short", "가나다 " * 20])
@pytest.mark.parametrize("value", [*FLAT_VALUES, None, True, [1.5, "x"], np.zeros(384, np.float32)])
def test_the_cache_accounts_what_entry_size_says_on_every_path(key: str, value: object) -> None:
    """Strings under strings are measured in line, without ``entry_size``: the two must agree."""
    cache = Cache()
    cache.set_nowait("first", 0, "of its name")  # the first of a name takes the long way
    cache.set_nowait("later", 0, "of its name")
    for name in ("first", "later"):
        before = cache.used_bytes
        cache.set_nowait(name, value, key)
        assert cache.used_bytes - before == entry_size(key, value)
        cache.set_nowait(name, value, key)  # in place of itself
        assert cache.used_bytes - before == entry_size(key, value)
        cache.delete_nowait(name, key)
        assert cache.used_bytes == before
    assert {type(value) for value in FLAT_VALUES} == FLAT_TYPES


@pytest.mark.parametrize("shape", [(384,), (1000, 512), (0,)])
def test_arrays_count_their_bytes(shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, dtype=np.float32)
    assert array.nbytes <= size_of(array) <= array.nbytes + 200


def test_arrays_of_equal_shape_count_the_same_whoever_owns_their_bytes() -> None:
    batch = np.ones((32, 384), np.float32)
    assert size_of(batch[7]) == size_of(batch[7].copy()) == size_of(np.frombuffer(bytes(1536), np.float32))
    assert size_of(np.zeros((2, 2, 2))) - size_of(np.zeros(8)) == 2 * 16  # two more lengths and strides


def test_other_buffers_count_what_they_look_into_and_numbers_of_numpy_themselves() -> None:
    assert 4096 <= size_of(memoryview(bytes(4096))) <= 4096 + 200
    assert size_of(np.ma.masked_array(np.zeros(1000), mask=False)) > 8000
    assert size_of(np.float32(1.5)) <= 48
    assert size_of(np.int64(3)) <= 48


def test_a_view_counts_its_own_bytes_and_an_object_array_its_objects() -> None:
    assert size_of(np.zeros((1000, 512))[3]) < 512 * 8 + 200
    assert size_of(np.array(["x" * 1000, "y" * 1000], dtype=object)) > 2000


def exact(value: Any) -> int:
    """Return the size of nested lists, dicts and tuples by a full walk."""
    own = sys.getsizeof(value)
    if isinstance(value, dict):
        return own + sum(exact(key) + exact(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return own + sum(exact(item) for item in value)
    return own


@pytest.mark.parametrize(
    "value",
    [
        [float(number) for number in range(384)],
        {f"key {number}": "v" * (number % 90) for number in range(5000)},
        [{"id": number, f"name {number}": [f"a{number}", f"b{number}"]} for number in range(2000)],
        [(number + 1000, str(number) * 3) for number in range(300)],
    ],
)
def test_sampled_containers_come_close(value: Any) -> None:
    assert size_of(value) == pytest.approx(exact(value), rel=0.35)


@pytest.mark.parametrize("count", [100, 5000])
@pytest.mark.parametrize("period", [2, 3, 5, 8])
def test_what_repeats_in_step_with_the_sample_does_not_deceive_it(count: int, period: int) -> None:
    value = ["x" * 2000 + str(place) if place % period == 0 else float(place) for place in range(count)]
    assert size_of(value) == pytest.approx(exact(value), rel=0.5)


def test_both_ends_of_a_large_dict_are_looked_at() -> None:
    value = {f"key {place}": str(place) * (2 if place < 50_000 else 200) for place in range(100_000)}
    assert size_of(value) == pytest.approx(exact(value), rel=0.35)


@pytest.mark.parametrize("make", [list, tuple, set, frozenset, deque])
def test_collections_come_close_whatever_they_are(make: Any) -> None:
    value = make(f"item number {place}" for place in range(3000))
    assert size_of(value) == pytest.approx(sys.getsizeof(value) + sum(map(sys.getsizeof, value)), rel=0.15)


def test_documents_come_close() -> None:
    texts = [
        json.dumps({"id": n, "tags": [f"tag {n}", "b" * n], "in": {"a": n / 7, "b": [n, None]}}) for n in range(60)
    ]
    value = [json.loads(text) for text in texts]
    assert size_of(value) == pytest.approx(exact(value), rel=0.25)


def test_names_of_fields_and_constants_are_not_counted_with_each_record() -> None:
    class Colour(Enum):
        RED = "x" * 1000

    records = [{"a field that many records have": number} for number in range(20)]
    bare = sys.getsizeof(records[0])
    assert size_of(records[0]) - bare < 16
    assert size_of([Colour.RED, Colour, len, None, True, 7]) < 200


def test_objects_are_measured_without_changing_them() -> None:
    class Plain:
        def __init__(self) -> None:
            self.text = "x" * 1000

    value = Plain()
    before = sys.getsizeof(value)
    assert size_of(value) > 1000
    assert sys.getsizeof(value) == before
    value.__dict__["more"] = "y" * 1000  # now it has a dict of its own
    assert size_of(value) > 2000


def test_objects_count_their_attributes() -> None:
    @dataclass
    class Plain:
        text: str

    @dataclass(slots=True)
    class Slotted:
        text: str
        other: str = ""

    assert size_of(Plain("x" * 5000)) > 5000
    assert size_of(Slotted("x" * 5000)) > 5000
    shared = "x" * 5000
    assert 5000 < size_of([Slotted(shared) for _ in range(10)]) < 7000


def test_cycles_end() -> None:
    items: list[Any] = ["x" * 1000]
    items.append({"again": items})
    assert 1000 < size_of(items) < 2000


def test_a_deeply_nested_value_ends() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert 64 <= size_of(value) < 2000
    while value:
        value = value.pop()  # or dropping it would recurse as deeply


def test_a_huge_nested_value_is_not_walked() -> None:
    looks = 0

    class Counted:
        def __sizeof__(self) -> int:
            nonlocal looks
            looks += 1
            return 100

    value = [[[Counted() for _ in range(30)] for _ in range(30)] for _ in range(100)]
    assert size_of(value) > 100 * 30 * 30 * 50
    assert 0 < looks <= 48 * 12 * 6


def test_a_value_that_cannot_be_sized_is_no_error() -> None:
    class Broken:
        def __sizeof__(self) -> int:
            raise RuntimeError("no")

    assert size_of(Broken()) == 1024
    assert size_of([Broken(), Broken()]) == 1024
