"""The keep-warm policy on a simulated clock: what it plans for a timer, a burst, a shift, a model used once."""

from __future__ import annotations

import math
import random
import sys
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ondol.preload.policy import KeepWarmPolicy
from ondol.preload.proposal import Proposal
from ondol.preload.track import UNKNOWN_BYTES, UNKNOWN_LOAD_S
from ondol.preload.trust import CLASSES, LEAST_BETS

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package
from preload_replay_ondol import Ondol
from preload_replay_pool import ModelFigures, Pool, Requests

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from preload_replay_pool import Outcome

GB = 10**9
HOUR_S = 3600.0
LOAD_S = 5.0

Event = tuple[float, str]


class Done(NamedTuple):
    """What the pool did: ``load`` for a request, ``ahead`` of use, ``leave``; the latter with the models then there."""

    at_s: float
    what: str
    name: str


class Recording(Ondol):
    """Ondol, written down; checks what it proposes and when it wants to be woken."""

    def __init__(self, priorities: Mapping[str, int] | None = None, actions: Sequence[Action] = ()) -> None:
        self.done: list[Done] = []
        self.priorities = priorities or {}
        self.actions = sorted(actions, key=lambda action: action[0])
        self.proposals: list[tuple[float, Proposal]] = []

    def begin(self, models: Sequence[ModelFigures], budget_bytes: int, residents: Collection[int]) -> None:
        super().begin(models, budget_bytes, residents)
        for model in models:
            priority = self.priorities.get(model.name, 5)
            self.policy.know(model.name, size_bytes=model.size_bytes, load_s=model.load_s, priority=priority)

    def requested(self, model: int, now_s: float, *, is_resident: bool) -> None:
        while self.actions and self.actions[0][0] <= now_s:
            self.actions.pop(0)[1](self.policy, now_s)
        super().requested(model, now_s, is_resident=is_resident)

    def loading(self, model: int, now_s: float, *, is_prefetch: bool) -> None:
        self.done.append(Done(now_s, "ahead" if is_prefetch else "load", self.names[model]))
        super().loading(model, now_s, is_prefetch=is_prefetch)

    def left(self, model: int, now_s: float) -> None:
        self.done.append(Done(now_s, "leave", self.names[model]))
        super().left(model, now_s)

    def prefetch(self, now_s: float, free_bytes: int, loads_under_way: int) -> tuple[int, list[int]] | None:
        before = {track.name: track.promised_until_s > now_s for track in self.policy.tracks.values()}
        choice = super().prefetch(now_s, free_bytes, loads_under_way)
        if choice is not None:
            model, victims = choice
            assert model not in self.residents
            assert len(set(victims)) == len(victims)
            assert set(victims) <= set(self.residents)
            assert not any(before[self.names[victim]] for victim in victims)
            freed = [self.sizes[victim] for victim in victims]
            missing_bytes = max(0, self.sizes[model] - free_bytes)
            assert sum(freed) >= missing_bytes
            assert not freed or sum(freed) - min(freed) < missing_bytes
        return choice

    def expired(self, now_s: float) -> list[int]:
        gone = super().expired(now_s)
        assert self.policy.wake_at_s() > now_s
        return gone

    def of(self, name: str, *whats: str) -> list[float]:
        return [at_s for at_s, what, other in self.done if other == name and what in whats]

    def residents_at(self, now_s: float) -> set[str]:
        found: set[str] = set()
        for at_s, what, name in self.done:
            if at_s > now_s:
                break
            (found.discard if what == "leave" else found.add)(name)
        return found


Action = tuple[float, "Callable[[KeepWarmPolicy, float], None]"]


def figures(names: Iterable[str], size_bytes: int = GB, load_s: float = LOAD_S) -> list[ModelFigures]:
    return [ModelFigures(name, size_bytes, load_s) for name in names]


def replayed(
    models: Sequence[ModelFigures], budget_bytes: int, events: Iterable[Event], policy: Recording | None = None
) -> tuple[Recording, Outcome]:
    recording = policy or Recording()
    ordered = sorted(events)
    places = {model.name: place for place, model in enumerate(models)}
    trace = Requests([at_s for at_s, _ in ordered], [places[name] for _, name in ordered])
    return recording, Pool(models, budget_bytes, recording).replay(trace)


