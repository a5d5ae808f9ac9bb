from __future__ import annotations

import json
import math
import random
from itertools import pairwise
from typing import Any

import pytest

from ondol.preload.gaps import EDGES_S, LAST_BIN, MOST_BINS, OCTAVES, STEPS, GapHistogram, GapPrior, bin_of, octave_of

KEPT = 0.95


def noted(*gap_bins: int) -> GapHistogram:
    histogram = GapHistogram()
    for gap_bin in gap_bins:
        histogram.note(gap_bin)
    return histogram


def test_each_bin_begins_at_its_edge_and_ends_before_the_next() -> None:
    assert all(low < high for low, high in pairwise(EDGES_S))
    for gap_bin in range(LAST_BIN):
        low, high = EDGES_S[gap_bin], EDGES_S[gap_bin + 1]
        assert bin_of((low + high) / 2.0) == gap_bin
        assert bin_of(math.nextafter(high, 0.0) * (1 - 1e-12)) == gap_bin
        assert bin_of(low * (1 + 1e-12)) == gap_bin


@pytest.mark.parametrize(
    ("gap_s", "expected"),
    [
        (0.0, 0),
        (-5.0, 0),
        (0.999, 0),
        (1.0, 1),
        (2.0, STEPS + 1),
        (4.0, 2 * STEPS + 1),
        (1e9, LAST_BIN),
        (1e300, LAST_BIN),
    ],
)
def test_bins_of_gaps(gap_s: float, expected: int) -> None:
    assert bin_of(gap_s) == expected


def test_a_timer_of_fifteen_minutes_is_known_to_eighty_seconds() -> None:
    gap_bin = bin_of(900.0)
    assert EDGES_S[gap_bin + 1] - EDGES_S[gap_bin] < 83.0


def test_octaves_join_eight_bins() -> None:
    assert [octave_of(gap_bin) for gap_bin in (0, 1, 8, 9, 16, 17, LAST_BIN)] == [0, 1, 1, 2, 2, 3, OCTAVES]
    for gap_bin in range(1, LAST_BIN + 1):
        octave = octave_of(gap_bin)
        assert 2.0 ** (octave - 1) <= EDGES_S[gap_bin] * (1 + 1e-12) < 2.0**octave


def test_older_gaps_count_less() -> None:
    assert dict(noted(5, 7).bins()) == pytest.approx({5: KEPT, 7: 1.0})
    (gap_bin, weight), *rest = noted(*[9] * 500).bins()
    assert gap_bin == 9
    assert not rest
    assert weight == pytest.approx(1.0 / (1.0 - KEPT))  # the last twenty decide


def test_weights_are_those_of_decaying_every_bin() -> None:
    draw = random.Random(3)
    histogram = GapHistogram()
    plain: dict[int, float] = {}
    for _ in range(2000):  # several renormalisations: the unit grows by 5 % each time
        gap_bin = draw.randrange(20)
        histogram.note(gap_bin)
        plain = {other: weight * KEPT for other, weight in plain.items()}
        plain[gap_bin] = plain.get(gap_bin, 0.0) + 1.0
        assert [other for other, _ in histogram.bins()] == sorted(plain)
        assert dict(histogram.bins()) == pytest.approx(plain)


def test_a_note_does_not_touch_the_other_bins() -> None:
    histogram = noted(*range(20))
    before = dict(histogram._weights)
    histogram.note(3)
    assert {gap_bin: weight for gap_bin, weight in histogram._weights.items() if gap_bin != 3} == {
        gap_bin: weight for gap_bin, weight in before.items() if gap_bin != 3
    }


def test_the_numbers_stay_small_for_ever() -> None:
    histogram = noted(*[4, 8] * 50_000)
    assert max(histogram._weights.values()) < 1e12
    assert dict(histogram.bins()) == {4: pytest.approx(KEPT / (1 - KEPT**2)), 8: pytest.approx(1 / (1 - KEPT**2))}


def test_at_most_24_bins_are_kept_the_heaviest() -> None:
    histogram = noted(*[50] * 10, *range(MOST_BINS - 1))
    assert len(histogram.bins()) == MOST_BINS
    histogram.note(100)
    bins = dict(histogram.bins())
    assert len(bins) == MOST_BINS
    assert 0 not in bins  # the oldest of the light ones made room
    assert {50, 100, *range(1, MOST_BINS - 1)} == set(bins)


@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_plain_data_makes_the_same_histogram(count: int) -> None:
    draw = random.Random(count)
    histogram = noted(*(draw.randrange(60) for _ in range(count)))
    again = GapHistogram.from_plain(json.loads(json.dumps(histogram.to_plain())))
    assert dict(again.bins()) == pytest.approx(dict(histogram.bins()), abs=0.0051)
    assert again.to_plain() == histogram.to_plain()
    again.note(3)
    histogram.note(3)
    assert dict(again.bins()) == pytest.approx(dict(histogram.bins()), abs=0.0051)


