from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from ondol.cache.entry import Entry
from ondol.cache.policies import DEFAULT_POLICY, POLICY_NAMES, make_policy
from ondol.cache.policies.gdsf import GdsfParams, GdsfPolicy
from ondol.cache.policies.ghosts import Ghosts, figure_of, mark
from ondol.cache.policies.lru import LruPolicy
from ondol.cache.policies.s3fifo import S3FifoPolicy
from ondol.errors import ConfigurationError
from ondol.setting_specs import SETTINGS

if TYPE_CHECKING:
    from ondol.cache.policies import EvictionPolicy

SHELF = cast("Any", SimpleNamespace(name="shelf"))


class Value:
    """Something that can be watched."""


def entry(key: Any, size_bytes: int = 1, cost_s: float = 0.0) -> Entry:
    return Entry(key, SHELF, None, size_bytes, cost_s)


def admit(policy: EvictionPolicy, *keys: Any) -> dict[Any, Entry]:
    entries = {key: entry(key) for key in keys}
    for one in entries.values():
        policy.admitted(one)
    return entries


def use(policy: EvictionPolicy, *entries: Entry) -> None:
    """As the tier does: every use is counted at once, and the policy told of those that it tracks."""
    for one in entries:
        one.uses += 1
    if tracked := [one for one in entries if one.is_tracked]:
        policy.touched(tracked)


def leave(policy: EvictionPolicy, count: int) -> list[Any]:
    keys = []
    for _ in range(count):
        gone = policy.evict()
        gone.is_live = False
        keys.append(gone.key)
    return keys


def test_lru_evicts_in_the_order_of_last_use() -> None:
    policy = LruPolicy()
    entries = admit(policy, "a", "b", "c", "d")
    use(policy, entries["b"], entries["a"], entries["b"])
    policy.removed(entries["d"])
    assert leave(policy, 3) == ["c", "a", "b"]


def test_lru_passes_over_entries_that_have_left() -> None:
    policy = LruPolicy()
    entries = admit(policy, "a", "b", "c")
    assert leave(policy, 1) == ["a"]
    use(policy, entries["a"], entries["b"])
    assert leave(policy, 2) == ["c", "b"]


def test_only_lru_wants_to_be_told_of_all_hits() -> None:
    for policy, is_tracked in ((LruPolicy(), True), (S3FifoPolicy(), False), (GdsfPolicy(), False)):
        policy.resized(10)
        assert admit(policy, "a")["a"].is_tracked is is_tracked


def test_s3fifo_lets_entries_leave_that_are_used_once() -> None:
    policy = S3FifoPolicy()
    policy.resized(10)
    hot = admit(policy, "hot")["hot"]
    use(policy, hot)
    admit(policy, *range(9))
    assert leave(policy, 9) == list(range(9))
    assert leave(policy, 1) == ["hot"]


def test_s3fifo_brings_who_comes_back_into_the_main_queue() -> None:
    policy = S3FifoPolicy()
    policy.resized(10)
    admit(policy, "back", *range(9))
    assert leave(policy, 1) == ["back"]
    admit(policy, "back", *range(10, 15))
    assert "back" not in leave(policy, 13)


def test_s3fifo_gives_no_more_than_three_rounds() -> None:
    policy = S3FifoPolicy()
    policy.resized(2)
    entries = {key: entry(key) for key in ("a", "b")}
    for one in entries.values():
        one.uses = 1  # one that takes another's place goes to the main queue at once
        policy.admitted(one)
    use(policy, *[entries["a"]] * 50, *[entries["b"]] * 3)
    assert leave(policy, 2) == ["a", "b"]


def test_s3fifo_goes_by_bytes() -> None:
    policy = S3FifoPolicy()
    policy.resized(1000)
    for one in (entry("large", 600), entry("small", 99)):
        policy.admitted(one)
        use(policy, one)
    policy.admitted(entry("new", 1))
    # The small queue holds 700 bytes, then 100, and then less than its share: only "large" and "small" move on.
    assert leave(policy, 1) == ["large"]
    assert policy.get_stats() == {"policy": "s3fifo", "entries": 2, "waiting": 1}


