"""The keep-warm policy under any order of events: who is named, who is proposed, and what outlives the process."""

from __future__ import annotations

import json
import math
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ondol.preload.knowledge import knowledge_of, take_in
from ondol.preload.outlook import outlook_of, wanted_within
from ondol.preload.policy import KeepWarmPolicy
from ondol.preload.trust import CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES = [f"m{index}" for index in range(9)]
MB = 1_000_000
names = st.sampled_from(NAMES)
sizes = st.none() | st.integers(0, 500 * MB)
pauses_s = st.sampled_from([0.0, 0.001, 0.7, 1.0, 9.0, 60.0, 61.0, 600.0, 3600.0, 86_400.0, 4e6]) | st.floats(
    0.0, 2000.0
)


def order_of(policy: KeepWarmPolicy, now_s: float) -> list[str]:
    with closing(policy.coldest_first(now_s)) as found:
        return list(found)


def restarted(plain: object, now_s: float) -> KeepWarmPolicy:
    """A fresh policy that knows what was written."""
    policy = KeepWarmPolicy()
    written = json.loads(json.dumps(plain))
    assert take_in(policy, written, now_s) == len(written["models"])
    return policy


class PolicyMachine(RuleBasedStateMachine):
    """Does what a pool may do; ``residents``, ``loading`` and ``forbidden`` are the model of the policy."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = KeepWarmPolicy(1000 * MB)
        self.now_s = 0.0
        self.residents: set[str] = set()
        self.loading: set[str] = set()
        self.forbidden: set[str] = set()
        self.promised: dict[str, float] = {}
        self.free_bytes: int | None = 0

    @initialize(start_s=st.sampled_from([0.0, 5.5, 1e6, 1e9]), budget=st.none() | st.integers(0, 3000 * MB))
    def begin(self, start_s: float, budget: int | None) -> None:
        self.now_s = start_s
        self.policy = KeepWarmPolicy(budget)

    @rule(pause_s=pauses_s)
    def time_passes(self, pause_s: float) -> None:
        self.now_s += pause_s

    @rule()
    def sleep_until_the_wake(self) -> None:
        at_s = self.policy.wake_at_s()
        if at_s < math.inf:
            self.now_s = max(self.now_s, at_s)
            self.policy.look_at_due(self.now_s)

    @rule(name=names)
    def use(self, name: str) -> None:
        self.policy.used(name, self.now_s)

    @rule(name=names, period_s=st.floats(0.5, 4000.0), count=st.integers(2, 12))
    def use_regularly(self, name: str, period_s: float, count: int) -> None:
        for _ in range(count):
            self.now_s += period_s
            self.policy.used(name, self.now_s)
            self.policy.look_at_due(self.now_s + period_s / 2.0)
            self.now_s += period_s / 2.0

    @rule(name=names, period_s=st.sampled_from([20.0, 600.0, 3600.0]), is_done=st.booleans())
    def foresee(self, name: str, period_s: float, is_done: bool) -> None:
        """Let an absent model be a timer, trust it, and wake until its time."""
        if name in self.residents | self.loading:
            return
        for _ in range(8):
            self.now_s += period_s
            self.policy.used(name, self.now_s)
        self.set_trust(0.95)
        next_s = self.now_s + period_s
        while (at_s := max(self.policy.wake_at_s(), self.now_s)) < next_s:
            self.now_s = at_s
            self.propose(is_done)

    @rule(name=names)
    def load(self, name: str) -> None:
        if name not in self.residents | self.loading:
            self.loading.add(name)
            self.policy.loading(name, self.now_s, is_ahead=False)

    @rule(has_failed=st.booleans())
    def end_a_load(self, has_failed: bool) -> None:
        if self.loading:
            name = min(self.loading)
            self.loading.discard(name)
            if has_failed:
                self.policy.failed(name, self.now_s)
            else:
                self.residents.add(name)
                self.policy.loaded(name, self.now_s)

    @rule()
    def end_all_loads(self) -> None:
        for name in sorted(self.loading):
            self.residents.add(name)
            self.policy.loaded(name, self.now_s)
        self.loading.clear()

    def _leave(self, leaving: Iterable[str]) -> None:
        for name in leaving:
            self.residents.discard(name)
            self.policy.left(name, self.now_s)

    @rule(name=names)
    def leave(self, name: str) -> None:
        if name in self.residents:
            self._leave([name])

    @rule(count=st.integers(1, 3))
    def let_the_coldest_leave(self, count: int) -> None:
        with closing(self.policy.coldest_first(self.now_s)) as found:
            coldest = list(islice(found, count))
        self._leave(coldest)

    @rule(name=names, size=sizes, load_s=st.none() | st.floats(0.0, 300.0), priority=st.integers(1, 10))
    def know(self, name: str, size: int | None, load_s: float | None, priority: int) -> None:
        self.policy.know(name, size_bytes=size, load_s=load_s, priority=priority)

    @rule(budget=st.none() | st.integers(0, 3000 * MB))
    def set_budget(self, budget: int | None) -> None:
        self.policy.set_budget(budget)

    @rule(free=st.none() | st.sampled_from([0, 50 * MB]) | st.integers(0, 500 * MB))
    def set_free(self, free: int | None) -> None:
        self.free_bytes = free

    @rule(name=names, for_s=st.sampled_from([0.0, 10.0, 1000.0, math.inf]))
    def promise(self, name: str, for_s: float) -> None:
        self.promised[name] = self.now_s + for_s
        self.policy.promise(name, self.now_s + for_s, self.now_s)

    @rule(name=names, is_forbidden=st.booleans())
    def forbid(self, name: str, is_forbidden: bool) -> None:
        (self.forbidden.add if is_forbidden else self.forbidden.discard)(name)
        self.policy.forbid(name, is_forbidden=is_forbidden)

    @rule(share=st.sampled_from([0.0, 0.5, 0.95]))
    def let_bets_end(self, share: float) -> None:
        self.set_trust(share)

    def set_trust(self, share: float) -> None:
        self.policy.trust.take_in([self.policy.trust.margin_worth, [[100.0, 100.0 * share]] * CLASSES])

    @rule(expert=st.sampled_from(["hazard", "frequency", "nobody"]))
    def let_another_decide(self, expert: str) -> None:
        self.policy.take_over(self.policy.prior, expert, self.policy.least_s, self.policy.events)

    @rule(is_done=st.booleans())
    def ask_for_a_proposal(self, is_done: bool) -> None:
        self.propose(is_done)

    def propose(self, is_done: bool) -> None:
        found = self.policy.propose(self.now_s, self.free_bytes)
        if found is None:
            return
        policy = self.policy
        assert found.name not in self.residents | self.loading | self.forbidden
        assert 0.7 - 1e-9 <= found.probability <= 1.0 + 1e-9
        assert len(set(found.victims)) == len(found.victims)
        assert set(found.victims) <= self.residents
        assert not any(self.promised.get(name, -math.inf) > self.now_s for name in found.victims)
        freed = [policy.tracks[name].size_bytes for name in found.victims]
        missing = 0 if self.free_bytes is None else max(0, policy.tracks[found.name].size_bytes - self.free_bytes)
        assert sum(freed) >= missing
        assert not freed or sum(freed) - min(freed) < missing
        if is_done:
            policy.begin_ahead(found, self.now_s)
            self._leave(found.victims)
            self.loading.add(found.name)
            policy.loading(found.name, self.now_s, is_ahead=True)

    @rule(count=st.integers(0, 9))
    def look_at_the_coldest_and_stop(self, count: int) -> None:
        with closing(self.policy.coldest_first(self.now_s)) as found:
            seen = list(islice(found, count))
        assert len(seen) == len(set(seen)) == min(count, len(self.residents))
        assert set(seen) <= self.residents

    @rule()
    def restart(self) -> None:
        """What was learnt is the same after a restart, and after another one the order is, too."""
        if not self.policy.events:
            return
        plain = knowledge_of(self.policy, self.now_s)
        second = restarted(plain, 77.7)
        again = knowledge_of(second, 77.7)
        assert again == json.loads(json.dumps(plain))
        third = restarted(again, self.now_s)
        assert knowledge_of(third, self.now_s) == again
        orders = []
        for policy, at_s in ((second, 77.7), (third, self.now_s)):
            for name in sorted(self.residents):
                known = self.policy.tracks[name]
                policy.know(name, size_bytes=known.size_bytes, load_s=known.load_s)
                policy.loaded(name, at_s)
            orders.append([(name, policy.worth_of(name, at_s)) for name in order_of(policy, at_s)])
        for (_, worth), (_, other) in zip(*orders, strict=True):
            assert math.isclose(worth, other, rel_tol=1e-3, abs_tol=1e-18)  # their ages differ by what is rounded

    @rule(name=names)
    def explain(self, name: str) -> None:
        found = outlook_of(self.policy, name, self.now_s)
        assert found is None or found["is_loaded"] == (name in self.residents)
        json.dumps(found)
        assert not set(wanted_within(self.policy, 600.0, self.now_s)) & (self.residents | self.loading | self.forbidden)

    @invariant()
    def it_names_each_resident_once(self) -> None:
        order = order_of(self.policy, self.now_s)
        assert len(order) == len(self.residents)
        assert set(order) == self.residents

    @invariant()
    def it_wakes_in_the_future(self) -> None:
        self.policy.look_at_due(self.now_s)
        assert self.policy.wake_at_s() > self.now_s

    @invariant()
    def what_it_counts_is_possible(self) -> None:
        tally = self.policy.tally
        assert 0 <= tally.used + tally.wasted <= tally.fetched
        assert tally.saved_s >= 0.0
        for ghost in self.policy.experts.ghosts.values():
            assert ghost.used_bytes == sum(track.size_bytes for track in ghost.held.values())
        for track in self.policy.tracks.values():
            assert 0.0 <= track.wins <= track.bets + 1e-9


PolicyMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestPolicy = PolicyMachine.TestCase
