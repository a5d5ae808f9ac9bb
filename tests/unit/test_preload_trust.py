from __future__ import annotations

import json
import math
from typing import Any

import pytest

from ondol.preload.track import Track
from ondol.preload.trust import CLASSES, LEAST_BETS, LEAST_PRECISION, Trust


def bet(trust: Trust, track: Track, worth: float, *, is_won: bool) -> None:
    track.bet = trust.class_of(worth)
    trust.settle(track, is_won=is_won)


def trusted(margin_worth: float = 1.0) -> Trust:
    trust = Trust()
    trust.take_in([margin_worth, [[0.0, 0.0]] * CLASSES])
    return trust


def test_classes_are_half_octaves_of_worth_over_what_leaves() -> None:
    trust = trusted(2.0)
    assert [trust.class_of(2.0 * ratio) for ratio in (0.01, 0.26, 1.0, 1.41, 1.42, 2.0, 4.0, 1e6)] == [
        0,
        0,
        4,
        4,
        5,
        6,
        8,
        15,
    ]
    assert trust.class_of(0.0) == CLASSES - 1
    assert Trust().class_of(5.0) == CLASSES - 1  # nobody has left yet


def test_every_worth_has_a_class_however_large_or_small() -> None:
    for margin_worth in (5e-324, 1e-320, 1e-300, 1.0, 1e12):
        for worth in (0.0, 5e-324, 1e-300, 1.0, 1e300):
            assert 0 <= trusted(margin_worth).class_of(worth) < CLASSES


def test_what_those_are_worth_that_leave_is_followed_slowly() -> None:
    trust = Trust()
    trust.note_leaving(1.0)
    assert trust.margin_worth == pytest.approx(0.05)
    for _ in range(300):
        trust.note_leaving(3.0)
    assert trust.margin_worth == pytest.approx(3.0)


def test_nothing_is_trusted_before_enough_bets_of_its_class_have_ended() -> None:
    trust, track, worth = trusted(), Track("a"), 3.0
    for count in range(LEAST_BETS + 3):
        assert trust.allows(track, worth) == (trust.precision(worth)[0] >= LEAST_BETS) == (count > LEAST_BETS)
        bet(trust, track, worth, is_won=True)
    bets, wins = trust.precision(worth)
    assert bets == wins  # all were won
    assert not trust.allows(track, 100.0 * worth)  # another class


def test_a_class_that_loses_is_not_trusted_and_may_be_again() -> None:
    trust, worth = trusted(), 3.0
    for count in range(200):
        bet(trust, Track(f"{count}"), worth, is_won=count % 2 == 0)
    bets, wins = trust.precision(worth)
    assert wins / bets < LEAST_PRECISION
    assert not trust.allows(Track("new"), worth)
    for count in range(200):
        bet(trust, Track(f"{count}"), worth, is_won=True)
    assert trust.allows(Track("new"), worth)


def test_a_model_that_loses_is_not_trusted_though_its_class_is() -> None:
    trust, worth, bad, good = trusted(), 3.0, Track("bad"), Track("good")
    for _ in range(100):
        bet(trust, good, worth, is_won=True)
    assert trust.allows(bad, worth)  # nothing speaks against it yet
    for _ in range(5):
        bet(trust, bad, worth, is_won=False)
    assert not trust.allows(bad, worth)
    assert trust.allows(good, worth)
    for _ in range(5):
        bet(trust, bad, worth, is_won=True)
    assert trust.allows(bad, worth)


def test_settling_counts_by_hand() -> None:
    trust, track = trusted(), Track("a")
    for is_won in (True, False, True):
        bet(trust, track, 1.0, is_won=is_won)
        assert track.bet is None
    assert track.bets == pytest.approx(1.0 + 0.8 + 0.64)
    assert track.wins == pytest.approx(1.0 + 0.64)
    assert list(trust.precision(1.0)) == pytest.approx([1 + 0.998 + 0.998**2, 1 + 0.998**2])


def test_a_fetch_without_a_bet_counts_for_the_model_alone() -> None:
    trust, track = trusted(), Track("a")
    trust.settle(track, is_won=True)
    assert (track.bets, track.wins) == (1.0, 1.0)
    assert all(trust.precision(2.0**octave) == (0.0, 0.0) for octave in range(-4, 9))


def test_plain_data_makes_the_same_trust() -> None:
    trust = trusted(1.7e-11)
    for count in range(70):
        bet(trust, Track("a"), 1e-11 * (count % 7), is_won=count % 3 != 0)
    again = Trust()
    again.take_in(json.loads(json.dumps(trust.to_plain())))
    assert again.to_plain() == trust.to_plain()
    assert again.margin_worth == trust.margin_worth
    for worth in (1e-11, 6e-11):
        assert again.precision(worth) == pytest.approx(trust.precision(worth), abs=0.0051)


ROWS: list[Any] = [[3.0, 2.0]] * CLASSES
DAMAGED: list[Any] = [
    None, 5, "x", {}, [], [1.0], [1.0, ROWS, 2], [None, ROWS], ["x", ROWS], [-1.0, ROWS],
    [math.nan, ROWS], [math.inf, ROWS],
    [1.0, ROWS[:-1]], [1.0, [*ROWS, [1, 1]]], [1.0, None], [1.0, [[1.0]] * CLASSES], [1.0, [[1.0, 2.0]] * CLASSES],
    [1.0, [*ROWS[:-1], [3.0, -1.0]]], [1.0, [*ROWS[:-1], [math.nan, 1.0]]], [1.0, [*ROWS[:-1], [math.inf, 1.0]]],
    [1.0, [*ROWS[:-1], None]], [1.0, [*ROWS[:-1], [[], 1.0]]], [10**400, ROWS], [1.0, [*ROWS[:-1], [10**400, 1.0]]],
]  # fmt: skip


@pytest.mark.parametrize("plain", DAMAGED, ids=lambda plain: str(plain)[:30])
def test_damaged_precision_is_refused_and_nothing_changes(plain: Any) -> None:
    trust = trusted(0.5)
    before = trust.to_plain()
    with pytest.raises(ValueError, match="damaged"):
        trust.take_in(plain)
    assert trust.to_plain() == before