def at_random(name: str, mean_s: float, from_s: float, until_s: float, draw: random.Random) -> list[Event]:
    found, at_s = [], from_s + draw.expovariate(1.0 / mean_s)
    while at_s < until_s:
        found.append((at_s, name))
        at_s += draw.expovariate(1.0 / mean_s)
    return found


def by_timer(name: str, period_s: float, from_s: float, until_s: float, draw: random.Random) -> list[Event]:
    count = int((until_s - from_s) / period_s)
    return [(from_s + period_s * index + draw.uniform(-2.0, 2.0), name) for index in range(count)]


class Timer(NamedTuple):
    recording: Recording
    uses: list[float]


@pytest.fixture(scope="module", params=[0, 1, 2])
def timer(request: pytest.FixtureRequest) -> Timer:
    """A timer of ten minutes beside eight models used every two minutes, room for four."""
    draw = random.Random(request.param)
    uses = by_timer("timer", 600.0, 50.0, 12 * HOUR_S, draw)
    events = [*uses, *(event for i in range(8) for event in at_random(f"r{i}", 120.0, 0.0, 12 * HOUR_S, draw))]
    recording, _ = replayed(figures(["timer", *(f"r{i}" for i in range(8))]), 4 * GB, events)
    return Timer(recording, [at_s for at_s, _ in uses])


def test_a_timer_is_not_fetched_before_it_proved_itself(timer: Timer) -> None:
    first_s = timer.recording.of("timer", "ahead")[0]
    assert len([at_s for at_s in timer.uses if at_s < first_s]) >= LEAST_BETS
    assert first_s < 5 * HOUR_S  # and it does prove itself


def test_a_timer_is_fetched_ahead_of_its_time(timer: Timer) -> None:
    recording, uses = timer
    fetches = [at_s for at_s in recording.of("timer", "ahead") if 6 * HOUR_S < at_s < uses[-1]]
    late = [at_s for at_s in uses if at_s > 6 * HOUR_S]
    assert len(fetches) >= 0.45 * len(late)  # nearly all, but fewer while bets on the random models beside it are lost
    ahead_s = [min(use_s - at_s for use_s in uses if use_s > at_s) for at_s in fetches]
    assert max(ahead_s) < 120.0  # not long before
    assert sum(seconds >= LOAD_S for seconds in ahead_s) >= 0.9 * len(fetches)  # and nearly always loaded in time


def test_what_is_fetched_ahead_stays_until_it_is_used(timer: Timer) -> None:
    recording, uses = timer
    fetches = [at_s for at_s in recording.of("timer", "ahead") if at_s < uses[-1]]
    leaves = recording.of("timer", "leave")
    lost = 0
    for at_s in fetches:
        next_use_s = min(use_s for use_s in uses if use_s > at_s)
        lost += any(at_s < gone_s < next_use_s for gone_s in leaves)
    assert lost <= 0.15 * len(fetches), f"{lost} of {len(fetches)}, {recording.policy.experts.chosen} decides"


def test_a_timer_is_not_kept_between_its_times(timer: Timer) -> None:
    recording, uses = timer
    for use_s, next_s in pairwise(uses):
        assert "timer" not in recording.residents_at((use_s + next_s) / 2.0)


