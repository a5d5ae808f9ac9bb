"""The curve of a model's gaps against a slow one: F summed up bin by bin, and every slope looked at."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ondol.preload.curve import PRIOR_WEIGHT, Curve
from ondol.preload.gaps import EDGES_S, LAST_BIN, OCTAVES, STEPS

LITTLE = 0.01
"""So much of the prior may wait for a later octave."""

Bins = list[tuple[int, float]]

bins_of = st.dictionaries(st.integers(0, LAST_BIN), st.floats(0.01, 20.0), max_size=24).map(
    lambda found: sorted(found.items())
)
priors = st.tuples(
    st.lists(st.floats(1e-4, 1.0), min_size=OCTAVES + 1, max_size=OCTAVES + 1), st.floats(0.01, 1.0)
).map(lambda found: [mass * found[1] / sum(found[0]) for mass in found[0]])
ages_s = st.one_of(
    st.just(0.0),
    st.floats(0.0, 3e6),
    st.floats(-8.0, 22.0).map(lambda octave: 2.0**octave),
    st.sampled_from(EDGES_S),
    st.sampled_from(EDGES_S[1:]).map(lambda edge_s: math.nextafter(edge_s, 0.0)),
)
leasts_s = st.floats(0.001, 60.0)
shares = st.floats(0.0, 0.999)
everything = given(bins_of, priors, ages_s, leasts_s)


class Slow(NamedTuple):
    """The points of a curve, every one of which is looked at."""

    xs: list[float]
    fs: list[float]
    integrals: list[float]

    def at(self, age_s: float) -> tuple[float, float]:
        for (x0, f0, i0), (x1, f1, i1) in pairwise(zip(*self, strict=True)):
            if x0 <= age_s < x1:
                part = (age_s - x0) / (x1 - x0)
                return f0 + part * (f1 - f0), i0 + part * (i1 - i0)
        return self.fs[-1], self.integrals[-1]

    def slopes(self, age_s: float, least_s: float) -> list[tuple[float, float]]:
        """F at each point beyond the age, and the slope to it."""
        f_now, i_now = self.at(age_s)
        rest = 1.0 - f_now
        return [(f, (f - f_now) / (i - i_now + least_s * rest)) for x, f, i in zip(*self, strict=True) if x > age_s]


def slow(curve: Curve) -> Slow:
    integrals = [0.0]
    for (x0, f0), (x1, f1) in pairwise(zip(curve._x, curve._f, strict=True)):
        integrals.append(integrals[-1] + (x1 - x0) * (1.0 - (f0 + f1) / 2.0))
    return Slow(list(curve._x), list(curve._f), integrals)


def summed_up(bins: Bins, prior: list[float], x: float) -> float:
    """F by its meaning: each bin and each octave has its share, spread evenly over it."""
    whole = sum(weight for _, weight in bins) + PRIOR_WEIGHT
    ends = [EDGES_S[octave * STEPS + 1] for octave in range(OCTAVES + 1)]
    parts = [(EDGES_S[own], EDGES_S[own + 1], weight) for own, weight in bins]
    parts += [(low, high, mass * PRIOR_WEIGHT) for low, high, mass in zip([0.0, *ends[:-1]], ends, prior, strict=True)]
    return math.fsum(weight / whole * min(1.0, max(0.0, (x - low) / (high - low))) for low, high, weight in parts)


@settings(max_examples=200, deadline=None)
@everything
def test_the_rate_is_the_largest_slope_to_any_point(
    bins: Bins, prior: list[float], age_s: float, least_s: float
) -> None:
    curve = Curve(bins, prior)
    model = slow(curve)
    f_now = model.at(age_s)[0]
    assume(1.0 - f_now > 1e-6)  # beyond, rounding decides
    expected = max((slope for _, slope in model.slopes(age_s, least_s)), default=0.0)
    assert math.isclose(curve.rate(age_s, least_s), expected, rel_tol=1e-5, abs_tol=1e-15)


@settings(max_examples=200, deadline=None)
@given(bins_of, priors, ages_s, leasts_s, st.sampled_from([0.1, 0.5, 0.7, 0.95]))
def test_the_sure_rate_is_the_largest_slope_to_a_point_that_is_sure(
    bins: Bins, prior: list[float], age_s: float, least_s: float, least_probability: float
) -> None:
    curve = Curve(bins, prior)
    model = slow(curve)
    f_now = model.at(age_s)[0]
    rest = 1.0 - f_now
    assume(rest > 1e-6)
    needed = f_now + least_probability * rest
    assume(all(abs(f - needed) > 1e-9 for f in model.fs))  # at the very bound rounding decides
    sure = [(f, slope) for f, slope in model.slopes(age_s, least_s) if f >= needed]
    rate, probability = curve.sure_rate(age_s, least_s, least_probability)
    if not sure:
        assert (rate, probability) == (0.0, 0.0)
        return
    assert math.isclose(rate, max(slope for _, slope in sure), rel_tol=1e-5)
    assert least_probability - 1e-6 <= probability <= 1.0 + 1e-6
    best = [(f - f_now) / rest for f, slope in sure if math.isclose(slope, rate, rel_tol=1e-5)]
    assert any(math.isclose(probability, other, rel_tol=1e-5) for other in best)


@settings(max_examples=200, deadline=None)
@given(bins_of, priors, st.lists(ages_s, min_size=2, max_size=12))
def test_f_is_a_distribution_function(bins: Bins, prior: list[float], found_s: list[float]) -> None:
    curve = Curve(bins, prior)
    fs = [curve.probability(0.0, age_s) for age_s in sorted(found_s)]
    assert all(0.0 <= f <= 1.0 + 1e-9 for f in fs)
    assert all(early <= late + 1e-12 for early, late in pairwise(fs))
    assert all(low < high for low, high in pairwise(curve._x))


@settings(max_examples=100, deadline=None)
@given(bins_of, priors)
def test_f_holds_what_the_bins_and_the_octaves_hold(bins: Bins, prior: list[float]) -> None:
    curve = Curve(bins, prior)
    for own, _ in bins:
        for x in (EDGES_S[own], EDGES_S[own + 1]):
            assert x in curve._x
    for x in curve._x:
        assert abs(curve.probability(0.0, x) - summed_up(bins, prior, x)) <= LITTLE
    assert abs(curve.probability(0.0, 1e12) - summed_up(bins, prior, 1e12)) <= LITTLE


@settings(max_examples=300, deadline=None)
@given(bins_of, priors, ages_s, st.floats(0.0, 5e6))
@example([(LAST_BIN, 20.0)], [0.0] * OCTAVES + [1.0], math.nextafter(EDGES_S[LAST_BIN + 1], 0.0), 1.0)
@example([(0, 0.1)] + [(b, 0.7) for b in range(3, 20)], [1.0 / (OCTAVES + 1)] * (OCTAVES + 1), 2097151.999, 100.0)
def test_a_probability_is_one_at_any_age(bins: Bins, prior: list[float], age_s: float, within_s: float) -> None:
    assert 0.0 <= Curve(bins, prior).probability(age_s, within_s) <= 1.0 + 1e-6


@settings(max_examples=300, deadline=None)
@given(bins_of, priors, ages_s, shares)
def test_by_the_quantile_it_is_used_with_that_probability(
    bins: Bins, prior: list[float], age_s: float, share: float
) -> None:
    curve = Curve(bins, prior)
    rest = 1.0 - curve.probability(0.0, age_s)
    assume(rest > 1e-6)
    at_s = curve.quantile(age_s, share)
    assert at_s >= age_s
    most = curve.probability(age_s, 1e12)
    if at_s == math.inf:
        assert most <= share + 1e-6
    else:
        assert math.isclose(curve.probability(age_s, at_s - age_s), share, rel_tol=1e-4, abs_tol=1e-6 / rest)
        assert curve.quantile(age_s, share / 2.0) <= at_s


@settings(max_examples=200, deadline=None)
@everything
def test_nothing_is_out_of_range(bins: Bins, prior: list[float], age_s: float, least_s: float) -> None:
    curve = Curve(bins, prior)
    rate = curve.rate(age_s, least_s)
    sure, probability = curve.sure_rate(age_s, least_s, 0.7)
    assert 0.0 <= sure <= rate * (1.0 + 1e-9) < math.inf
    assert 0.0 <= probability <= 1.0 + 1e-6
    assert rate <= 1.0 / least_s * (1.0 + 1e-6)  # no more than one use in the least time that it is kept
    assert curve.edge_after(age_s) > age_s
    assert curve.drop_after(age_s) > age_s
    if age_s < EDGES_S[LAST_BIN + 1]:
        curve.rate(age_s, 0.0)  # also when no time is the least


@settings(max_examples=100, deadline=None)
@given(bins_of, priors, ages_s, leasts_s)
def test_who_is_kept_longer_at_least_is_worth_no_more(
    bins: Bins, prior: list[float], age_s: float, least_s: float
) -> None:
    curve = Curve(bins, prior)
    assert curve.rate(age_s, 2.0 * least_s) <= curve.rate(age_s, least_s) * (1.0 + 1e-9)
