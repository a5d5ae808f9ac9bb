from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.monitor.counting import count_batch
from ondol.monitor.query import WINDOWS_S
from ondol.monitor.windows import MAX_PACKED_BYTES, SLOT_S, WHOLE, Windows


def filled(values_of: dict[float, list[float]]) -> Windows:
    windows = Windows()
    for at_s, values in sorted(values_of.items()):
        windows.add(count_batch(values), at_s)
    return windows


def test_windows_cover_their_length_less_a_slot_of_that_age() -> None:
    seconds = [*range(0, 95_000, 50), *range(95_000, 100_000, 10)]
    windows = filled({float(second): [float(second)] for second in seconds})
    now_s = 99_995.0
    longest_slot_s = {"1m": 10.0, "5m": 60.0, "1h": 600.0, "24h": 10_800.0}
    every = windows.windows(now_s, 0.0)
    assert every.pop(WHOLE).sketch.count == len(seconds)
    assert list(every) == list(WINDOWS_S)
    for name, window in every.items():
        assert WINDOWS_S[name] - longest_slot_s[name] <= window.span_s <= WINDOWS_S[name]
        # Each value that is younger than the window's span is in it, no older one is.
        within = [second for second in seconds if second >= now_s - window.span_s]
        assert (window.sketch.minimum, window.sketch.maximum) == (min(within), max(within))
        assert window.sketch.count == len(within)
    assert windows.whole().count == len(seconds)
    assert (windows.whole().minimum, windows.whole().maximum) == (0.0, 99_990.0)


def test_a_young_series_is_as_old_as_its_first_value() -> None:
    windows = filled({1000.0: [1.0], 1002.0: [1.0]})
    assert [window.span_s for window in windows.windows(1005.0, 1000.0).values()] == [5.0] * 5
    assert windows.window("1m", 1000.1, 1000.0).span_s == 1.0  # at least: a rate of one value is no rate


def test_one_window_is_as_in_all_windows() -> None:
    windows = filled({float(second): [1.0] for second in range(0, 5000, 70)})
    every = windows.windows(5000.0, 0.0)
    for name, window in every.items():
        one = windows.window(name, 5000.0, 0.0)
        assert (one.span_s, one.sketch.count) == (window.span_s, window.sketch.count)


def test_what_comes_out_of_order_is_in_the_newest_slot() -> None:
    windows = filled({100.0: [1.0]})
    windows.add(count_batch([2.0]), 50.0)
    assert windows.window("1m", 105.0, 100.0).sketch.count == 2


def copied(windows: Windows) -> Windows:
    """Return the same slots without what was put together for reading."""
    copy = Windows()
    copy._slots, copy._older = list(windows._slots), windows._older
    return copy


steps = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([0.0, 1.0, 9.0, 10.0, 55.0, 61.0, 290.0, 700.0, 4000.0, 30_000.0])),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_what_is_kept_for_reading_is_what_reading_anew_would_give(sequence: list[tuple[int, float]]) -> None:
    windows, now_s, told = Windows(), 1000.0, 0
    for count, pause_s in sequence:
        now_s += pause_s
        if count:
            windows.add(count_batch([float(number + 1) for number in range(count)]), now_s)
            told += count
        for later_s in (0.0, 25.0):
            kept, anew = windows.windows(now_s + later_s, 1000.0), copied(windows).windows(now_s + later_s, 1000.0)
            for name, window in kept.items():
                assert (window.span_s, window.sketch.count) == (anew[name].span_s, anew[name].sketch.count)
                assert window.sketch.quantiles([0.5, 1.0]) == anew[name].sketch.quantiles([0.5, 1.0])
            assert kept[WHOLE].sketch.count == windows.whole().count == told


def test_slots_become_short_again_when_there_is_room() -> None:
    rng = random.Random(3)
    windows = Windows()
    for slot in range(500):
        windows.add(count_batch([rng.lognormvariate(0, 5) * rng.choice((-1, 1)) for _ in range(200)]), slot * SLOT_S)
    assert max(windows._coarseness) > 0
    for slot in range(500, 1500):
        windows.add(count_batch([1.0]), slot * SLOT_S)
    assert max(windows._coarseness) == 0
    for name in ("1m", "5m", "1h"):
        window = windows.window(name, 1499 * SLOT_S + 5, 0.0)
        assert window.span_s >= WINDOWS_S[name] * 5 / 6 - 10
        assert window.sketch.count == pytest.approx(window.span_s / SLOT_S, abs=1)


@pytest.mark.parametrize("kind", ["narrow", "wide", "hostile"])
def test_bytes_are_bounded_whatever_comes_for_days(kind: str) -> None:
    rng = random.Random(7)

    def value() -> float:
        if kind == "hostile":  # any bits that make a finite float, of both signs
            number = struct.unpack("<d", rng.randbytes(8))[0]
            return number if abs(number) < 1e308 else 0.0
        return rng.lognormvariate(-3, 0.5 if kind == "narrow" else 3.0)

    windows = Windows()
    count = 0
    for slot in (*range(0, 26_000, 30), *range(26_000, 26_500)):  # three days, and an hour and a half in full
        windows.add(count_batch([value() for _ in range(40)]), slot * SLOT_S)
        count += 40
        assert windows.packed_bytes <= MAX_PACKED_BYTES * 1.3  # between two ageings some slots may come on top
    assert windows.whole().count == count
    day = windows.window("24h", 26_500 * SLOT_S, 0.0)
    assert 43_000 <= day.span_s <= 86_400  # the window begins less exactly when values are spread widely
    before_s = day.span_s - 500 * SLOT_S
    assert day.sketch.count == pytest.approx(500 * 40 + before_s / 300 * 40, abs=81)