def test_a_burst_is_kept_while_it_lasts_and_given_up_after_it() -> None:
    draw = random.Random(5)
    starts = [1.5 * HOUR_S, 3.2 * HOUR_S, 5.9 * HOUR_S, 8.3 * HOUR_S, 9.7 * HOUR_S]
    burst = [event for at_s in starts for event in at_random("burst", 10.0, at_s, at_s + 900.0, draw)]
    others = [event for i in range(6) for event in at_random(f"r{i}", 150.0, 0.0, 12 * HOUR_S, draw)]
    recording, _ = replayed(figures(["burst", *(f"r{i}" for i in range(6))]), 3 * GB, [*burst, *others])
    cold = len(recording.of("burst", "load"))
    assert cold <= 0.06 * len(burst)
    for place, at_s in enumerate(starts):
        until_s = at_s + 900.0
        there = [name for tenth in range(10) for name in recording.residents_at(at_s + 180.0 + 70.0 * tenth)]
        assert there.count("burst") >= 8
        gone_by_s = until_s + 400.0
        following_s = starts[place + 1] if place + 1 < len(starts) else 12 * HOUR_S
        assert "burst" not in recording.residents_at(gone_by_s)
        assert not [at for at in recording.of("burst", "ahead") if gone_by_s < at < following_s]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_after_a_shift_the_new_ones_stay(seed: int) -> None:
    draw = random.Random(seed)
    shift_s, end_s = 4 * HOUR_S, 8 * HOUR_S
    old, new, rare = ([f"{letter}{i}" for i in range(4)] for letter in "abr")
    events = [event for name in old for event in at_random(name, 30.0, 0.0, shift_s, draw)]
    events += [event for name in new for event in at_random(name, 30.0, shift_s, end_s, draw)]
    events += [event for name in rare for event in at_random(name, 900.0, 0.0, end_s, draw)]
    recording, _ = replayed(figures([*old, *new, *rare]), 5 * GB, events)
    assert set(old) <= recording.residents_at(shift_s - 60.0)
    assert not recording.residents_at(shift_s + 1200.0) & set(old)
    late = [done for done in recording.done if done.at_s > shift_s + 1200.0]
    uses = sum(at_s > shift_s + 1200.0 and name in new for at_s, name in events)
    assert sum(what == "load" and name in new for _, what, name in late) <= 0.02 * uses


@pytest.mark.parametrize("seed", range(4))
def test_a_model_used_once_leaves_soon_and_takes_nobodys_place_for_long(seed: int) -> None:
    draw = random.Random(seed)
    once_s = 3.0 * HOUR_S
    events = [event for i in range(4) for event in at_random(f"r{i}", 30.0, 0.0, 5 * HOUR_S, draw)]
    events += [event for i in range(4, 7) for event in at_random(f"r{i}", 300.0, 0.0, 5 * HOUR_S, draw)]
    recording, _ = replayed(figures(["once", *(f"r{i}" for i in range(7))]), 5 * GB, [(once_s, "once"), *events])
    without, _ = replayed(figures(["once", *(f"r{i}" for i in range(7))]), 5 * GB, events)
    (gone_s,) = recording.of("once", "leave")
    assert gone_s - once_s < 600.0
    assert not recording.of("once", "ahead")
    popular = {f"r{i}" for i in range(4)}
    assert popular <= recording.residents_at(once_s + 300.0)

    def loads(of: Recording) -> int:
        return sum(what == "load" and once_s < at_s < once_s + 1800.0 for at_s, what, _ in of.done)

    assert loads(recording) <= loads(without) + 6  # its own, and few more


def test_of_two_used_alike_the_one_of_higher_priority_stays() -> None:
    cold = {"high": 0, "low": 0}
    for seed in range(3):
        draw = random.Random(seed)
        names = ["high", "low", *(f"r{i}" for i in range(4))]
        events = [event for name in names for event in at_random(name, 120.0, 0.0, 6 * HOUR_S, draw)]
        recording, _ = replayed(figures(names), 3 * GB, events, Recording({"high": 8, "low": 2}))
        for name in cold:
            cold[name] += len(recording.of(name, "load", "ahead"))
    assert cold["high"] < 0.5 * cold["low"]


def test_a_promised_model_stays_until_then_and_leaves_after() -> None:
    draw = random.Random(3)
    names = ["wanted", *(f"r{i}" for i in range(6))]
    events = [event for i in range(6) for event in at_random(f"r{i}", 60.0, 0.0, 4 * HOUR_S, draw)]
    promise: Action = (HOUR_S - 1.0, lambda policy, now_s: policy.promise("wanted", 2 * HOUR_S, now_s))
    recording, _ = replayed(figures(names), 3 * GB, [(HOUR_S, "wanted"), *events], Recording(actions=[promise]))
    (gone_s,) = recording.of("wanted", "leave")
    assert 2 * HOUR_S <= gone_s < 2.25 * HOUR_S


