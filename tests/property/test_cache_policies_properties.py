from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ondol.cache.entry import Entry
from ondol.cache.policies import adaptive, make_policy
from ondol.cache.policies.gdsf import GDSF, GdsfParams, GdsfPolicy
from ondol.cache.policies.lru import LruPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.cache.policies import EvictionPolicy

SHELVES = [cast("Any", SimpleNamespace(name=name)) for name in ("a", "b")]
KEYS = st.one_of(st.integers(0, 30), st.sampled_from(["x", "y", b"z", (1, "t"), (2, 3)]))
SIZES = st.sampled_from([0, 1, 1, 3, 10, 40, 1 << 40])
COSTS = st.sampled_from([0.0, 0.0, 1e-6, 0.5, 30.0])
GATE = GdsfParams("gate", queue_ratio=0.1, ghost_ratio=3.0)
DOUBT = GdsfParams("doubt", newcomer=0.1, ghost_ratio=3.0)


class PolicyMachine(RuleBasedStateMachine):
    """A policy under what a tier may do to it; what is live is kept beside it."""

    make: Callable[[], EvictionPolicy]

    def __init__(self) -> None:
        super().__init__()
        self.policy = self.make()
        self.live: dict[Any, Entry] = {}
        self.hits: list[Entry] = []

    @initialize(max_bytes=st.integers(1, 200))
    def begin(self, max_bytes: int) -> None:
        self.policy.resized(max_bytes)

    @rule(shelf=st.sampled_from(SHELVES), key=KEYS, size_bytes=SIZES, cost_s=COSTS)
    def admit(self, shelf: Any, key: Any, size_bytes: int, cost_s: float) -> None:
        self.hand_over()
        entry = Entry(key, shelf, None, size_bytes, cost_s)
        old = self.live.pop((shelf.name, key), None)
        if old is not None:
            self.forget(old)
            entry.uses = old.uses + 1
        self.live[shelf.name, key] = entry
        self.policy.admitted(entry)

    @rule(places=st.lists(st.integers(0, 1000), max_size=8))
    def use(self, places: list[int]) -> None:
        entries = list(self.live.values())
        for place in places if entries else ():
            entry = entries[place % len(entries)]
            entry.uses += 1
            if entry.is_tracked:
                self.hits.append(entry)

    @rule()
    def hand_over(self) -> None:
        hits, self.hits = self.hits, []
        self.policy.touched(hits)

    @rule(place=st.integers(0, 1000))
    def remove(self, place: int) -> None:
        if self.live:
            name = list(self.live)[place % len(self.live)]
            self.forget(self.live.pop(name))

    def forget(self, entry: Entry) -> None:
        entry.is_live = False
        self.policy.removed(entry)

    @rule()
    def evict(self) -> None:
        self.hand_over()
        if not self.live:
            with pytest.raises(KeyError):
                self.policy.evict()
            return
        entry = self.policy.evict()
        assert self.live.pop((entry.shelf.name, entry.key)) is entry
        entry.is_live = False

    @rule(max_bytes=st.integers(1, 200))
    def resize(self, max_bytes: int) -> None:
        self.policy.resized(max_bytes)

    @invariant()
    def figures_can_be_read(self) -> None:
        assert self.policy.get_stats()["policy"]

    def teardown(self) -> None:
        while self.live:
            self.evict()
        with pytest.raises(KeyError):
            self.policy.evict()


class LruMachine(PolicyMachine):
    """Exact LRU: the order is that of a list."""

    make = LruPolicy

    def __init__(self) -> None:
        super().__init__()
        self.order: list[Entry] = []

    def admit_in_order(self) -> None:
        self.order = [entry for entry in self.order if entry.is_live]
        known = {id(entry) for entry in self.order}
        self.order += [entry for entry in self.live.values() if id(entry) not in known]

    @rule()
    def hand_over(self) -> None:
        self.admit_in_order()
        for entry in self.hits:
            if entry.is_live:
                self.order.remove(entry)
                self.order.append(entry)
        super().hand_over()

    @rule()
    def evict(self) -> None:
        self.hand_over()
        self.admit_in_order()
        expected = self.order[0] if self.order else None
        super().evict()
        assert expected is None or not expected.is_live


