"""decision: the policy that finds out which policy serves this workload, and switches to it without a stall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ondol.cache.policies.experts import EXPERTS, GHOST_RATIO, START, THRIFT
from ondol.cache.policies.gdsf import GdsfPolicy
from ondol.cache.policies.ghosts import Ghosts, salt_of
from ondol.cache.policies.lru import LruPolicy
from ondol.cache.policies.panel import Panel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.cache.entry import Entry
    from ondol.cache.policies.experts import HandoverPolicy
    from ondol.cache.policies.shadow import Access

__all__ = ["AdaptivePolicy"]

_KEYS_AT_FIRST: Final = 3200
"""Keys that a shadow may hold while little is known; with more the sample is halved."""
_KEYS: Final = 400
_LEARNING: Final = 20_000
"""Sampled accesses with a full cache after which ``_KEYS`` are enough."""
_BATCH: Final = 32
_MOVES_PER_ADMISSION: Final = 8
_HASHES: Final = 1 << 64


class AdaptivePolicy:
    """Lets shadow caches over a sample of the keys say which expert is best, and has that one in charge.

    The sample is taken by the keys' hashes, so that all accesses of a sampled key are seen, and halved whenever the
    shadows hold more keys than they need. Only the hits of sampled entries are tracked. A switch makes a new
    ranking for what comes in; each admission brings a few of the other entries over, the first to leave first.

    Cost: O(log n) amortised, a bounded number of steps at a time.
    Source: Waldspurger et al., "Cache Modeling and Optimization using Miniature Simulations", USENIX ATC 2017, for
    scaled-down shadows; the choice with two memories and a floor is ours.
    """

    def __init__(self) -> None:
        """Begin without entries, with every key in the sample."""
        self._makers = {expert.name: expert.make for expert in EXPERTS}
        self._in_charge = START
        self._ghosts = Ghosts()
        self._policy: HandoverPolicy = self._makers[START](self._ghosts)
        self._former: HandoverPolicy | None = None
        self._panel = Panel()
        self._bound = _HASHES // 2
        self._sampled: dict[Entry, int] = {}
        self._accesses: list[Access] = []
        self._seen = 0
        self._is_full = False
        self._max_bytes = 0
        self._switches = 0

    def admitted(self, entry: Entry) -> None:
        """Hand a new entry to the policy in charge, and note the access when its key is in the sample."""
        self._policy.admitted(entry)
        key = hash((entry.key, salt_of(entry.shelf.name)))
        if key < self._bound:
            self._sampled[entry] = key
            entry.track(is_tracked=True)
            self._accesses.append((key, entry.size_bytes, entry.cost_s))
            if len(self._accesses) >= _BATCH:
                self._learn()
        elif entry.is_tracked:
            self._untrack(entry)
        if self._former is not None:
            self._move(self._former)

    def touched(self, entries: Sequence[Entry]) -> None:
        """Note the hits of sampled entries, and hand all on to the policy in charge."""
        self._policy.touched(entries)
        if self._former is not None:
            self._former.touched(entries)
        sampled, accesses = self._sampled, self._accesses
        for entry in entries:
            key = sampled.get(entry)
            if key is not None:
                accesses.append((key, entry.size_bytes, entry.cost_s))
        if len(accesses) >= _BATCH:
            self._learn()

    def removed(self, entry: Entry) -> None:
        """Forget an entry."""
        self._sampled.pop(entry, None)
        if self._former is not None and self._former.owns(entry):
            self._former.removed(entry)
        else:
            self._policy.removed(entry)

    def evict(self) -> Entry:
        """Return the entry that the policy in charge gives up, and forget it.

        Raises:
            KeyError: there is none.
        """
        self._is_full = True
        policy = self._policy
        if self._former is not None and not len(policy):
            policy = self._former
        entry = policy.evict()
        if entry.is_tracked:
            self._sampled.pop(entry, None)
        return entry

    def resized(self, max_bytes: int) -> None:
        """Give the policies and the shadows their share of the new bound."""
        if max_bytes * 2 <= self._max_bytes:
            factor = self._max_bytes // max_bytes
            self._bound = min(_HASHES // 2, (self._bound + _HASHES // 2) * factor - _HASHES // 2)
        self._max_bytes = max_bytes
        self._ghosts.resize(max_bytes * GHOST_RATIO)
        self._policy.resized(max_bytes)
        if self._former is not None:
            self._former.resized(max_bytes)
        self._resize_shadows()

    def get_stats(self) -> dict[str, object]:
        """Return who is in charge, how often that changed, and what each expert's hit ratio is estimated at."""
        return {
            "policy": "adaptive",
            "in_charge": self._in_charge,
            "switches": self._switches,
            "is_switching": self._former is not None,
            "sampled_ratio": self._sampled_ratio,
            **self._panel.get_stats(),
        }

    @property
    def _sampled_ratio(self) -> float:
        return (self._bound + _HASHES // 2) / _HASHES

    def _learn(self) -> None:
        accesses, self._accesses = self._accesses, []
        self._panel.learn(accesses)
        if not self._is_full:
            limit = _KEYS_AT_FIRST
        else:
            if not self._seen:
                self._panel.forget()
            self._seen += len(accesses)
            limit = _KEYS_AT_FIRST if self._seen < _LEARNING else _KEYS
            self._choose()
        while len(self._panel) > limit:
            self._thin()

    def _choose(self) -> None:
        if self._former is not None:
            return
        best = self._panel.choose(self._in_charge)
        if best != self._in_charge:
            self._switch(best)
        elif best == THRIFT.name and isinstance(self._policy, GdsfPolicy):
            self._policy.become(self._panel.thrift)

    def _switch(self, name: str) -> None:
        self._switches += 1
        self._in_charge = name
        policy = self._makers[name](self._ghosts)
        if isinstance(policy, GdsfPolicy):
            params = self._panel.thrift if name == THRIFT.name else policy.params
            if isinstance(self._policy, GdsfPolicy):
                self._policy.become(params)
                return
            policy.become(params)
        policy.resized(self._max_bytes)
        self._former, self._policy = self._policy, policy

    def _move(self, former: HandoverPolicy) -> None:
        policy, sampled = self._policy, self._sampled
        for _ in range(min(_MOVES_PER_ADMISSION, len(former))):
            entry = former.evict()
            policy.adopt(entry)
            if entry.is_tracked and entry not in sampled:
                self._untrack(entry)
        if not len(former):
            self._former = None

    def _thin(self) -> None:
        self._bound = (self._bound - _HASHES // 2) // 2
        self._panel.thin(self._bound)
        self._resize_shadows()
        for entry in [entry for entry, key in self._sampled.items() if key >= self._bound]:
            del self._sampled[entry]
            self._untrack(entry)

    def _untrack(self, entry: Entry) -> None:
        if not isinstance(self._policy, LruPolicy):
            entry.track(is_tracked=False)

    def _resize_shadows(self) -> None:
        self._panel.resize(max(1, int(self._max_bytes * self._sampled_ratio)))
