from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.preload.ahead import Schedule
from ondol.preload.track import Track


def resident(name: str) -> Track:
    track = Track(name)
    track.is_resident = True
    return track


def due(schedule: Schedule, now_s: float) -> list[str]:
    found = []
    while (track := schedule.next_due(now_s)) is not None:
        found.append(track.name)
    return found


def test_looks_come_when_their_time_has_come_once() -> None:
    schedule = Schedule()
    for name, at_s in (("b", 20.0), ("a", 10.0), ("c", 30.0)):
        schedule.look(Track(name), at_s)
    assert due(schedule, 9.999) == []
    assert due(schedule, 20.0) == ["a", "b"]
    assert due(schedule, 25.0) == []
    assert due(schedule, 30.0) == ["c"]
    assert due(schedule, math.inf) == []


def test_a_look_that_is_planned_earlier_stands() -> None:
    schedule, track = Schedule(), Track("a")
    schedule.look(track, 10.0)
    schedule.look(track, 50.0)
    assert schedule.wake_at_s() == 10.0
    assert due(schedule, 60.0) == ["a"]
    schedule.look(track, 50.0)
    schedule.look(track, 20.0)
    assert schedule.wake_at_s() == 20.0
    assert due(schedule, 60.0) == ["a"]  # once, though it is in the heap twice


def test_only_absent_models_wake() -> None:
    schedule = Schedule()
    assert schedule.wake_at_s() == math.inf
    schedule.look(resident("r"), 5.0)
    assert schedule.wake_at_s() == math.inf
    schedule.look(Track("a"), 9.0)
    assert schedule.wake_at_s() == 9.0
    assert due(schedule, 9.0) == ["r", "a"]
    assert schedule.wake_at_s() == math.inf


def test_what_is_forgotten_is_not_looked_at_until_it_is_planned_again() -> None:
    schedule, track = Schedule(), Track("a")
    schedule.look(track, 10.0)
    schedule.forget(track)
    assert schedule.wake_at_s() == math.inf
    assert due(schedule, 20.0) == []
    schedule.look(track, 30.0)
    assert schedule.wake_at_s() == 30.0
    assert due(schedule, 30.0) == ["a"]


def test_the_best_wish_comes_first() -> None:
    schedule = Schedule()
    assert schedule.best_wish() is None
    low, high = Track("low"), Track("high")
    schedule.wish(low, 1.0)
    schedule.wish(high, 2.0)
    assert schedule.best_wish() is high
    schedule.drop_wish()
    assert schedule.best_wish() is low
    schedule.drop_wish()
    assert schedule.best_wish() is None


def test_a_wish_that_is_worth_less_by_now_goes_back_in_line() -> None:
    schedule = Schedule()
    first, second = Track("first"), Track("second")
    schedule.wish(first, 5.0)
    schedule.wish(second, 3.0)
    assert not schedule.lower_wish(first, 5.0)
    assert not schedule.lower_wish(first, 6.0)
    assert schedule.best_wish() is first
    assert schedule.lower_wish(first, 2.0)
    assert schedule.best_wish() is second
    schedule.drop_wish()
    assert schedule.best_wish() is first


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["look", "forget", "due"]), st.integers(0, 4), st.floats(0.0, 100.0)), max_size=60
    )
)
def test_each_planned_look_comes_once_in_time(steps: list[tuple[str, int, float]]) -> None:
    schedule = Schedule()
    tracks = [resident(str(place)) if place % 2 else Track(str(place)) for place in range(5)]
    planned: dict[str, float] = {}
    now_s = 0.0
    for step, place, number in steps:
        track = tracks[place]
        if step == "look":
            schedule.look(track, now_s + number)
            planned[track.name] = min(planned.get(track.name, math.inf), now_s + number)
        elif step == "forget":
            schedule.forget(track)
            planned.pop(track.name, None)
        else:
            now_s += number
            found = due(schedule, now_s)
            assert sorted(found) == sorted(name for name, at_s in planned.items() if at_s <= now_s)
            planned = {name: at_s for name, at_s in planned.items() if at_s > now_s}
        absent = [at_s for name, at_s in planned.items() if int(name) % 2 == 0]
        assert schedule.wake_at_s() == min(absent, default=math.inf)