def test_gdsf_prefers_small_costly_and_frequent_entries() -> None:
    def order(*entries: Entry) -> list[Any]:
        policy = GdsfPolicy()
        policy.resized(1000)
        for one in entries:
            policy.admitted(one)
        return leave(policy, len(entries))

    assert order(entry("small", 10), entry("large", 100)) == ["large", "small"]
    assert order(entry("dear", 10, 5.0), entry("cheap", 10, 0.5)) == ["cheap", "dear"]
    policy = GdsfPolicy()
    entries = admit(policy, "often", "seldom", "never")
    use(policy, *[entries["often"]] * 5, entries["seldom"])
    assert leave(policy, 3) == ["never", "seldom", "often"]


def test_gdsf_takes_an_unknown_cost_for_the_mean() -> None:
    policy = GdsfPolicy()
    for one in (entry("dear", 1, 3.0), entry("cheap", 1, 1.0), entry("unknown", 1)):
        policy.admitted(one)
    assert policy._worth(entry("x", 1, 2.0)) == pytest.approx(policy._worth(entry("y", 1)))
    assert leave(policy, 1) == ["cheap"]


def test_gdsf_takes_tiny_costs_for_noise() -> None:
    policy = GdsfPolicy()
    first, second = entry("first", 1, 9e-6), entry("second", 1, 1e-6)
    policy.admitted(first)
    policy.admitted(second)
    first.rank = second.rank = 1.0
    assert policy._worth(first) / policy._worth(second) < 1.1


def test_gdsf_lets_old_frequency_decay() -> None:
    policy = GdsfPolicy()
    once_hot = admit(policy, "once hot")["once hot"]
    use(policy, *[once_hot] * 20)
    for number in range(60):
        policy.admitted(entry(number))
        if leave(policy, 1) == ["once hot"]:
            return
    pytest.fail("it stayed for ever")


def test_newcomers_in_doubt_leave_before_known_ones() -> None:
    policy = GdsfPolicy(GdsfParams("doubt", newcomer=0.1, ghost_ratio=3.0))
    policy.resized(10)
    admit(policy, "known")
    assert leave(policy, 1) == ["known"]
    admit(policy, "known", "new")
    assert leave(policy, 2) == ["new", "known"]


