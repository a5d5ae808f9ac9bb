from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ondol.cache.sizing import DEADLINE_OVERHEAD_BYTES, ENTRY_OVERHEAD_BYTES, entry_size, size_of


@pytest.mark.parametrize("value", ["", "abc" * 100, "가나다" * 100, b"x" * 1000, bytearray(77), 1, 10**100, 1.5])
def test_flat_values_are_exact_up_to_the_allocators_rounding(value: object) -> None:
    assert 0 <= size_of(value) - sys.getsizeof(value) < 16


def test_shared_constants_cost_nothing() -> None:
    assert size_of(None) == size_of(True) == size_of(False) == 0  # the value is what is tested


def test_key_and_overhead_are_counted() -> None:
    assert entry_size("k" * 100, None, has_deadline=False) >= ENTRY_OVERHEAD_BYTES + 100
    plain, expiring = (entry_size("k", None, has_deadline=flag) for flag in (False, True))
    assert expiring - plain == DEADLINE_OVERHEAD_BYTES


@pytest.mark.parametrize("shape", [(384,), (1000, 512), (0,)])
def test_arrays_count_their_bytes(shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, dtype=np.float32)
    assert array.nbytes <= size_of(array) <= array.nbytes + 200


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