def test_without_the_promise_it_would_have_left() -> None:
    draw = random.Random(3)
    names = ["wanted", *(f"r{i}" for i in range(6))]
    events = [event for i in range(6) for event in at_random(f"r{i}", 60.0, 0.0, 4 * HOUR_S, draw)]
    recording, _ = replayed(figures(names), 3 * GB, [(HOUR_S, "wanted"), *events])
    assert recording.of("wanted", "leave")[0] < 1.25 * HOUR_S


def test_a_forbidden_model_is_never_fetched_ahead_but_after_it_is_allowed_again() -> None:
    draw = random.Random(0)
    uses = by_timer("timer", 600.0, 50.0, 12 * HOUR_S, draw)
    events = [*uses, *(event for i in range(8) for event in at_random(f"r{i}", 120.0, 0.0, 12 * HOUR_S, draw))]
    actions: list[Action] = [
        (0.0, lambda policy, _now_s: policy.forbid("timer", is_forbidden=True)),
        (6 * HOUR_S, lambda policy, _now_s: policy.forbid("timer", is_forbidden=False)),
    ]
    names = ["timer", *(f"r{i}" for i in range(8))]
    recording, _ = replayed(figures(names), 4 * GB, events, Recording(actions=actions))
    fetches = recording.of("timer", "ahead")
    assert fetches
    assert min(fetches) > 6 * HOUR_S


def test_a_proposal_never_takes_the_place_of_a_promised_model() -> None:
    draw = random.Random(1)
    timers = [f"t{i}" for i in range(8)]
    events = [event for i, name in enumerate(timers) for event in by_timer(name, 600.0, 60.0 * i, 10 * HOUR_S, draw)]
    held = ["p0", "p1"]
    events += [(30.0, "p0"), (40.0, "p1")]

    def promise(policy: KeepWarmPolicy, now_s: float) -> None:
        for name in held:
            policy.promise(name, 9 * HOUR_S, now_s)

    recording, _ = replayed(figures([*timers, *held]), 4 * GB, events, Recording(actions=[(0.0, promise)]))
    assert sum(what == "ahead" for _, what, _ in recording.done) > 100  # so there were occasions
    for name in held:
        assert all(at_s >= 9 * HOUR_S for at_s in recording.of(name, "leave"))


@pytest.mark.parametrize("seed", [0, 1])
def test_victims_of_all_sizes_make_enough_room_and_not_needlessly_much(seed: int) -> None:
    """``Recording.prefetch`` checks each proposal."""
    draw = random.Random(seed)
    names = [f"t{i}" for i in range(24)]
    models = [ModelFigures(name, int(GB * draw.choice([0.2, 0.5, 1.0, 2.0])), draw.uniform(2.0, 8.0)) for name in names]
    events: list[Event] = []
    for name in names:
        period_s, from_s = draw.choice([300.0, 600.0, 900.0]), draw.uniform(0.0, 900.0)
        events += by_timer(name, period_s, from_s, 10 * HOUR_S, draw)
    recording, _ = replayed(models, 4 * GB, events)
    proposed = [done for done in recording.done if done.what == "ahead"]
    assert len(proposed) > 100
    tally = recording.policy.tally
    assert tally.wasted < 0.15 * tally.fetched
    assert tally.fetched == len(proposed)
    assert tally.used + tally.wasted <= tally.fetched
    assert tally.saved_s > 0.0


@pytest.mark.parametrize("kind", ["alike", "mixed"])
def test_random_uses_waste_few_fetches_or_cause_none(kind: str) -> None:
    wasted = fetched = loads = 0
    for seed in range(3):
        draw = random.Random(seed + 10)
        names = [f"r{i}" for i in range(20)]
        models = [ModelFigures(name, int(GB * draw.uniform(0.5, 2.0)), draw.uniform(2.0, 10.0)) for name in names]
        means_s = [300.0 if kind == "alike" else draw.choice([60.0, 300.0, 600.0, 1200.0]) for _ in names]
        events = [
            event
            for name, mean_s in zip(names, means_s, strict=True)
            for event in at_random(name, mean_s, 0.0, 12 * HOUR_S, draw)
        ]
        recording, outcome = replayed(models, 6 * GB, events)
        wasted += recording.policy.tally.wasted
        fetched += recording.policy.tally.fetched
        loads += outcome.loads
    assert wasted < 0.15 * fetched or fetched < 0.02 * loads, f"{wasted} of {fetched} wasted, {loads} loads"


