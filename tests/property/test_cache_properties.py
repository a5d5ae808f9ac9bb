from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ondol.cache.keys import canonical_key, key_text, make_key, shelf_key, split_key, tail_text
from ondol.cache.lifetime import Lifetime
from ondol.cache.memory import MemoryTier
from ondol.cache.policies import POLICY_NAMES, make_policy
from ondol.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ondol.cache.lifetime import Timing

texts = st.text(alphabet=st.sampled_from("a1:,'\\\x00~s()가\ud800"), max_size=6)
scalars = (
    texts
    | st.integers(-2, 2)
    | st.booleans()
    | st.none()
    | st.sampled_from([0.0, 1.0, -1.0, 0.5])
    | st.binary(max_size=2)
    | st.sampled_from(["x" * 97, "x" * 98, b"x" * 97, 10**200])
)
hashables = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3), max_leaves=6
)
values = st.recursive(
    hashables,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3),
    max_leaves=6,
)
addresses = st.tuples(texts, st.lists(values, max_size=3).map(tuple))


def typed(value: Any) -> Any:
    """Return a value that equals another's exactly when both have the same types and content throughout."""
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, tuple(typed(item) for item in value))
    if isinstance(value, dict):
        return ("dict", frozenset((typed(key), typed(item)) for key, item in value.items()))
    if isinstance(value, frozenset):
        return ("frozenset", frozenset(typed(item) for item in value))
    return (type(value).__name__, repr(value))


@given(addresses, addresses)
@settings(max_examples=300)
def test_keys_are_equal_exactly_when_name_and_typed_parts_are(
    one: tuple[str, tuple[Any, ...]], other: tuple[str, tuple[Any, ...]]
) -> None:
    assert (make_key(*one) == make_key(*other)) == (typed(one) == typed(other))


@given(st.lists(addresses, min_size=2, max_size=30))
@settings(max_examples=60)
def test_many_addresses_have_as_many_keys(many: list[tuple[str, tuple[Any, ...]]]) -> None:
    assert len({make_key(*address) for address in many}) == len({typed(address) for address in many})


@given(texts, st.lists(texts | st.integers(-(2**64), 2**64) | st.booleans(), max_size=4))
@settings(max_examples=60)
def test_readable_form_of_short_parts(name: str, parts: list[object]) -> None:
    assert key_text(make_key(name, tuple(parts))) == ":".join([name, *map(str, parts)])


@given(addresses)
@settings(max_examples=300)
def test_shelf_keys_and_canonical_keys_are_made_from_each_other(address: tuple[str, tuple[Any, ...]]) -> None:
    name, parts = address
    key = shelf_key(name, parts)
    assert canonical_key(name, key) == make_key(name, parts)
    assert split_key(make_key(name, parts)) == (name, key)
    assert name + tail_text(key) == key_text(make_key(name, parts))


@given(addresses, addresses)
@settings(max_examples=300)
def test_shelf_keys_are_equal_exactly_when_canonical_keys_are(
    one: tuple[str, tuple[Any, ...]], other: tuple[str, tuple[Any, ...]]
) -> None:
    shelves = [(name, shelf_key(name, parts)) for name, parts in (one, other)]
    assert (shelves[0] == shelves[1]) == (make_key(*one) == make_key(*other))


@given(st.text(max_size=40))
def test_what_is_no_key_is_refused_or_comes_back(text: str) -> None:
    try:
        name, key = split_key(text)
    except ValueError:
        return
    assert isinstance(canonical_key(name, key), str)