class NaiveGdsf:
    """GDSF by the book of ours, with a search through all entries."""

    def __init__(self) -> None:
        self.rows: dict[Entry, list[float]] = {}  # rank, turn, frequency, uses when ranked
        self.clock = 0.0
        self.turn = 0
        self.costs: list[float] = []

    def worth(self, entry: Entry, frequency: float) -> float:
        mean_s = sum(self.costs) / len(self.costs) if self.costs else 0.0
        cost = (entry.cost_s + 1e-4) / (mean_s + 1e-4) if entry.cost_s else 1.0
        return frequency * cost / max(entry.size_bytes, 1)

    def rank(self, entry: Entry, frequency: float) -> None:
        self.turn += 1
        self.rows[entry] = [self.clock + self.worth(entry, frequency), self.turn, frequency, entry.uses]

    def admitted(self, entry: Entry) -> None:
        if entry.cost_s:
            self.costs.append(entry.cost_s)
        self.rank(entry, 1.0 + min(entry.uses, 3))

    def next(self) -> Entry:
        while True:
            entry = min(self.rows, key=lambda one: self.rows[one][:2])
            rank, _, frequency, seen = self.rows[entry]
            self.clock = rank
            if entry.uses == seen:
                return entry
            self.rank(entry, frequency * GDSF.decay + entry.uses - seen)


class GdsfMachine(PolicyMachine):
    """GDSF against the naive one: the same rank leaves (ties of rounding aside)."""

    make = GdsfPolicy

    def __init__(self) -> None:
        super().__init__()
        self.model = NaiveGdsf()

    @rule(shelf=st.sampled_from(SHELVES), key=KEYS, size_bytes=SIZES, cost_s=COSTS)
    def admit(self, shelf: Any, key: Any, size_bytes: int, cost_s: float) -> None:
        super().admit(shelf, key, size_bytes, cost_s)
        self.model.admitted(self.live[shelf.name, key])

    def forget(self, entry: Entry) -> None:
        super().forget(entry)
        del self.model.rows[entry]

    @rule()
    def evict(self) -> None:
        expected = self.model.next() if self.live else None
        super().evict()
        if expected is not None:
            gone = next(one for one in self.model.rows if not one.is_live)
            assert self.model.rows[gone][0] == pytest.approx(self.model.rows[expected][0], rel=1e-9)
            del self.model.rows[gone]


class GateMachine(PolicyMachine):
    @staticmethod
    def make() -> EvictionPolicy:
        return GdsfPolicy(GATE)


class DoubtMachine(PolicyMachine):
    @staticmethod
    def make() -> EvictionPolicy:
        return GdsfPolicy(DOUBT)


class S3FifoMachine(PolicyMachine):
    @staticmethod
    def make() -> EvictionPolicy:
        return make_policy("s3fifo")


class AdaptiveMachine(PolicyMachine):
    """With switches at any time to any expert."""

    make = adaptive.AdaptivePolicy

    @rule(name=st.sampled_from(["lru", "s3fifo", "gdsf", "gate", "thrift"]))
    def switch(self, name: str) -> None:
        assert isinstance(self.policy, adaptive.AdaptivePolicy)
        if self.policy._former is None:
            self.policy._switch(name)

    @rule()
    def thin(self) -> None:
        assert isinstance(self.policy, adaptive.AdaptivePolicy)
        self.policy._thin()

    @invariant()
    def each_entry_is_with_one_policy(self) -> None:
        assert isinstance(self.policy, adaptive.AdaptivePolicy)
        former = self.policy._former
        assert len(self.policy._policy) + (len(former) if former is not None else 0) == len(self.live)


SETTINGS = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestLru = LruMachine.TestCase
TestGdsf = GdsfMachine.TestCase
TestGate = GateMachine.TestCase
TestDoubt = DoubtMachine.TestCase
TestS3Fifo = S3FifoMachine.TestCase
TestAdaptive = AdaptiveMachine.TestCase
for case in (TestLru, TestGdsf, TestGate, TestDoubt, TestS3Fifo, TestAdaptive):
    case.settings = SETTINGS