@pytest.mark.parametrize("seed", range(3))
def test_nobody_is_named_twice_in_long_replays(seed: int) -> None:
    """The pool refuses a victim that is not there (any more)."""
    draw = random.Random(seed + 11)
    names = [f"r{i}" for i in range(20)]
    models = [ModelFigures(name, int(GB * draw.uniform(0.5, 2.0)), draw.uniform(2.0, 10.0)) for name in names]
    events = [event for name in names for event in at_random(name, 300.0, 0.0, 12 * HOUR_S, draw)]
    recording, _ = replayed(models, 6 * GB, events)
    with closing(recording.policy.coldest_first(12 * HOUR_S + 100.0)) as found:
        order = list(found)
    assert len(order) == len(set(order))


# Without a pool: single questions


def policy_with(*names: str, budget_bytes: int | None = 10 * GB) -> KeepWarmPolicy:
    policy = KeepWarmPolicy(budget_bytes)
    for name in names:
        policy.know(name, size_bytes=GB, load_s=LOAD_S)
    return policy


def trust_everything(policy: KeepWarmPolicy) -> None:
    policy.trust.take_in([policy.trust.margin_worth, [[100.0, 95.0]] * CLASSES])


def use_regularly(policy: KeepWarmPolicy, name: str, period_s: float, count: int, from_s: float = 0.0) -> float:
    """Use an absent model; return when the last use was."""
    for index in range(count):
        policy.used(name, from_s + period_s * index)
        policy.look_at_due(from_s + period_s * (index + 0.5))
    return from_s + period_s * (count - 1)


def order_of(policy: KeepWarmPolicy, now_s: float) -> list[str]:
    with closing(policy.coldest_first(now_s)) as names:
        return list(names)


def proposed(policy: KeepWarmPolicy, from_s: float, until_s: float, free_bytes: int | None) -> tuple[float, Proposal]:
    """Wake when the policy wants to, until it proposes something."""
    at_s = from_s
    while at_s <= until_s:
        if (found := policy.propose(at_s, free_bytes)) is not None:
            return at_s, found
        assert policy.wake_at_s() > at_s
        at_s = policy.wake_at_s()
    pytest.fail(f"nothing was proposed until {until_s} s")


def test_a_trusted_timer_is_proposed_into_free_room() -> None:
    policy = policy_with("timer")
    last_s = use_regularly(policy, "timer", 600.0, 30)
    trust_everything(policy)
    at_s, found = proposed(policy, last_s + 1.0, last_s + 600.0 - LOAD_S, 2 * GB)
    assert found.name == "timer"
    assert found.victims == ()
    assert 0.7 <= found.probability <= 1.0
    policy.begin_ahead(found, at_s)
    policy.loading("timer", at_s, is_ahead=True)
    assert policy.propose(at_s, 2 * GB) is None  # it is under way
    policy.loaded("timer", at_s + LOAD_S)
    assert policy.propose(at_s + LOAD_S, GB) is None
    policy.used("timer", last_s + 600.0)
    assert (policy.tally.fetched, policy.tally.used, policy.tally.wasted) == (1, 1, 0)
    assert policy.tally.saved_s == LOAD_S


def test_a_trusted_timer_takes_the_place_of_what_is_used_only_shortly_before_its_time() -> None:
    policy = policy_with("timer", "often", budget_bytes=GB)
    draw = random.Random(6)
    at_s = 0.0
    while (at_s := at_s + draw.expovariate(1.0 / 150.0)) < 17_400.0:  # at the end the timer was used last
        policy.used("often", at_s)
    policy.loaded("often", 17_399.0)
    last_s = use_regularly(policy, "timer", 600.0, 30)
    trust_everything(policy)
    policy.used("often", last_s + 1.0)
    at_s, found = proposed(policy, last_s + 2.0, last_s + 600.0 - LOAD_S, 0)
    assert found == Proposal("timer", ("often",), found.probability)
    assert last_s + 500.0 < at_s < last_s + 600.0 - LOAD_S


