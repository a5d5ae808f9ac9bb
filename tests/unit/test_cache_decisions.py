from __future__ import annotations

from typing import Any

import pytest

from ondol.cache.arguments import ArgumentForm
from ondol.cache.expiry import TimerWheel
from ondol.cache.ledger import MAX_NAMES, OTHER_NAMES, Ledgers
from ondol.cache.policy import LruPolicy


def test_lru_names_the_least_recently_used() -> None:
    policy = LruPolicy()
    for key in "abc":
        policy.admitted(key, 1, 0.0)
    policy.touched("a")
    assert policy.victim() == "b"
    policy.removed("b")
    policy.removed("c")
    assert policy.victim() == "a"
    policy.removed("a")
    with pytest.raises(KeyError):
        policy.victim()


HOUR_S, DAY_S = 3600.0, 86400.0


@pytest.mark.parametrize("deadline_s", [0.2, 1.0, 63.9, 64.0, 65.5, 4096.0, 5 * HOUR_S, 3 * DAY_S, 400 * DAY_S])
@pytest.mark.parametrize("start_s", [0.0, 0.7, 12345.6])
def test_wheel_hands_out_a_key_when_due_and_not_before(start_s: float, deadline_s: float) -> None:
    wheel = TimerWheel()
    wheel.schedule("k", start_s + deadline_s, start_s)
    for share in (0.1, 0.5, 0.9, 0.999):
        assert wheel.take_due(start_s + deadline_s * share, 10) == ([], True)
    assert wheel.take_due(start_s + deadline_s + 1.0, 10) == (["k"], True)
    assert len(wheel) == 0


def test_wheel_works_in_bounded_steps_and_catches_up_after_a_long_pause() -> None:
    wheel = TimerWheel()
    for number in range(1000):
        wheel.schedule(f"k{number}", 1.0 + number * 37.0, 0.0)
    wheel.schedule("late", 100 * DAY_S, 0.0)
    taken: list[str] = []
    steps, is_all = 0, False
    while not is_all:
        due, is_all = wheel.take_due(50 * DAY_S, 100)
        assert len(due) <= 100
        taken += due
        steps += 1
    assert sorted(taken) == sorted(f"k{number}" for number in range(1000))
    assert steps >= 10
    assert wheel.take_due(50 * DAY_S + 0.5, 100) == ([], True)  # the same tick: nothing to do
    assert wheel.take_due(100 * DAY_S + 1, 100) == (["late"], True)


def test_wheel_forgets_what_is_cancelled_and_keeps_few_slots() -> None:
    wheel = TimerWheel()
    for number in range(5000):
        wheel.schedule(f"k{number}", 1.0 + number * 1009.0, 0.0)
    assert sum(len(level) for level in wheel._levels) <= 4 * 66
    for number in range(5000):
        wheel.cancel(f"k{number}")
    wheel.cancel("never scheduled")
    assert len(wheel) == 0
    assert wheel.take_due(400 * DAY_S, 10) == ([], True)
    assert sum(len(level) for level in wheel._levels) == 0


def test_ledgers_are_bounded_and_lose_nothing() -> None:
    ledgers = Ledgers()
    for number in range(MAX_NAMES + 50):
        ledgers.of(f"name {number}").hits += 1
    assert ledgers.totals()["hits"] == MAX_NAMES + 50
    assert len(ledgers.by_name()) == MAX_NAMES + 1
    assert ledgers.by_name()[OTHER_NAMES]["hits"] == 50
    assert f"{ledgers.totals()['hit_rate']}" == "100.0%"


def plain(a: Any, b: Any = 2, *, c: Any = 3) -> None: ...


def two(a: Any, b: Any = 2) -> None: ...


def spread(a: Any, /, *rest: Any, key: Any = 0, **others: Any) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs"), [((1,), {}), ((1, 2), {}), ((1,), {"b": 2}), ((), {"b": 2, "a": 1}), ((1, 2), {"c": 3})]
)
def test_calls_that_mean_the_same_have_the_same_parts(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert ArgumentForm(plain).parts(args, kwargs) == (1, 2, 3)


def test_all_positional_arguments_are_taken_as_they_are() -> None:
    args = (1, 5)
    assert ArgumentForm(two).parts(args, {}) is args


def test_spread_arguments_are_one_part_each() -> None:
    form = ArgumentForm(spread)
    assert form.parts((1, 2, 3), {"x": 4}) == (1, (2, 3), 0, {"x": 4})
    assert form.parts((1,), {}) == (1, (), 0, {})
    assert form.parts((1,), {"a": 9}) == (1, (), 0, {"a": 9})
    assert form.labels == ("argument 'a'", "argument 'rest'", "argument 'key'", "argument 'others'")


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "'a'"),
        ((1, 2, 3), {}, "too many positional"),
        ((1,), {"z": 1}, "'z'"),
        ((1, 2), {"b": 2}, "multiple values for argument 'b'"),
        ((1,), {"a": 1}, "multiple values for argument 'a'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ArgumentForm(plain).parts(args, kwargs)
