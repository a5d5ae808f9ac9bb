from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ondol.cache.core import MISSING
from ondol.cache.keys import key_text, make_key
from ondol.cache.memory import MemoryTier
from ondol.testing import FakeClock

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


class MemoryTierMachine(RuleBasedStateMachine):
    """The tier against a dict: what it returns was stored and is not past its time; bytes add up."""

    keys = st.sampled_from([f"key {number}" for number in range(8)])

    @initialize(max_bytes=st.integers(400, 4000))
    def begin(self, max_bytes: int) -> None:
        self.clock = FakeClock()
        self.tier = MemoryTier(max_bytes, self.clock)
        self.model: dict[str, tuple[object, float]] = {}
        self.order: list[str] = []

    @rule(key=keys, size=st.integers(1, 1500), ttl_s=st.none() | st.floats(0.1, 200))
    def store(self, key: str, size: int, ttl_s: float | None) -> None:
        value = object()
        stored = self.tier.store(key, "name", value, ttl_s=ttl_s, size_bytes=size)
        assert stored == (size <= self.tier.max_bytes)
        self.model.pop(key, None)
        if stored:
            self.model[key] = (value, float("inf") if ttl_s is None else self.clock.monotonic() + ttl_s)
            assert self.tier.find(key, "name", MISSING) is value
            self.used(key)

    @rule(key=keys)
    def find(self, key: str) -> None:
        found = self.tier.find(key, "name", MISSING)
        if found is MISSING:
            return
        value, deadline_s = self.model[key]
        assert found is value
        assert self.clock.monotonic() < deadline_s
        self.used(key)

    @rule(key=keys)
    def remove(self, key: str) -> None:
        peeked = self.tier.peek(key)
        assert self.tier.remove(key) == (peeked is not None)
        self.model.pop(key, None)

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

    @precondition(lambda self: self.model)
    @rule()
    def evict_by_filling(self) -> None:
        """Without deadlines in play, whoever leaves was used before everyone who stays."""
        before = set(self.tier.keys())
        if any(entry.deadline_s is not None for entry in self.tier._entries.values()):
            return
        self.tier.store("filler", "name", None, size_bytes=self.tier.max_bytes // 2 + 1)
        left = before - set(self.tier.keys()) - {"filler"}
        stayed = before - left - {"filler"}
        assert all(self.order.index(gone) < self.order.index(kept) for gone in left for kept in stayed)
        self.tier.remove("filler")

    @rule()
    def clear(self) -> None:
        count = len(self.tier)
        assert self.tier.clear() == count
        assert self.tier.used_bytes == 0

    def used(self, key: str) -> None:
        if key in self.order:
            self.order.remove(key)
        self.order.append(key)

    @invariant()
    def bytes_add_up_and_stay_bounded(self) -> None:
        if not hasattr(self, "tier"):
            return
        entries = self.tier._entries
        assert self.tier.used_bytes == sum(entry.size_bytes for entry in entries.values()) <= self.tier.max_bytes
        assert len(self.tier._wheel) == sum(entry.deadline_s is not None for entry in entries.values())
        assert set(entries) == set(self.tier._policy._order)  # type: ignore[attr-defined]  # LruPolicy's own
        figures = self.tier.get_stats()
        assert sum(name["used_bytes"] for name in figures["names"].values()) == self.tier.used_bytes
        assert sum(name["entries"] for name in figures["names"].values()) == len(entries) == figures["entries"]


TestMemoryTier = MemoryTierMachine.TestCase
TestMemoryTier.settings = settings(
    max_examples=40, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow], deadline=None
)