def test_a_fetched_model_that_leaves_unused_is_counted_as_wasted() -> None:
    policy = policy_with("timer")
    last_s = use_regularly(policy, "timer", 600.0, 30)
    trust_everything(policy)
    at_s, found = proposed(policy, last_s + 1.0, last_s + 600.0, None)
    policy.begin_ahead(found, at_s)
    policy.loading("timer", at_s, is_ahead=True)
    policy.loaded("timer", at_s + LOAD_S)
    bets, wins = policy.tracks["timer"].bets, policy.tracks["timer"].wins
    policy.left("timer", at_s + 60.0)
    assert (policy.tally.fetched, policy.tally.used, policy.tally.wasted) == (1, 0, 1)
    assert policy.tracks["timer"].bets == pytest.approx(bets * 0.8 + 1.0)
    assert policy.tracks["timer"].wins == pytest.approx(wins * 0.8)


def test_a_fetch_that_fails_is_neither_used_nor_wasted() -> None:
    policy = policy_with("timer")
    last_s = use_regularly(policy, "timer", 600.0, 30)
    trust_everything(policy)
    at_s, found = proposed(policy, last_s + 1.0, last_s + 600.0, None)
    policy.begin_ahead(found, at_s)
    policy.loading("timer", at_s, is_ahead=True)
    policy.failed("timer", at_s + 1.0)
    policy.used("timer", last_s + 600.0)
    assert (policy.tally.fetched, policy.tally.used, policy.tally.wasted) == (1, 0, 0)


def test_a_use_while_it_is_fetched_counts_as_used_but_saves_no_whole_load() -> None:
    policy = policy_with("timer")
    last_s = use_regularly(policy, "timer", 600.0, 30)
    trust_everything(policy)
    at_s, found = proposed(policy, last_s + 1.0, last_s + 600.0, None)
    policy.begin_ahead(found, at_s)
    policy.loading("timer", at_s, is_ahead=True)
    policy.used("timer", at_s + 1.0)
    policy.loaded("timer", at_s + LOAD_S)
    policy.left("timer", at_s + 60.0)
    assert (policy.tally.used, policy.tally.wasted, policy.tally.saved_s) == (1, 0, 0.0)


def test_nothing_is_proposed_when_too_little_may_leave() -> None:
    policy = policy_with("timer", "held", budget_bytes=GB)
    last_s = use_regularly(policy, "timer", 600.0, 30)
    trust_everything(policy)
    policy.loaded("held", last_s + 1.0)
    policy.promise("held", math.inf, last_s + 1.0)
    at_s = last_s + 1.0
    while at_s < last_s + 700.0:
        assert policy.propose(at_s, 0) is None
        assert order_of(policy, at_s) == ["held"]  # what was taken to look at it was put back
        at_s = min(policy.wake_at_s(), at_s + 50.0)


def test_a_resident_that_is_worth_less_leaves_for_a_proposal() -> None:
    policy = policy_with("timer", "never", budget_bytes=GB)
    last_s = use_regularly(policy, "timer", 600.0, 30)
    trust_everything(policy)
    policy.loaded("never", last_s + 1.0)
    at_s, found = proposed(policy, last_s + 1.0, last_s + 600.0, 0)
    assert found.victims == ("never",)
    assert order_of(policy, at_s) == ["never"]  # it was only named


def test_a_big_wish_that_finds_no_room_does_not_keep_a_small_one_out_of_free_room() -> None:
    policy = KeepWarmPolicy(10 * GB)
    policy.know("big", size_bytes=4 * GB, load_s=24.0)
    policy.know("small", size_bytes=GB, load_s=4.0)
    policy.know("held", size_bytes=8 * GB, load_s=60.0)
    for index in range(30):
        policy.used("big", 600.0 * index)
        policy.used("small", 600.0 * index)
        policy.look_at_due(600.0 * index + 300.0)
    trust_everything(policy)
    last_s = 600.0 * 29
    policy.loaded("held", last_s + 400.0)
    policy.promise("held", math.inf, last_s + 400.0)
    names = [found.name for second in range(400, 565) if (found := policy.propose(last_s + second, 2 * GB)) is not None]
    assert "small" in names


