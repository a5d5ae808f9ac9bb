from __future__ import annotations

import math
from itertools import pairwise

import pytest

from ondol.preload.curve import Curve
from ondol.preload.gaps import EDGES_S, LAST_BIN, GapHistogram, GapPrior, bin_of

PRIOR = GapPrior().masses(3)
LEAST_S = 1.0


def curve_of(*gaps_s: float) -> Curve:
    histogram = GapHistogram()
    for gap_s in gaps_s:
        histogram.note(bin_of(gap_s))
    return Curve(histogram.bins(), PRIOR)


def test_a_timer_is_worth_most_just_before_its_time_and_little_after_it() -> None:
    curve = curve_of(*[600.0] * 30)
    before = [curve.rate(age_s, LEAST_S) for age_s in (0.0, 100.0, 300.0, 500.0, 555.0)]
    assert all(early < late for early, late in pairwise(before))
    after = EDGES_S[bin_of(600.0) + 1] + 1.0
    assert curve.rate(after, LEAST_S) < before[0]
    assert curve.rate(after, LEAST_S) < 0.02 * curve.rate(after - 10.0, LEAST_S)


def test_a_timer_is_worth_the_uses_a_second_until_its_time() -> None:
    curve = curve_of(*[600.0] * 30)
    high_s = EDGES_S[bin_of(600.0) + 1]
    assert curve.rate(0.0, 0.0) == pytest.approx(1.0 / high_s, rel=0.25)
    assert curve.rate(0.0, 600.0) == pytest.approx(1.0 / (high_s + 600.0), rel=0.25)  # it is kept longer than it needs


def test_gaps_without_memory_are_worth_the_same_at_any_age() -> None:
    mean_s = 100.0
    shares = [math.exp(-low / mean_s) - math.exp(-high / mean_s) for low, high in pairwise(EDGES_S[: LAST_BIN + 2])]
    curve = Curve([(gap_bin, 1e6 * share) for gap_bin, share in enumerate(shares) if share > 1e-9], PRIOR)
    for age_s in (0.0, 1.0, 10.0, 50.0, 100.0, 200.0, 400.0):
        assert curve.rate(age_s, 0.0) == pytest.approx(1.0 / mean_s, rel=0.1)
        assert curve.probability(age_s, 69.3) == pytest.approx(0.5, abs=0.04)


def test_of_two_rhythms_the_quick_one_counts_until_it_is_over() -> None:
    curve = curve_of(*[10.0, 10.0, 10.0, 3600.0] * 8)
    assert curve.rate(0.0, LEAST_S) > 0.04
    assert curve.rate(20.0, LEAST_S) < 0.002
    assert curve.rate(3300.0, LEAST_S) > curve.rate(20.0, LEAST_S)


def test_sure_rate_is_for_times_by_which_it_is_used_surely() -> None:
    curve = curve_of(*[10.0, 600.0] * 15)
    quick = curve.rate(0.0, LEAST_S)
    rate, probability = curve.sure_rate(0.0, LEAST_S, 0.7)
    assert probability >= 0.7
    assert 0.0 < rate < quick  # a half of the uses come soon; that is not sure enough
    easy, half = curve.sure_rate(0.0, LEAST_S, 0.3)
    assert easy == pytest.approx(quick)
    assert 0.3 <= half < 0.6
    assert curve.sure_rate(0.0, LEAST_S, 0.999) == (0.0, 0.0)


def test_without_any_gaps_the_prior_alone_speaks() -> None:
    curve = Curve([], PRIOR)
    assert 0.0 < curve.probability(0.0, 1e9) == pytest.approx(sum(PRIOR))
    assert curve.edge_after(0.0) == curve.drop_after(0.0) == math.inf
    assert curve.quantile(0.0, 0.9) == math.inf
    assert curve.sure_rate(0.0, LEAST_S, 0.7) == (0.0, 0.0)


def test_without_anything_nothing_is_foreseen() -> None:
    curve = Curve([], [0.0] * len(PRIOR))
    for age_s in (0.0, 1.0, 1e9):
        assert curve.rate(age_s, LEAST_S) == 0.0
        assert curve.probability(age_s, 1e9) == 0.0
        assert curve.quantile(age_s, 0.5) == math.inf


def test_after_all_times_nothing_is_foreseen() -> None:
    curve = curve_of(*[600.0] * 30)
    age_s = 2.0 * EDGES_S[-1]
    assert curve.rate(age_s, LEAST_S) == 0.0
    assert curve.sure_rate(age_s, LEAST_S, 0.1) == (0.0, 0.0)
    assert curve.probability(age_s, 1e9) == 0.0
    assert curve.edge_after(age_s) == curve.drop_after(age_s) == math.inf


def test_edges_are_where_own_bins_begin_and_end() -> None:
    curve = curve_of(10.0, 11.0, 600.0)
    ten, eleven, timer = bin_of(10.0), bin_of(11.0), bin_of(600.0)
    assert eleven == ten + 1
    edges, age_s = [], 0.0
    while (age_s := curve.edge_after(age_s)) < math.inf:
        edges.append(age_s)
    assert edges == [EDGES_S[edge] for edge in (ten, ten + 1, ten + 2, timer, timer + 1)]


def test_drops_are_where_runs_of_uses_end() -> None:
    curve = curve_of(*[10.0, 11.0, 600.0] * 5)
    first = EDGES_S[bin_of(11.0) + 1]
    assert curve.drop_after(0.0) == first
    assert curve.drop_after(first) == EDGES_S[bin_of(600.0) + 1]
    assert curve.drop_after(700.0) == math.inf


def test_a_single_odd_gap_is_no_drop() -> None:
    assert curve_of(86_400.0, *[10.0] * 40).drop_after(20.0) == math.inf


@pytest.mark.parametrize("age_s", [0.0, 300.0, 590.0])
def test_a_timer_is_expected_at_its_time(age_s: float) -> None:
    curve = curve_of(*[600.0] * 30)
    low_s, high_s = EDGES_S[bin_of(600.0)], EDGES_S[bin_of(600.0) + 1]
    assert low_s <= curve.quantile(age_s, 0.5) <= high_s
    assert curve.probability(age_s, high_s - age_s) > 0.6


def test_the_longest_gaps_have_a_place() -> None:
    curve = curve_of(*[1e12] * 10)
    assert 0.0 < curve.rate(1000.0, LEAST_S) < 1e-4
    assert curve.quantile(0.0, 0.5) < math.inf
