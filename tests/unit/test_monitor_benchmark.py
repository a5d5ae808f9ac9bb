"""What benchmarks/monitor*.py generate, and how they judge, by hand-computed figures."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import monitor_notices
import monitor_percentiles
import monitor_server
from cache_speed_timing import Times
from monitor_memory import reachable_bytes
from monitor_notices import Episode, Notice, judge, naive_notices, noisy_day
from monitor_percentiles import bucket_counts, histogram_quantile, nearest_ranks, worst_error_percent
from monitor_timing import overhead_ratio

INFINITE = float("inf")


def test_nearest_ranks_are_values_of_the_data() -> None:
    values = np.arange(1.0, 1001.0)
    np.random.default_rng(1).shuffle(values)
    assert nearest_ranks(values) == [500.0, 900.0, 990.0, 999.0]


def test_the_worst_of_the_errors_is_told_in_percent_of_the_truth() -> None:
    assert worst_error_percent([1.01, 1.5, 4.0], [1.0, 2.0, 4.0]) == pytest.approx(25.0)


def test_a_value_on_a_bound_belongs_to_its_bucket() -> None:
    assert bucket_counts(np.array([0.5, 1.0, 1.5, 9.0]), [1.0, 2.0, INFINITE]) == [2, 3, 4]


@pytest.mark.parametrize(
    ("rank", "told"),
    [
        (0.25, 0.5),  # half of the first bucket, which begins at 0
        (0.5, 1.0),  # the whole of it
        (0.625, 1.5),  # half of the second
        (0.99, 2.0),  # beyond the highest finite bound
    ],
)
def test_histogram_quantile_is_linear_within_a_bucket(rank: float, told: float) -> None:
    assert histogram_quantile(rank, [1.0, 2.0, INFINITE], [4, 6, 8]) == pytest.approx(told)


def test_histogram_quantile_passes_over_empty_buckets() -> None:
    assert histogram_quantile(0.5, [1.0, 2.0, 3.0, INFINITE], [0, 0, 4, 4]) == pytest.approx(2.5)


@pytest.mark.parametrize("name", sorted(monitor_percentiles.DATA))
def test_the_data_are_the_same_in_every_run_and_positive(name: str) -> None:
    make = monitor_percentiles.DATA[name]
    values = make(np.random.default_rng(6), 1000)
    assert np.array_equal(values, make(np.random.default_rng(6), 1000))
    assert len(values) == 1000
    assert float(values.min()) > 0.0


def test_the_noisy_day_is_the_same_in_every_run() -> None:
    day = noisy_day()
    assert day == noisy_day()
    assert day != noisy_day(seed=7)
    assert len(day.values) == 17_280


def test_a_naive_threshold_is_crossed_thousands_of_times_that_day() -> None:
    day = noisy_day()
    assert naive_notices(day.values, monitor_notices.THRESHOLD) > 2000


def test_the_episodes_are_of_minutes_and_apart_by_more_than_the_grace() -> None:
    episodes = noisy_day().episodes
    assert all(end_s - start_s >= 300.0 for start_s, end_s in episodes)
    gaps = [later.start_s - earlier.end_s for earlier, later in pairwise(episodes)]
    assert min(gaps) > monitor_notices.GRACE_S
    assert episodes[-1].end_s + monitor_notices.GRACE_S < monitor_notices.DAY_S


def test_the_values_of_an_episode_are_beyond_the_threshold_but_for_its_dips() -> None:
    day = noisy_day()
    for start_s, end_s in day.episodes:
        within = [value for step, value in enumerate(day.values, 1) if start_s <= step * 5.0 < end_s]
        beyond = sum(value > monitor_notices.THRESHOLD for value in within) / len(within)
        assert beyond > 0.9


@pytest.mark.parametrize(
    ("values", "count"), [((), 0), ((81, 82, 79, 81), 2), ((80, 81), 1), ((79, 78), 0), ((81, 79, 81, 79), 2)]
)
def test_each_crossing_upwards_is_a_naive_notice(values: tuple[float, ...], count: int) -> None:
    assert naive_notices(values, 80.0) == count


EPISODES = (Episode(100.0, 400.0), Episode(5000.0, 5600.0))


def _told(*pairs: tuple[float, float | None]) -> list[Notice]:
    notices = []
    for fired_s, resolved_s in pairs:
        notices.append(Notice(fired_s, is_firing=True))
        if resolved_s is not None:
            notices.append(Notice(resolved_s, is_firing=False))
    return notices


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        ([(160.0, 520.0), (5060.0, 5720.0)], (0, 0, 0, 0)),
        ([(160.0, 520.0)], (1, 0, 0, 0)),
        ([(160.0, 520.0), (530.0, 600.0), (5060.0, 5720.0)], (0, 1, 1, 0)),
        ([(160.0, 300.0), (5060.0, 5720.0)], (0, 0, 1, 0)),  # resolved before its end
        ([(160.0, 520.0), (5060.0, None)], (0, 0, 1, 0)),
        ([(160.0, 520.0), (2000.0, 2100.0), (5060.0, 5720.0)], (0, 0, 0, 1)),
        ([], (2, 0, 0, 0)),
    ],
)
def test_alerts_are_judged_by_episode(told: list[Any], verdict: tuple[int, ...]) -> None:
    assert tuple(judge(_told(*told), EPISODES)) == verdict


def test_an_overhead_is_what_comes_on_top_of_the_bare_call() -> None:
    times = Times({"undecorated": [10.0, 20.0, 10.0], "ours": [20.0, 40.0, 20.0], "peer": [60.0, 120.0, 70.0]})
    assert overhead_ratio(times, "peer") == pytest.approx(5.0)


def test_reachable_bytes_count_each_thing_once_and_look_into_closures_arrays_and_bound_methods() -> None:
    blob = bytes(10_000)
    values: list[float] = []
    array = np.zeros(5000)

    def enclosing() -> bytes:
        return blob

    for holder in ([blob, blob], enclosing, {"deep": [(blob,)]}):
        assert 10_000 < reachable_bytes(holder) < 11_000
    assert reachable_bytes(array[:3]) > array.nbytes
    values.extend([0.0] * 1000)
    assert reachable_bytes(values.append) > 8000


def test_reachable_bytes_do_not_go_through_classes_and_globals() -> None:
    assert reachable_bytes(test_reachable_bytes_do_not_go_through_classes_and_globals) < 1000
    assert reachable_bytes(Episode) == 0


def test_the_counts_of_instructions_are_read_from_what_the_tools_say() -> None:
    assert monitor_server.cachegrind_count("==7== \n==7== I   refs:      4,383,606,096\n") == 4_383_606_096
    assert monitor_server.cachegrind_count("valgrind: failed") is None
    assert monitor_server.perf_count("warning\n1234567,,instructions:u,1000,100.00,,\n") == 1_234_567
    assert monitor_server.perf_count("<not supported>,,instructions:u,0,100.00,,\n") is None