DAMAGED: list[Any] = [
    None, 5, "3, 1.0", {}, {"3": 1.0}, (3, 1.0), [3], [3, 1.0, 4], [3.0, 1.0], ["3", 1.0], [None, 1.0], [True, 1.0],
    [-1, 1.0], [LAST_BIN + 1, 1.0], [3, "1.0"], [3, None], [3, [1.0]], [3, -0.1], [3, math.nan], [3, math.inf],
    [3, 1e9], [3, 10**400], [[3, 1.0]], [number for gap_bin in range(MOST_BINS + 1) for number in (gap_bin, 1.0)],
]  # fmt: skip


@pytest.mark.parametrize("plain", DAMAGED, ids=lambda plain: str(plain)[:30])
def test_a_damaged_histogram_is_refused(plain: Any) -> None:
    with pytest.raises(ValueError, match="damaged"):
        GapHistogram.from_plain(plain)


def prior_of(*gaps: tuple[int, float | None]) -> GapPrior:
    """Each gap begins with the ``use_count``-th use, and ends after some seconds or never."""
    prior = GapPrior()
    for use_count, gap_s in gaps:
        prior.begin(use_count)
        if gap_s is not None:
            prior.end(use_count, bin_of(gap_s))
    return prior


def test_a_prior_without_experience_expects_next_to_nothing() -> None:
    prior = GapPrior()
    for use_count in (1, 2, 3, 50):
        masses = prior.masses(use_count)
        assert len(masses) == OCTAVES + 1
        assert 0.0 < sum(masses) < 0.25


def test_a_prior_tells_first_gaps_from_later_ones() -> None:
    prior = prior_of(*[(1, None)] * 90, *[(1, 100.0)] * 10, *[(2, 20.0)] * 50, *[(7, 20.0)] * 99)
    octave = octave_of(bin_of(100.0))
    assert prior.masses(1)[octave] == pytest.approx(10 / 101, rel=0.01)
    assert sum(prior.masses(1)) < 0.15
    assert prior.masses(2)[octave_of(bin_of(20.0))] == pytest.approx(50 / 51, rel=0.01)
    assert prior.masses(3) == prior.masses(4) == prior.masses(7)


def test_the_masses_of_a_prior_are_never_more_than_all() -> None:
    draw = random.Random(1)
    prior = GapPrior()
    for _ in range(3000):
        prior.end(draw.choice([1, 2, 3]), draw.randrange(LAST_BIN + 1))  # more end than began
    for use_count in (1, 2, 3):
        masses = prior.masses(use_count)
        assert sum(masses) <= 1.0 + 1e-9
        assert min(masses) >= 0.0


def test_plain_data_makes_the_same_prior() -> None:
    prior = prior_of(*[(1, None)] * 5, *[(1, 3.0)] * 4, *[(2, 1e5)] * 7, *[(9, 77.0)] * 20)
    again = GapPrior.from_plain(json.loads(json.dumps(prior.to_plain())))
    assert again.to_plain() == prior.to_plain()
    for use_count in (1, 2, 3):
        assert again.masses(use_count) == pytest.approx(GapPrior.from_plain(prior.to_plain()).masses(use_count))


ROW = [1.0, *[0.01] * (OCTAVES + 1)]
NO_NUMBERS: list[Any] = [-1, None, "1", math.nan, math.inf, [], {}, 10**400]
DAMAGED_PRIORS: list[Any] = [
    None, 3, "prior", {}, [], [ROW] * 2, [ROW] * 4, [ROW, ROW, ROW[:-1]], [ROW, ROW, [*ROW, 0.1]], [ROW, ROW, None],
    [ROW, ROW, "x" * len(ROW)], *[[ROW, ROW, [number, *ROW[1:]]] for number in NO_NUMBERS],
    *[[[*ROW[:-1], number], ROW, ROW] for number in NO_NUMBERS],
]  # fmt: skip


@pytest.mark.parametrize("plain", DAMAGED_PRIORS, ids=lambda plain: str(plain)[:30])
def test_a_damaged_prior_is_refused(plain: Any) -> None:
    with pytest.raises(ValueError, match="damaged"):
        GapPrior.from_plain(plain)


def test_a_prior_of_nothing_but_zeros_is_refused_or_expects_nothing() -> None:
    try:
        prior = GapPrior.from_plain([[0.0] * len(ROW)] * 3)
    except ValueError:
        return
    assert sum(prior.masses(1)) <= 1.0
