from __future__ import annotations

import math
from typing import Any

import pytest

from ondol.cache.arguments import ArgumentForm
from ondol.cache.expiry import TimerWheel
from ondol.cache.glob import Glob
from ondol.cache.lifetime import Lifetime, checked_lifetime
from ondol.cache.options import checked_terms
from ondol.cache.partition import Partition, most_over
from ondol.cache.policies import LruPolicy
from ondol.cache.quotas import checked_quotas
from ondol.cache.shelf import MAX_NAMES, OTHER_NAMES, Shelves
from ondol.cache.tags import checked_tags
from ondol.errors import ConfigurationError

HOUR_S, DAY_S = 3600.0, 86400.0


@pytest.mark.parametrize("deadline_s", [0.2, 1.0, 63.9, 64.0, 65.5, 4096.0, 5 * HOUR_S, 3 * DAY_S, 400 * DAY_S])
@pytest.mark.parametrize("start_s", [0.0, 0.7, 12345.6])
def test_wheel_hands_out_a_key_when_due_and_not_before(start_s: float, deadline_s: float) -> None:
    wheel: TimerWheel[str] = TimerWheel()
    wheel.schedule("k", start_s + deadline_s, start_s)
    for share in (0.1, 0.5, 0.9, 0.999):
        assert wheel.take_due(start_s + deadline_s * share, 10) == ([], True)
    assert wheel.take_due(start_s + deadline_s + 1.0, 10) == (["k"], True)
    assert len(wheel) == 0


def test_wheel_works_in_bounded_steps_and_catches_up_after_a_long_pause() -> None:
    wheel: TimerWheel[str] = TimerWheel()
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
    wheel: TimerWheel[str] = TimerWheel()
    for number in range(5000):
        wheel.schedule(f"k{number}", 1.0 + number * 1009.0, 0.0)
    assert sum(len(level) for level in wheel._levels) <= 4 * 66
    for number in range(5000):
        wheel.cancel(f"k{number}")
    wheel.cancel("never scheduled")
    assert len(wheel) == 0
    assert wheel.take_due(400 * DAY_S, 10) == ([], True)
    assert sum(len(level) for level in wheel._levels) == 0


def shelves(max_bytes: int = 1000) -> Shelves:
    return Shelves({}, Partition(LruPolicy(), max_bytes))


def test_figures_by_name_are_bounded_and_lose_nothing() -> None:
    table = shelves()
    for number in range(MAX_NAMES + 50):
        table.figures(f"name {number}").hits += 1
    beyond = table.open("one more")
    beyond.misses += 1
    assert table.close_if_empty(beyond)
    assert not table.close_if_empty(table.open("name 0"))  # it has figures to show
    totals = table.totals()
    assert (totals.hits, totals.misses) == (MAX_NAMES + 50, 1)
    plain_figures = table.as_plain()
    assert len(plain_figures) == MAX_NAMES + 1
    assert plain_figures[OTHER_NAMES]["hits"] == 50
    assert f"{totals.as_plain()['hit_rate']}" == "99.7%"


def test_the_fullest_partition_gives_way() -> None:
    shared, small, large = (Partition(LruPolicy(), size) for size in (1000, 100, 500))
    everyone = [shared, small, large]
    shared.used_bytes, small.used_bytes, large.used_bytes = 300, 100, 100
    assert most_over(everyone, shared, 1000) is small  # 100 % of its own; the others have 400 to share
    shared.used_bytes = 900
    assert most_over(everyone, shared, 1000) is shared


def test_a_quota_that_leaves_nothing_still_leaves_a_tenth_to_the_others() -> None:
    shared, greedy = Partition(LruPolicy(), 1000), Partition(LruPolicy(), 1000)
    shared.used_bytes, greedy.used_bytes = 50, 950
    assert most_over([shared, greedy], shared, 1000) is greedy


@pytest.mark.parametrize(
    ("quota", "max_bytes", "expected"), [(0.25, 1000, 250), (1, 1000, 1000), (300, 1000, 300), (1e-9, 1000, 1)]
)
def test_quotas_are_bytes_or_shares(quota: float, max_bytes: int, expected: int) -> None:
    assert checked_quotas({"a": quota}).in_bytes(max_bytes) == {"a": expected}


@pytest.mark.parametrize("quota", [0, -1, 1.5, math.nan, math.inf, True, "1", None])
def test_other_quotas_are_refused(quota: Any) -> None:
    with pytest.raises(ConfigurationError, match="quota 'a'"):
        checked_quotas({"a": quota})


def test_quotas_come_and_go() -> None:
    quotas = checked_quotas({"a": 10}).with_quota("b", 0.5)
    assert quotas.in_bytes(100) == {"a": 10, "b": 50}
    assert quotas.with_quota("a", None).in_bytes(100) == {"b": 50}