def test_room_is_not_counted_in_what_is_not_known() -> None:
    policy = KeepWarmPolicy(None)
    policy.used("unheard", 1.0)
    policy.know("unknown", size_bytes=None, load_s=None)
    for name in ("unheard", "unknown"):
        track = policy.tracks[name]
        assert (track.size_bytes, track.load_s) == (UNKNOWN_BYTES, UNKNOWN_LOAD_S)
    policy.know("unknown", size_bytes=0, load_s=0.0)
    assert policy.tracks["unknown"].size_bytes == UNKNOWN_BYTES
    assert policy.tracks["unknown"].load_s > 0.0
    policy.used("unknown", 2.0)
    policy.loaded("unknown", 3.0)
    policy.loaded("unheard", 3.0)
    assert sorted(order_of(policy, 4.0)) == ["unheard", "unknown"]


def test_without_a_budget_experts_are_not_asked_and_proposals_need_nobody_to_leave() -> None:
    policy = policy_with("timer", "other", budget_bytes=None)
    policy.loaded("other", 0.0)
    last_s = use_regularly(policy, "timer", 600.0, 30)
    trust_everything(policy)
    _, found = proposed(policy, last_s + 1.0, last_s + 600.0, None)
    assert found.victims == ()
    assert all(ghost.misses == 0 for ghost in policy.experts.ghosts.values())


def test_a_budget_that_shrinks_shrinks_the_ghosts() -> None:
    policy = policy_with(*(f"m{i}" for i in range(10)), budget_bytes=8 * GB)
    draw = random.Random(2)
    for index in range(500):
        policy.used(f"m{draw.randrange(10)}", float(index))
    assert {ghost.budget_bytes for ghost in policy.experts.ghosts.values()} == {8 * GB}
    policy.set_budget(2 * GB)
    for index in range(500, 1000):
        policy.used(f"m{draw.randrange(10)}", float(index))
    for ghost in policy.experts.ghosts.values():
        assert ghost.budget_bytes == 2 * GB
        assert ghost.used_bytes == sum(track.size_bytes for track in ghost.held.values()) <= 2 * GB
    policy.set_budget(None)
    policy.used("m1", 1001.0)
    policy.set_budget(0)
    policy.used("m1", 1002.0)


def test_a_size_that_becomes_known_leaves_the_sums_of_the_ghosts_right() -> None:
    policy = policy_with("a", "b", budget_bytes=4 * GB)
    for index in range(20):
        policy.used("ab"[index % 2], float(index))
    policy.know("a", size_bytes=2 * GB, load_s=LOAD_S)
    for index in range(20, 40):
        policy.used("ab"[index % 2], float(index))
    for ghost in policy.experts.ghosts.values():
        assert ghost.used_bytes == sum(track.size_bytes for track in ghost.held.values())


def test_a_promise_outranks_every_use_and_ends() -> None:
    policy = policy_with("busy", "idle")
    for index in range(200):
        policy.used("busy", float(index))
    policy.loaded("busy", 200.0)
    policy.loaded("idle", 200.0)
    assert order_of(policy, 201.0) == ["idle", "busy"]
    policy.promise("idle", 300.0, 201.0)
    assert order_of(policy, 202.0) == ["busy", "idle"]
    for index in range(8):  # each event looks at one or none anew
        policy.used("busy", 301.0 + index)
    assert order_of(policy, 310.0) == ["idle", "busy"]


def test_a_promise_made_while_it_is_absent_holds_once_it_is_there() -> None:
    policy = policy_with("busy", "late")
    policy.promise("late", 500.0, 0.0)
    for index in range(50):
        policy.used("busy", float(index))
    policy.loaded("busy", 60.0)
    policy.loaded("late", 61.0)
    assert order_of(policy, 62.0) == ["busy", "late"]


