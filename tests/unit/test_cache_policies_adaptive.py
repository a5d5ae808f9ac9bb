from __future__ import annotations

from itertools import pairwise
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from ondol.cache.entry import Entry
from ondol.cache.policies import AdaptivePolicy, make_policy
from ondol.cache.policies.experts import EXPERTS
from ondol.cache.policies.lru import LruPolicy
from ondol.cache.policies.panel import Panel
from ondol.cache.policies.shadow import LruShadow, Shadow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ondol.cache.policies import EvictionPolicy
    from ondol.cache.policies.shadow import Access

SHELF = cast("Any", SimpleNamespace(name="shelf"))


class Tier:
    """As much of the memory tier as a policy sees."""

    def __init__(self, policy: EvictionPolicy, max_bytes: int) -> None:
        self.policy = policy
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.entries: dict[int, Entry] = {}
        self.hits: list[Entry] = []
        policy.resized(max_bytes)

    def ask(self, key: int, size_bytes: int = 1, cost_s: float = 0.0) -> bool:
        """Return whether it was there; if not, it is now."""
        entry = self.entries.get(key)
        if entry is not None:
            entry.uses += 1
            if entry.is_tracked:
                self.hits.append(entry)
            return True
        self.policy.touched(self.hits)
        self.hits = []
        while self.used_bytes + size_bytes > self.max_bytes:
            gone = self.policy.evict()
            gone.is_live = False
            self.used_bytes -= gone.size_bytes
            del self.entries[cast("int", gone.key)]
        self.entries[key] = entry = Entry(key, SHELF, None, size_bytes, cost_s)
        self.used_bytes += size_bytes
        self.policy.admitted(entry)
        return False


def hit_ratio(policy: str | EvictionPolicy, keys: list[int], max_bytes: int) -> float:
    tier = Tier(make_policy(policy) if isinstance(policy, str) else policy, max_bytes)
    return sum(tier.ask(key) for key in keys) / len(keys)


def zipf(random: Random, count: int, keys: int, exponent: float) -> list[int]:
    return random.choices(range(keys), [1 / (rank + 1) ** exponent for rank in range(keys)], k=count)


def skewed() -> list[int]:
    return zipf(Random(1), 12_000, 2_000, 0.9)


def scans() -> list[int]:
    random = Random(2)
    keys = zipf(random, 12_000, 2_000, 0.9)
    return [10_000 + place if place % 3_000 < 1_200 else key for place, key in enumerate(keys)]


def fresh() -> list[int]:
    """Keys are used for a while and never again: made for LRU, and bad for those that doubt newcomers."""
    random, newest = Random(3), 0
    keys = []
    for _ in range(12_000):
        newest += random.random() < 0.25
        keys.append(max(0, newest - int(random.expovariate(1 / 100))))
    return keys