@pytest.mark.parametrize(
    ("pattern", "reaches", "passes_by"),
    [
        ("user_*", ["user_data", "user_"], ["user", "xuser_"]),
        ("user:42:*", ["user"], ["user_data", "use"]),
        ("user", ["user"], []),
        ("*", ["anything", ""], []),
        ("[ab]x", ["ax", "zz"], []),
        ("a:b:c", ["a", "a:b", "a:b:c"], ["a:x"]),
    ],
)
def test_a_glob_knows_which_names_it_can_reach(pattern: str, reaches: list[str], passes_by: list[str]) -> None:
    glob = Glob(pattern)
    assert all(glob.may_reach(name) for name in reaches)
    assert not any(glob.may_reach(name) for name in passes_by)


@pytest.mark.parametrize(
    ("pattern", "segment"),
    [
        ("user:42:*", "42"),
        ("user:42", "42"),
        ("user:4*", None),
        ("user:*", None),
        ("user*", None),
        ("user:42:", "42"),
        ("user::x", ""),
        ("user:[4]2:x", None),
        ("user", None),
    ],
)
def test_a_glob_knows_the_first_word_where_it_is_certain(pattern: str, segment: str | None) -> None:
    assert Glob(pattern).segment("user") == segment


@pytest.mark.parametrize("tags", ["tag", b"tag", [""], [["a", "b"]], ["x" * 257], [1], [f"t{n}" for n in range(33)]])
def test_bad_tags_are_refused(tags: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="not allowed"):
        checked_tags(tags)


def test_tags_are_kept_once_each() -> None:
    assert checked_tags(["b", "a", "b"]) == ("b", "a")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ttl_s": 10}, Lifetime(10.0)),
        ({"ttl_hours": 1, "stale_ttl_s": 5}, Lifetime(3600.0, stale_ttl_s=5.0)),
        ({"idle_ttl_s": 3}, Lifetime(None, 3.0)),
        ({"ttl_s": math.inf, "idle_ttl_s": 3}, Lifetime(None, 3.0)),
        ({"idle_ttl_s": math.inf}, Lifetime()),
        ({"ttl_s": 10, "refresh_ahead": 0.8, "ttl_jitter": 0.1}, Lifetime(10.0, refresh_ahead=0.8, ttl_jitter=0.1)),
    ],
)
def test_lifetimes(options: Any, expected: Lifetime) -> None:
    assert checked_lifetime(options) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"ttl_s": 1, "stale_ttl_s": -1},
        {"ttl_s": 1, "refresh_ahead": 1.0},
        {"ttl_s": 1, "refresh_ahead": 0},
        {"ttl_s": 1, "ttl_jitter": 1},
        {"idle_ttl_s": 0},
        {"stale_ttl_s": 1},
        {"refresh_ahead": 0.5, "ttl_s": math.inf},
        {"ttl_s": 1, "stale_ttl_s": math.nan},
    ],
)
def test_bad_lifetimes_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=r"not allowed|needs a time to live"):
        checked_lifetime(options)


def test_an_unknown_lifetime_names_those_that_exist() -> None:
    wrong: Any = {"ttl": 1}
    with pytest.raises(TypeError, match=r"'ttl'.*idle_ttl_s.*ttl_hours"):
        checked_lifetime(wrong)


def test_times_of_an_entry() -> None:
    timing = Lifetime(100.0, stale_ttl_s=50.0, refresh_ahead=0.8, ttl_jitter=0.1).begin(1000.0, 0.5)
    assert timing is not None
    assert (timing.leaves_at_s, timing.fresh_until_s) == pytest.approx((1000 + 95 + 50, 1000 + 76))
    assert timing.calm_until_s == timing.fresh_until_s
    timing.refresh_later(1100.0)
    assert timing.calm_until_s == 1100.0
    idle = Lifetime(100.0, idle_ttl_s=30.0).begin(0.0, 0.0)
    assert idle is not None
    assert (idle.deadline_s, idle.calm_until_s) == (30.0, -math.inf)
    idle.used(90.0)
    assert idle.deadline_s == 100.0  # no use makes it outlive its time to live
    assert Lifetime().begin(0.0, 0.0) is None


@pytest.mark.parametrize("options", [{"negative_ttl_s": 0}, {"negative_ttl_s": True}, {"negative_ttl_s": math.nan}])
def test_bad_negative_times_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="negative_ttl_s"):
        checked_terms(options, Lifetime())


@pytest.mark.parametrize("options", [{"negative_errors": "x"}, {"negative_errors": (int,)}, {"ignored": 1}])
def test_bad_terms_are_refused(options: Any) -> None:
    with pytest.raises(TypeError, match=r"not allowed|allowed are"):
        checked_terms(options, Lifetime())


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


def test_ignored_arguments_are_left_out() -> None:
    form = ArgumentForm(plain, "b")
    assert form.parts((1,), {"b": 9}) == form.parts((1, 7), {}) == (1, 3)
    assert form.labels == ("argument 'a'", "argument 'c'")
    with pytest.raises(ValueError, match=r"'z'.*a, b, c"):
        ArgumentForm(plain, ["a", "z"])


def test_a_method_is_known_by_its_first_parameter() -> None:
    def method(self: Any, number: int = 1) -> None: ...

    form = ArgumentForm(method, "self")
    assert form.has_receiver
    assert form.parts((object(), 2), {}) == (2,)
    assert not ArgumentForm(plain, "a").has_receiver
