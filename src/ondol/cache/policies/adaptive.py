"""decision: the policy that finds out which policy serves this workload, and switches to it without a stall."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from ondol.cache.policies.experts import EXPERTS, GHOST_RATIO, SAFE, START
from ondol.cache.policies.gdsf import GdsfPolicy
from ondol.cache.policies.ghosts import SALTS, Ghosts
from ondol.cache.policies.lru import LruPolicy
from ondol.cache.policies.panel import Panel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ondol.cache.entry import Entry
    from ondol.cache.policies.experts import HandoverPolicy
    from ondol.cache.policies.shadow import Access

__all__ = ["AdaptivePolicy"]

_KEYS: Final = (400, 1600)
"""Keys that a shadow holds: as many at least, where there are so many, and as many at most; between them ..."""
_SHARE: Final = 8
"""... the entries that the cache holds, divided by this."""
_KEYS_AT_FIRST: Final = (4, 4096)
"""While little is known, so many times as many, and as many at most."""
_LEARNING: Final = 20_000
"""Sampled accesses with a full cache after which that is over, unless it is clear before that there is little to
gain; then half as many keys will do."""
_CALM_RATIO: Final = 0.5
"""While the cache is less full than this nothing is looked at."""
_BATCH: Final = 32
_MOVES_PER_ADMISSION: Final = 8
_HALF: Final = 1 << 63
"""Marks lie from ``-_HALF`` to ``_HALF``."""


class AdaptivePolicy:
    """Lets shadow caches over a sample of the keys say which expert is best, and has that one in charge.

    The sample is taken by the entries' marks, so that all accesses of a sampled key are seen; it is halved whenever
    the shadows hold more keys than they need. Of hits only those of sampled entries are tracked, unless the policy in
    charge wants more, and none while the cache is far from full. A switch makes a new ranking for what comes in; each
    admission brings a few of the other entries over, the first to leave first.

    Cost: O(log n) amortised, a bounded number of steps at a time.
    Source: Waldspurger et al., "Cache Modeling and Optimization using Miniature Simulations", USENIX ATC 2017, for
    scaled-down shadows; the choice by paired differences with two memories and a safe policy is ours.
    """

    evict: Callable[[], Entry]
    """Returns the entry that the policy in charge gives up, and forgets it; raises ``KeyError`` when there is none."""

    def __init__(self) -> None:
        """Begin without entries, with every key in the sample."""
        self._makers = {expert.name: expert.make for expert in EXPERTS}
        self._in_charge = START
        self._ghosts = Ghosts()
        self._policy: HandoverPolicy = self._makers[START](self._ghosts)
        self._admit = self._policy.admitted
        self.evict = self._policy.evict
        self._former: HandoverPolicy | None = None
        self._panel = Panel()
        self._bound = _HALF
        self._limits = (0, 0)
        self._is_calm = True
        self._is_filling = False
        self._is_learning = True
        self._accesses: list[Access] = []
        self._max_bytes = 0
        self._switches = 0

    def admitted(self, entry: Entry) -> None:
        """Hand a new entry to the policy in charge, and note the access when its key is in the sample."""
        entry.mark = mark = hash((entry.key, SALTS[entry.shelf.name], 0))
        self._admit(entry)
        if mark < self._bound:
            self._note(entry)
        if self._former is not None:
            self._move(self._former)

    def touched(self, entries: Sequence[Entry]) -> None:
        """Note the hits of sampled entries, and hand all on to the policy in charge."""
        bound, accesses = self._bound, self._accesses
        is_exact = self._in_charge == SAFE
        if is_exact:
            self._policy.touched(entries)
        if self._former is not None:
            self._former.touched(entries)
            is_exact = True
        for entry in entries:
            if entry.mark < bound:
                accesses.append((entry.mark, entry.size_bytes, entry.cost_s))
            elif not is_exact:
                entry.track(is_tracked=False)
        if len(accesses) >= _BATCH:
            self._learn()

    def removed(self, entry: Entry) -> None:
        """Forget an entry."""
        former = self._former
        if former is not None and former.owns(entry):
            former.removed(entry)
        else:
            self._policy.removed(entry)

    def resized(self, max_bytes: int) -> None:
        """Give the policies and the shadows their share of the new bound."""
        if not self._is_calm and max_bytes * 2 <= self._max_bytes:
            factor = self._max_bytes // max_bytes
            self._bound = min(_HALF, (self._bound + _HALF) * factor - _HALF)
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
        return (self._bound + _HALF) / (2 * _HALF)

    def _note(self, entry: Entry) -> None:
        """Take note of a sampled entry that came in."""
        if self._is_calm:
            self._watch(entry)
            return
        if not entry.is_tracked:
            entry.track(is_tracked=True)
        self._accesses.append((entry.mark, entry.size_bytes, entry.cost_s))
        if len(self._accesses) >= _BATCH:
            self._learn()

    def _watch(self, entry: Entry) -> None:
        """Size the sample by what there is, and begin to learn once the cache is not far from full any more."""
        size_bytes = max(entry.size_bytes, 1)
        self._size_sample(self._max_bytes / size_bytes)
        if self._former is None and len(self._policy) * size_bytes >= self._max_bytes * _CALM_RATIO:
            self._is_calm = False
            self._is_filling = True  # the shadows, with what is there
            self._resize_shadows()
            self._switch(SAFE)

    def _size_sample(self, entries: float) -> None:
        keys = min(max(entries / _SHARE, _KEYS[0]), _KEYS[1])
        self._limits = int(min(keys * _KEYS_AT_FIRST[0], _KEYS_AT_FIRST[1])), int(keys)
        self._bound = min(_HALF, int(2 * _HALF * min(1.0, self._limits[0] / max(entries, 1.0))) - _HALF)

    def _learn(self) -> None:
        accesses, self._accesses = self._accesses, []
        panel = self._panel
        panel.learn(accesses)
        if panel.is_full:
            if self._is_learning:
                self._end_learning()
            self._choose()
            if isinstance(self._policy, LruPolicy):
                self._policy.remember(None if panel.is_settled else self._ghosts)
        while len(panel) > self._limits[0] * 1.1:
            self._thin()

    def _end_learning(self) -> None:
        keys, panel = self._limits[1], self._panel
        if panel.is_settled:
            keys = max(keys // 2, _KEYS[0])
        elif panel.seen < _LEARNING:
            return
        self._is_learning = False
        self._limits = keys, keys

    def _choose(self) -> None:
        if self._former is not None:
            return
        best = self._panel.choose(self._in_charge)
        if best != self._in_charge:
            self._switch(best)
        elif best in self._panel.params and isinstance(self._policy, GdsfPolicy):
            self._policy.become(self._panel.params[best])

    def _switch(self, name: str) -> None:
        self._switches += 1
        self._in_charge = name
        policy = self._makers[name](self._ghosts)
        if isinstance(policy, GdsfPolicy):
            params = self._panel.params.get(name, policy.params)
            if isinstance(self._policy, GdsfPolicy):
                self._policy.become(params)
                return
            policy.become(params)
        policy.resized(self._max_bytes)
        former = self._policy
        former.hand_over()
        self._former, self._policy = former, policy
        self._admit = policy.admitted
        self.evict = partial(_evict_of, policy, former)

    def _move(self, former: HandoverPolicy) -> None:
        adopt, evict = self._policy.adopt, former.evict
        for _ in range(min(_MOVES_PER_ADMISSION, len(former))):
            entry = evict()
            adopt(entry)
            if self._is_filling and entry.mark < self._bound:
                self._note(entry)
        if not len(former):
            self._former = None
            self._is_filling = False
            self.evict = self._policy.evict

    def _thin(self) -> None:
        self._bound = (self._bound - _HALF) // 2
        self._panel.thin(self._bound)
        self._resize_shadows()

    def _resize_shadows(self) -> None:
        self._panel.resize(max(1, int(self._max_bytes * self._sampled_ratio)))


def _evict_of(policy: HandoverPolicy, former: HandoverPolicy) -> Entry:
    """Evict while entries come over from the former policy."""
    return policy.evict() if len(policy) else former.evict()