def test_queued_newcomers_leave_first_unless_used_again() -> None:
    policy = GdsfPolicy(GdsfParams("gate", queue_ratio=0.2, ghost_ratio=3.0))
    policy.resized(10)
    entries = admit(policy, *range(10))
    use(policy, entries[0], entries[1])
    assert leave(policy, 7) == [2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_evict_without_entries_raises(name: str) -> None:
    policy = make_policy(name)
    policy.resized(10)
    with pytest.raises(KeyError):
        policy.evict()
    policy.removed(admit(policy, "a")["a"])
    with pytest.raises(KeyError):
        policy.evict()


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_removed_entries_are_let_go_at_once(name: str) -> None:
    policy = make_policy(name)
    policy.resized(1000)
    kept = [entry(number) for number in range(100)]
    for one in kept:
        policy.admitted(one)
    value = Value()
    watch = weakref.ref(value)
    gone = Entry("gone", SHELF, value, 1, 0.0)
    policy.admitted(gone)
    gone.is_live = False
    policy.removed(gone)
    del gone, value
    assert watch() is None


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_evicted_entries_are_let_go_at_once(name: str) -> None:
    policy = make_policy(name)
    policy.resized(3)
    admit(policy, 1, 2, 3)
    gc.disable()
    try:
        watch = [weakref.ref(value) for value in give_values(policy)]
        leave(policy, 6)
        assert [ref() for ref in watch] == [None] * 3
    finally:
        gc.enable()


def give_values(policy: EvictionPolicy) -> list[Value]:
    """Admit three entries with values that only they hold."""
    values = [Value() for _ in range(3)]
    for number, value in enumerate(values):
        policy.admitted(Entry(("value", number), SHELF, value, 1, 0.0))
    return values


@pytest.mark.parametrize("name", ["s3fifo", "gdsf"])
def test_one_eviction_takes_a_bounded_number_of_steps(name: str) -> None:
    policy = make_policy(name)
    policy.resized(20_000)
    used = []
    for number in range(20_000):
        one = entry(number)
        one.uses = 1
        policy.admitted(one)
        used.append(one)
    use(policy, *used)
    gone = policy.evict()
    assert cast("int", gone.key) <= 1_001


def test_gdsf_leaves_a_bounded_number_of_tombstones() -> None:
    policy = GdsfPolicy()
    entries = admit(policy, *range(1000))
    for number in range(990):
        policy.removed(entries[number])
        assert len(policy._heap) <= 2 * len(policy) + 1
    assert leave(policy, 10) == list(range(990, 1000))


@pytest.mark.parametrize("name", POLICY_NAMES)
@pytest.mark.parametrize("size_bytes", [0, 1, 1 << 50])
def test_any_size_will_do(name: str, size_bytes: int) -> None:
    policy = make_policy(name)
    policy.resized(100)
    for number in range(5):
        policy.admitted(entry(number, size_bytes))
    assert sorted(leave(policy, 5)) == list(range(5))


def keep(ghosts: Ghosts, number: int, figure: int, count: int) -> None:
    one = entry(number)
    mark(one)
    if ghosts.keep(one, figure):
        ghosts.turn_over(count)


def recall(ghosts: Ghosts, number: int) -> int:
    return ghosts.recall(mark(entry(number)))


def test_ghosts_are_remembered_for_a_while() -> None:
    ghosts = Ghosts()
    ghosts.resize(200)
    for number in range(100):
        keep(ghosts, number, 3, 200)
    assert sum(recall(ghosts, number) == 3 for number in range(50)) >= 38
    assert sum(bool(recall(ghosts, number)) for number in range(50)) <= 4
    for number in range(100, 1000):
        keep(ghosts, number, 1, 200)
    known = [number for number in range(1000) if recall(ghosts, number)]
    assert len(set(range(900, 1000)) & set(known)) >= 70
    assert sum(number < 700 for number in known) < 30
    assert sum(bool(recall(ghosts, number)) for number in range(10_000, 20_000)) < 200


def test_who_left_lately_is_told_from_who_left_before() -> None:
    ghosts = Ghosts()
    ghosts.resize(2000)
    keep(ghosts, 1, 2, 0)
    assert ghosts.recall_lately(mark(entry(1))) == 2
    keep(ghosts, 1, 2, 0)
    ghosts.turn_over(100)
    assert ghosts.recall_lately(mark(entry(1))) == 0
    assert [recall(ghosts, 1), recall(ghosts, 1)] == [2, 0]


def test_ghosts_are_bounded_in_count_where_entries_are_small() -> None:
    ghosts = Ghosts()
    ghosts.resize(1 << 40)
    for number in range(20_000):
        keep(ghosts, number, 1, 300)
    assert ghosts.used_bytes <= 10_000


@pytest.mark.parametrize("name", ["s3fifo", "gdsf"])
def test_entries_handed_over_are_no_ghosts(name: str) -> None:
    ghosts = Ghosts()
    ghosts.resize(1000)
    policy = S3FifoPolicy(ghosts) if name == "s3fifo" else GdsfPolicy(ghosts=ghosts)
    policy.resized(1000)
    admit(policy, 1, 2)
    assert leave(policy, 1) == [1]
    policy.hand_over()
    assert leave(policy, 1) == [2]
    assert [bool(recall(ghosts, number)) for number in (1, 2)] == [True, False]


def test_marks_tell_keys_and_names_apart() -> None:
    shelves = [cast("Any", SimpleNamespace(name=f"n{number}")) for number in range(1100)]
    marks = {mark(Entry(key, shelf, None, 1, 0.0)) for key in range(50) for shelf in shelves}
    assert len(marks) == 50 * 1100
    assert mark(entry("a")) == mark(entry("a"))


def test_figures_fit_a_byte() -> None:
    assert [figure_of(frequency) for frequency in (0.0, 0.1, 2.4, 1e9)] == [1, 1, 2, 15]


def test_policies_are_made_by_name() -> None:
    assert DEFAULT_POLICY in POLICY_NAMES
    for name in POLICY_NAMES:
        assert make_policy(name).get_stats()["policy"] == name


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigurationError, match=r"'mru'.*adaptive, lru, s3fifo, gdsf"):
        make_policy("mru")


def test_the_setting_allows_exactly_the_policies_there_are() -> None:
    (setting,) = [setting for setting in SETTINGS if setting.variable == "CACHE_POLICY"]
    assert set(setting.choices) == set(POLICY_NAMES)
    assert setting.default == DEFAULT_POLICY
