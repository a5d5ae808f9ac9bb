from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.preload.ranking import Ranking
from ondol.preload.track import Track

if TYPE_CHECKING:
    from ondol.preload.track import RankEntry

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["place", "remove", "look_on", "worth", "take some"]),
        st.integers(0, 11),
        st.floats(0.0, 100.0),
    ),
    max_size=80,
)


class Order:
    """A ranking of models whose worth is set by hand."""

    def __init__(self, count: int) -> None:
        self.worths = [float(place) for place in range(count)]
        self.tracks = [Track(str(place)) for place in range(count)]
        self.ranking = Ranking(lambda track, _now_s: self.worths[int(track.name)])
        self.there: set[int] = set()

    def place(self, *places: int) -> None:
        for place in places:
            self.ranking.place(self.tracks[place], 0.0)
            self.there.add(place)

    def remove(self, *places: int) -> None:
        for place in places:
            self.ranking.remove(self.tracks[place])
            self.there.discard(place)

    def taken(self, most: int = 1_000_000) -> list[int]:
        """Take out up to so many, and put them back."""
        entries: list[RankEntry] = []
        while len(entries) < most and (entry := self.ranking.take(0.0)) is not None:
            entries.append(entry)
        self.ranking.put_back(entries)
        return [int(entry[2].name) for entry in entries]


def test_the_least_worth_comes_first() -> None:
    order = Order(5)
    order.worths = [3.0, 1.0, 4.0, 0.0, 2.0]
    assert order.taken() == []
    order.place(0, 1, 2, 3, 4)
    assert order.taken(2) == [3, 1]
    assert order.taken() == [3, 1, 4, 0, 2]
    assert order.taken() == [3, 1, 4, 0, 2]


def test_what_has_become_worthier_meanwhile_is_looked_at_before_it_is_named() -> None:
    order = Order(4)
    order.place(0, 1, 2, 3)
    order.worths[0] = 2.5
    assert order.taken() == [1, 2, 0, 3]


def test_what_has_become_worth_less_comes_first_once_it_was_looked_at() -> None:
    order = Order(4)
    order.place(0, 1, 2, 3)
    order.worths[3] = -1.0
    for _ in range(2 * 4):  # a round: every other event looks at one
        order.ranking.look_on(0.0)
    assert order.taken() == [3, 0, 1, 2]


def test_what_left_never_comes_and_comes_again_when_it_is_back() -> None:
    order = Order(4)
    order.place(0, 1, 2, 3)
    order.remove(0, 2)
    assert order.taken() == [1, 3]
    order.place(2)
    assert order.taken() == [1, 2, 3]


def test_what_left_after_it_was_taken_is_not_put_back() -> None:
    order = Order(3)
    order.place(0, 1, 2)
    first = order.ranking.take(0.0)
    second = order.ranking.take(0.0)
    assert first is not None
    assert second is not None
    order.remove(0)
    order.ranking.put_back([first, second])
    assert order.taken() == [1, 2]


def test_what_was_placed_anew_after_it_was_taken_is_there_once() -> None:
    order = Order(3)
    order.place(0, 1, 2)
    first = order.ranking.take(0.0)
    assert first is not None
    order.worths[0] = 5.0
    order.place(0)
    order.ranking.put_back([first])
    assert order.taken() == [1, 2, 0]


def test_the_heap_stays_bounded() -> None:
    order = Order(50)
    order.place(*range(50))
    draw = random.Random(1)
    for _ in range(20_000):
        order.worths[draw.randrange(50)] = draw.random()
        order.place(draw.randrange(50))
        order.ranking.look_on(0.0)
        order.taken(draw.randrange(4))
        assert len(order.ranking._heap) < 400
    order.remove(*range(45))
    for _ in range(200):
        order.ranking.look_on(0.0)
    assert len(order.ranking._heap) < 100
    assert sorted(order.taken()) == [45, 46, 47, 48, 49]


def test_nobody_comes_twice_when_the_heap_is_cleaned_up() -> None:
    order = Order(200)
    order.worths = [float(1000 - place) for place in range(200)]
    order.place(*range(200), *range(200), *range(64))
    order.remove(*range(150))
    for _ in range(150):
        order.ranking.look_on(0.0)
    for place in range(151, 199):
        order.worths[place] *= 2.0
    for _ in range(3):
        assert sorted(order.taken()) == list(range(150, 200))


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_after_a_look_at_all_the_order_is_that_of_worth(steps: list[tuple[str, int, float]]) -> None:
    order = Order(12)
    for step, place, worth in steps:
        if step == "place":
            order.place(place)
        elif step == "remove":
            order.remove(place)
        elif step == "look_on":
            order.ranking.look_on(0.0)
        elif step == "worth":
            order.worths[place] = worth
        else:
            assert set(order.taken(place)) <= order.there
        if step != "worth":
            assert len(order.taken()) == len(order.there)
    order.ranking.look_at_all(0.0)
    found = order.taken()
    assert sorted(found) == sorted(order.there)
    worths = [order.worths[place] for place in found]
    assert all(low <= high * 1.000001 for low, high in pairwise(worths))
    assert found == order.taken()