class MemoryTierMachine(RuleBasedStateMachine):
    """The tier against a dict: what it returns was stored and is not past its time; bytes add up."""

    names = st.sampled_from(["a", "b", "bounded"])
    keys = st.sampled_from([f"k{number}" for number in range(6)] + [1, (1, "x")])

    @initialize(max_bytes=st.integers(400, 4000), policy=st.sampled_from(POLICY_NAMES), seed=st.integers(0, 9))
    def begin(self, max_bytes: int, policy: str, seed: int) -> None:
        self.clock = FakeClock()
        self.policy = policy
        random = Random(seed)
        self.tier = MemoryTier(max_bytes, self.clock, lambda: make_policy(policy, random=random), {"bounded": 600})
        self.model: dict[tuple[str, Hashable], tuple[object, Timing | None, tuple[str, ...]]] = {}
        self.order: list[tuple[str, Hashable]] = []
        self.quotas = {"bounded": 600}

    @rule(
        name=names,
        key=keys,
        size=st.integers(1, 1500),
        life=st.tuples(st.none() | st.floats(0.1, 200), st.none() | st.floats(0.1, 50)).map(
            lambda ttls: Lifetime(*ttls)
        ),
        tags=st.lists(st.sampled_from("xyz"), max_size=2, unique=True),
        cost=st.sampled_from([0.0, 0.001, 5.0]),
    )
    def store(self, name: str, key: Hashable, size: int, life: Lifetime, tags: list[str], cost: float) -> None:
        value = object()
        timing = life.begin(self.clock.monotonic(), 0.0)
        stored = self.tier.store(name, key, value, size, cost, timing, tuple(tags))
        assert stored == (size <= min(self.tier.max_bytes, self.quotas.get(name, 4000)))
        self.model.pop((name, key), None)
        if stored:
            self.model[name, key] = (value, timing, tuple(tags))
            entry = self.tier.lookup(name, key)
            assert entry is not None
            assert entry.value is value
            self.used(name, key)

    @rule(name=names, key=keys)
    def find(self, name: str, key: Hashable) -> None:
        entry = self.tier.lookup(name, key)
        if entry is None:
            return
        value, timing, _ = self.model[name, key]
        assert entry.value is value
        assert timing is None or self.clock.monotonic() < timing.deadline_s
        self.used(name, key)

    @rule(name=names, key=keys)
    def remove(self, name: str, key: Hashable) -> None:
        entry = self.tier.peek(name, key)
        if entry is not None:
            assert self.tier.remove(entry, "deleted")
            assert not self.tier.remove(entry, "deleted")
        assert self.tier.peek(name, key) is None
        self.model.pop((name, key), None)

    @rule(tag=st.sampled_from("xyz"))
    def drop_a_tag(self, tag: str) -> None:
        tagged = self.tier.tagged([tag])
        assert {(entry.shelf.name, entry.key) for entry in tagged} <= {
            place for place, (_, _, tags) in self.model.items() if tag in tags
        }
        for entry in tagged:
            self.tier.remove(entry, "tag")
        for place in [place for place, (_, _, tags) in self.model.items() if tag in tags]:
            assert self.tier.peek(*place) is None
            del self.model[place]

    @rule(seconds=st.floats(0, 100))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(limit=st.integers(1, 5))
    def sweep(self, limit: int) -> None:
        before = len(self.tier)
        self.tier.sweep(limit)
        assert before - len(self.tier) <= limit

    @rule(max_bytes=st.integers(200, 4000))
    def resize(self, max_bytes: int) -> None:
        self.tier.resize(max_bytes)
        assert self.tier.used_bytes <= max_bytes

    @rule(quota=st.none() | st.integers(300, 2000))
    def set_quota(self, quota: int | None) -> None:
        self.tier.set_quota("a", quota)
        self.quotas = {"bounded": 600} if quota is None else {"bounded": 600, "a": quota}

    @precondition(lambda self: self.model and self.policy == "lru")
    @rule()
    def evict_by_filling(self) -> None:
        """Without deadlines and quotas in play, the least recently used leave."""
        before = {(entry.shelf.name, entry.key) for entry in self.tier.entries()}
        if (
            any(entry.timing or entry.shelf.name == "bounded" for entry in self.tier.entries())
            or self.tier._partitions[2:]
        ):
            return
        self.tier.store("filler", "f", None, self.tier.max_bytes // 2 + 1)
        after = {(entry.shelf.name, entry.key) for entry in self.tier.entries()}
        left, stayed = before - after, before & after
        assert all(self.order.index(gone) < self.order.index(kept) for gone in left for kept in stayed)
        filler = self.tier.peek("filler", "f")
        assert filler is not None
        self.tier.remove(filler, "deleted")

    @rule()
    def clear(self) -> None:
        self.tier.clear("cleared")
        assert len(self.tier) == self.tier.used_bytes == 0
        self.model.clear()

    def used(self, name: str, key: Hashable) -> None:
        if (name, key) in self.order:
            self.order.remove((name, key))
        self.order.append((name, key))

    @invariant()
    def bytes_add_up_and_stay_bounded(self) -> None:
        if not hasattr(self, "tier"):
            return
        entries = self.tier.entries()
        assert self.tier.used_bytes == sum(entry.size_bytes for entry in entries) <= self.tier.max_bytes
        assert len(self.tier._wheel) == sum(entry.timing is not None for entry in entries)
        assert all(entry.is_live for entry in entries)
        for name, partition in self.tier._quotas.items():
            held = sum(entry.size_bytes for entry in entries if entry.shelf.name == name)
            assert partition.used_bytes == held <= partition.max_bytes
        assert len(self.tier._tags) == len({tag for entry in entries for tag in entry.tags})
        figures = self.tier.get_stats()
        assert sum(name["used_bytes"] for name in figures["names"].values()) == self.tier.used_bytes
        assert sum(name["entries"] for name in figures["names"].values()) == len(entries) == figures["entries"]

    def teardown(self) -> None:
        """Everything can be evicted, once each."""
        if hasattr(self, "tier"):
            self.tier.resize(1)
            assert self.tier.used_bytes <= 1
            assert all(entry.size_bytes == 1 for entry in self.tier.entries())


TestMemoryTier = MemoryTierMachine.TestCase
TestMemoryTier.settings = settings(
    max_examples=40, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow], deadline=None
)
