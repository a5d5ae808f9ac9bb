from __future__ import annotations

import math
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.monitor import counting
from ondol.monitor.buckets import RELATIVE_ERROR, bucket_of, estimate
from ondol.monitor.counting import count_batch
from ondol.monitor.lanes import Lanes, counts_of, pack_counts, together, unpack_counts
from ondol.monitor.sketch import MAX_BUCKETS, Sketch

RANKS = (0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0)
ordinary = st.floats(min_value=-1e6, max_value=1e6, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-2)
any_finite = st.floats(allow_nan=False, allow_infinity=False)


def sketch_of(values: list[float]) -> Sketch:
    sketch = Sketch()
    sketch.add(count_batch(values))
    return sketch


def exact(values: list[float], rank: float) -> float:
    return sorted(values)[max(1, math.ceil(rank * len(values) - 1e-9)) - 1]


def assert_within_one_percent(values: list[float], sketch: Sketch) -> None:
    for rank, found in zip(RANKS, sketch.quantiles(RANKS), strict=True):
        wanted = exact(values, rank)
        assert abs(found - wanted) <= 0.01 * abs(wanted), f"rank {rank}: {found} for {wanted}"


@settings(max_examples=100, deadline=None)
@given(st.lists(ordinary, min_size=1, max_size=200))
def test_every_quantile_is_within_one_percent(values: list[float]) -> None:
    sketch = sketch_of(values)
    assert_within_one_percent(values, sketch)
    assert sketch.count == len(values)
    assert Sketch.unpack(sketch.pack(is_final=True)).quantiles(RANKS) == sketch.quantiles(RANKS)
    assert (sketch.minimum, sketch.maximum) == (min(values), max(values))
    assert sketch.mean == pytest.approx(sum(values) / len(values), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(ordinary, min_size=1, max_size=80), st.lists(ordinary, min_size=1, max_size=80))
def test_merging_is_the_same_as_adding_everything_to_one(left: list[float], right: list[float]) -> None:
    merged = sketch_of(left)
    merged.add(sketch_of(right))
    together = sketch_of(left + right)
    assert merged.quantiles(RANKS) == together.quantiles(RANKS)
    assert (merged.count, merged.minimum, merged.maximum) == (together.count, together.minimum, together.maximum)


@settings(max_examples=100, deadline=None)
@given(st.lists(any_finite, min_size=1, max_size=300))
def test_any_finite_value_is_taken_and_stays_within_the_extremes(values: list[float]) -> None:
    sketch = sketch_of(values)
    found = sketch.quantiles(RANKS)
    assert all(math.isfinite(value) and min(values) <= value <= max(values) for value in found)
    assert found == sorted(found)
    assert math.isfinite(sketch.sum)
    assert math.isfinite(sketch.mean)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1.0, 2.0]))
def test_realistic_latencies_are_within_one_percent(seed: int, sigma: float) -> None:
    rng = random.Random(seed)
    values = [rng.lognormvariate(-3, sigma) for _ in range(2000)]
    values += [rng.gauss(5.0, 0.1) for _ in range(200)]  # a second mode far away
    assert_within_one_percent(values, sketch_of(values))


def test_buckets_are_bounded_and_the_upper_quantiles_stay_exact() -> None:
    values = [math.exp(i / 20) for i in range(-10_000, 10_000)]  # over 400 decades
    values += [-value for value in values]
    sketch = sketch_of(values)
    assert sketch.bucket_count <= 2 * MAX_BUCKETS + 1
    assert sketch.count == len(values)
    for rank in (0.99, 0.999):
        assert sketch.quantiles([rank])[0] == pytest.approx(exact(values, rank), rel=0.01)
    other = sketch_of(values)
    other.add(sketch)
    assert other.bucket_count <= 2 * MAX_BUCKETS + 1
    assert other.count == 2 * len(values)


def test_nothing_has_quantiles_of_zero() -> None:
    assert Sketch().quantiles(RANKS) == [0.0] * len(RANKS)
    assert Sketch().mean == 0.0


def test_zeros_are_counted_between_negative_and_positive() -> None:
    sketch = sketch_of([-5.0, 0.0, 0.0, -0.0, 7.0])
    assert sketch.quantiles([0.2, 0.5, 0.8]) == [pytest.approx(-5.0, rel=0.01), 0.0, 0.0]


@settings(max_examples=300, deadline=None)
@given(st.floats(min_value=2.3e-308, max_value=1.7976931348623157e308), st.floats(min_value=1.0, max_value=1.1))
def test_a_bucket_stands_for_its_values_and_larger_ones_never_come_before(value: float, factor: float) -> None:
    assert abs(estimate(bucket_of(value)) - value) <= RELATIVE_ERROR * value
    if math.isfinite(value * factor):
        assert bucket_of(value * factor) >= bucket_of(value)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(any_finite, st.just(0.0), ordinary), min_size=1, max_size=300))
def test_with_numpy_and_without_it_is_the_same(values: list[float]) -> None:
    numbers = values * 2
    raw = struct.pack(f"<{len(numbers)}d", *numbers)
    ours, theirs = counting._counted(raw), counting._numpy_counted(np, raw)
    if ours is None or theirs is None:  # the sum is beyond all floats; numpy adds in another order
        assert not math.isfinite(sum(map(abs, values)) * 2)
        return
    assert ours[2:] == theirs[2:]
    assert ours.total == pytest.approx(theirs.total, rel=1e-9, abs=1e-6 + 1e-9 * sum(map(abs, values)))


lanes = st.builds(
    lambda low, counts: Lanes(low, int.from_bytes(b"".join(count.to_bytes(8, "little") for count in counts), "little")),
    st.integers(0, 3000),
    st.lists(st.one_of(st.integers(0, 3), st.integers(0, 1 << 40)), max_size=60),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(lanes, max_size=5), st.integers(1, 200))
def test_lanes_add_up_lane_by_lane_and_lose_nothing(several: list[Lanes], most: int) -> None:
    found = together(several, most)
    wanted: dict[int, int] = {}
    for one in several:
        for offset, count in enumerate(counts_of(one)):
            wanted[one.low + offset] = wanted.get(one.low + offset, 0) + count
    floor = max((bucket + 1 for bucket, count in wanted.items() if count), default=0) - most
    raised: dict[int, int] = {}
    for bucket, count in wanted.items():
        raised[max(bucket, floor)] = raised.get(max(bucket, floor), 0) + count
    shown = {found.low + offset: count for offset, count in enumerate(counts_of(found)) if count}
    assert shown == {bucket: count for bucket, count in raised.items() if count}
    assert found.span <= most
    width, packed = pack_counts(found)
    assert counts_of(unpack_counts(found.low, width, packed)) == counts_of(found)


def test_counts_within_a_bound_take_in_what_equals_it() -> None:
    values = [-1.0, 0.0, 0.001, 0.1, 0.1, 0.1001, 0.11, 5.0, 5.2]
    sketch = sketch_of(values)
    bounds = [0.0009, 0.001, 0.1, 1.0, 5.0, 10.0]
    assert sketch.counts_within([bucket_of(bound) for bound in bounds]) == [2, 3, 5, 7, 8, 9]