def test_the_order_is_the_same_when_asked_again_and_after_an_early_close() -> None:
    names = [f"m{i}" for i in range(12)]
    policy = policy_with(*names)
    draw = random.Random(1)
    for index in range(300):
        policy.used(names[min(11, int(draw.expovariate(0.25)))], 10.0 * index)
    for name in names:
        policy.loaded(name, 3000.0)
    whole = order_of(policy, 3010.0)
    assert sorted(whole) == sorted(names)
    for count in range(5):
        with closing(policy.coldest_first(3010.0)) as found:
            assert list(islice(found, count)) == whole[:count]
    assert order_of(policy, 3010.0) == whole


def test_nobody_is_named_twice_after_many_have_left() -> None:
    """The heap holds many places of models that left when it is walked."""
    names = [f"m{i:03}" for i in range(200)]
    policy = policy_with(*names, budget_bytes=None)
    for index, name in enumerate(names):
        policy.used(name, float(index))
        policy.loaded(name, float(index))
    draw = random.Random(4)
    at_s = 200.0
    for _ in range(1000):
        at_s += 1.0
        policy.used(draw.choice(names), at_s)
    for name in names[:150]:
        policy.left(name, at_s)
    for _ in range(400):
        at_s += 30.0
        policy.used("absent", at_s)
        order = order_of(policy, at_s)
        assert sorted(order) == names[150:]


def test_it_wakes_for_nothing_when_nothing_is_foreseen() -> None:
    policy = policy_with("a")
    assert policy.wake_at_s() == math.inf
    policy.used("a", 1.0)
    policy.used("a", 2.0)
    assert policy.wake_at_s() == math.inf  # too few gaps
    assert policy.propose(3.0, GB) is None
    assert order_of(policy, 3.0) == []


def test_a_wake_lies_in_the_future_after_each_look() -> None:
    draw = random.Random(7)
    names = [f"m{i}" for i in range(6)]
    policy = policy_with(*names)
    at_s = 1e6  # a clock far from zero
    for _ in range(2000):
        at_s += draw.choice([0.0, 0.001, 1.0, 30.0, 600.0, 5000.0])
        if draw.random() < 0.5:
            policy.used(draw.choice(names), at_s)
        policy.look_at_due(at_s)
        assert policy.wake_at_s() > at_s


def test_worth_of_is_nothing_for_a_model_never_used() -> None:
    policy = policy_with("a")
    assert policy.worth_of("a", 1.0) == policy.worth_of("unheard", 1.0) == 0.0
    policy.used("a", 1.0)
    assert policy.worth_of("a", 2.0) > 0.0


def test_what_was_fetched_stays_ahead_of_its_victims_whoever_decides() -> None:
    """Half of the rest: the fetched model must not be the first to leave for the next request."""
    for expert in ("hazard", "frequency"):
        policy = policy_with("timer", "often", "rest", budget_bytes=2 * GB)
        last_s = use_regularly(policy, "timer", 600.0, 30)
        draw = random.Random(8)
        at_s = last_s
        for name in ("often", "rest"):
            policy.loaded(name, at_s)
        while (at_s := at_s + draw.expovariate(1.0 / 5.0)) < last_s + 400.0:
            policy.used(draw.choice(["often", "rest"]), at_s)
        policy.take_over(policy.prior, expert, policy.least_s, policy.events)
        trust_everything(policy)
        at_s, found = proposed(policy, last_s + 540.0, last_s + 600.0 - LOAD_S, 0)
        assert found.name == "timer"
        (victim,) = found.victims
        policy.begin_ahead(found, at_s)
        policy.left(victim, at_s)
        policy.loading("timer", at_s, is_ahead=True)
        policy.loaded("timer", at_s + LOAD_S)
        assert order_of(policy, at_s + LOAD_S)[-1] == "timer", expert


def test_the_usual_time_between_loads_is_followed_but_for_long_pauses_and_fetches() -> None:
    policy = policy_with("a", "b")
    for index in range(400):
        policy.loading("a", 20.0 * index, is_ahead=False)
        policy.loading("b", 20.0 * index + 3.0, is_ahead=True)
    assert policy.least_s == pytest.approx(20.0, rel=0.01)
    for index in range(400):
        policy.loading("a", 1e6 * (index + 1), is_ahead=False)
    assert policy.least_s == pytest.approx(60.0, rel=0.01)