def drifting() -> list[int]:
    return [key + place // 10 for place, key in enumerate(zipf(Random(4), 12_000, 2_000, 0.9))]


def phases() -> list[int]:
    return skewed()[:6_000] + [50_000 + key for key in fresh()] + skewed()


TRACES = {"skewed": skewed, "scans": scans, "fresh": fresh, "drifting": drifting, "phases": phases}


@pytest.mark.parametrize("name", TRACES)
def test_it_does_not_lose_to_lru_and_keeps_up_with_the_best(name: str) -> None:
    keys = TRACES[name]()
    fixed = {policy: hit_ratio(policy, keys, 150) for policy in ("lru", "s3fifo", "gdsf")}
    ours = hit_ratio("adaptive", keys, 150)
    assert ours >= fixed["lru"] - 0.005
    assert ours >= max(fixed.values()) - 0.015


def test_it_changes_its_mind_when_the_workload_changes() -> None:
    policy = AdaptivePolicy()
    tier = Tier(policy, 150)
    seen = []
    for keys in (skewed(), [50_000 + key for key in fresh()]):
        for key in keys:
            tier.ask(key)
        seen.append(policy.get_stats()["in_charge"])
    assert seen[0] != "lru"
    assert seen[1] == "lru"
    assert cast("int", policy.get_stats()["switches"]) >= 1


def test_its_figures_say_why() -> None:
    policy = AdaptivePolicy()
    tier = Tier(policy, 150)
    for key in skewed():
        tier.ask(key)
    stats = policy.get_stats()
    ratios = cast("dict[str, float]", stats["estimated_hit_ratios"])
    assert stats["policy"] == "adaptive"
    assert set(ratios) == {expert.name for expert in EXPERTS if not expert.needs_costs and not expert.needs_sizes}
    assert ratios["lru"] < ratios["s3fifo"]
    assert stats["costs_vary"] is False


def test_where_costs_vary_it_saves_more_of_them_without_losing_hits() -> None:
    random = Random(5)
    costs_s = [10 ** random.uniform(-3, 1) for _ in range(3_000)]
    keys = zipf(random, 30_000, 3_000, 0.9)

    def run(policy: str) -> tuple[int, float]:
        tier = Tier(make_policy(policy), 300)
        hits = [key for key in keys if tier.ask(key, cost_s=costs_s[key])]
        return len(hits), sum(costs_s[key] for key in hits)

    hits, saved_s = run("adaptive")
    lru_hits, lru_saved_s = run("lru")
    s3fifo_hits, s3fifo_saved_s = run("s3fifo")
    assert saved_s > 1.15 * lru_saved_s
    assert saved_s > s3fifo_saved_s
    assert hits > max(lru_hits, s3fifo_hits) - 0.012 * len(keys)


def former(policy: AdaptivePolicy) -> Any:
    """The policy that still has entries to hand over, read anew each time."""
    return policy._former


def test_a_switch_moves_a_few_entries_at_a_time() -> None:
    policy = AdaptivePolicy()
    tier = Tier(policy, 4_000)
    for key in range(4_000):
        tier.ask(key)
    while former(policy) is not None:
        tier.ask(len(tier.entries))
    policy._switch("gdsf")
    left = []
    while former(policy) is not None:
        left.append(len(former(policy)))
        tier.ask(100_000 + len(left))
    assert left[0] == 4_000
    assert len(left) <= 600
    assert all(0 < before - after <= 10 for before, after in pairwise(left))
    assert len(policy._policy) == len(tier.entries)


def test_among_relatives_only_the_ranking_changes() -> None:
    policy = AdaptivePolicy()
    tier = Tier(policy, 100)
    for key in range(200):
        tier.ask(key)
    policy._switch("gate")
    for key in range(200, 300):
        tier.ask(key)
    before = policy._policy
    assert policy._former is None
    policy._switch("gdsf")
    assert policy._policy is before
    assert policy._former is None


def test_shadows_and_tracked_entries_are_few_in_a_large_cache() -> None:
    policy = AdaptivePolicy()
    tier = Tier(policy, 20_000)
    for key in range(25_000):
        tier.ask(key)
    for key in Random(6).choices(range(10_000, 25_000), k=100_000):
        tier.ask(key)
    stats = policy.get_stats()
    assert cast("int", stats["shadow_keys"]) <= 1_800
    policy._switch("s3fifo")
    for key in range(30_000, 40_000):
        tier.ask(key)
    assert policy._former is None
    for key in list(tier.entries) * 2:
        tier.ask(key)
    policy.touched(tier.hits)
    tracked = [entry for entry in tier.entries.values() if entry.is_tracked]
    assert len(tracked) <= 1_800
    assert all(entry.mark < policy._bound for entry in tracked)


def test_in_a_cache_far_from_full_nothing_is_tracked() -> None:
    policy = AdaptivePolicy()
    tier = Tier(policy, 100_000_000)
    for _ in range(50):
        for key in range(400):
            tier.ask(key, 1_000)
    assert not any(entry.is_tracked for entry in tier.entries.values())
    assert policy.get_stats()["shadow_keys"] == 0


def test_the_sample_of_a_large_cache_is_small_from_the_beginning() -> None:
    policy = AdaptivePolicy()
    tier = Tier(policy, 100_000_000)
    tier.ask(0, 1_000)
    assert policy.get_stats()["sampled_ratio"] == pytest.approx(0.04096)
    small = AdaptivePolicy()
    Tier(small, 1_000_000).ask(0, 1_000)
    assert small.get_stats()["sampled_ratio"] == 1.0


def test_shadows_begin_with_what_the_cache_holds() -> None:
    policy = AdaptivePolicy()
    tier = Tier(policy, 1_000)
    for key in range(700):
        tier.ask(key)
    keys = cast("int", policy.get_stats()["shadow_keys"])
    assert 600 < keys <= 700


def test_lru_in_charge_keeps_ghosts_only_while_others_may_be_better() -> None:
    for keys, is_keeping in (list(range(20_000)), False), (skewed(), True):
        policy = AdaptivePolicy()
        tier = Tier(policy, 150)
        seen = set()
        for key in keys:
            tier.ask(key)
            if isinstance(policy._policy, LruPolicy):
                seen.add(policy._policy._ghosts is not None)
        assert is_keeping in seen
        if not is_keeping:
            assert isinstance(policy._policy, LruPolicy)
            assert policy._policy._ghosts is None


def test_an_lru_shadow_goes_by_bytes() -> None:
    shadow = LruShadow()
    shadow.resize(10)
    assert shadow.replay([(1, 4, 1.0), (2, 4, 1.0), (1, 4, 2.0), (3, 4, 1.0), (2, 4, 1.0), (4, 11, 1.0)]) == (1, 2.0)
    assert len(shadow) == 2
    assert shadow.replay([(3, 4, 0.0)])[0] == 1
    shadow.thin(3)
    assert len(shadow) == 1


def test_after_shrinking_the_sample_grows_again() -> None:
    policy = AdaptivePolicy()
    tier = Tier(policy, 20_000)
    for key in range(25_000):
        tier.ask(key)
    before = cast("float", policy.get_stats()["sampled_ratio"])
    tier.max_bytes = 1_000
    policy.resized(1_000)
    assert policy.get_stats()["sampled_ratio"] == pytest.approx(min(1.0, before * 20))


def accesses(keys: Iterable[int], cost_s: float = 0.0) -> list[Access]:
    return [(key, 1, cost_s) for key in keys]


def test_a_shadow_does_what_a_cache_would_do() -> None:
    keys = skewed()
    shadow: Shadow | LruShadow
    for shadow in (LruShadow(), Shadow(LruPolicy())):
        shadow.resize(150)
        hits, saved_s = shadow.replay(accesses(keys, 2.0))
        assert hits == round(hit_ratio("lru", keys, 150) * len(keys))
        assert shadow.is_full
    assert saved_s == pytest.approx(2.0 * hits)
    shadow.thin(100)
    assert shadow.replay(accesses(range(1_000, 1_001)))[0] == 0
    shadow.resize(10)
    assert len(shadow) <= 10


def test_costs_that_differ_by_noise_only_do_not_count_as_varying() -> None:
    random = Random(7)
    for scale_s, spread, is_varying in ((1e-6, 2.0, False), (1.0, 0.05, False), (0.1, 2.0, True)):
        panel = Panel()
        panel.resize(50)
        panel.learn([(key, 1, scale_s * 10 ** random.uniform(0, spread)) for key in range(500)])
        assert panel.costs_vary is is_varying


def test_replays_come_out_the_same_each_time() -> None:
    keys = scans()
    assert hit_ratio("adaptive", keys, 150) == hit_ratio("adaptive", keys, 150)
