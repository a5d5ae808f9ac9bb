"""decision: a timer wheel that says which entries are due, with bounded work per step.

Source: G. Varghese, A. Lauck, "Hashed and hierarchical timing wheels" (1987); Caffeine's ``TimerWheel``. Ours keeps
each level's slots in a dictionary by absolute tick instead of a ring, so that a sweep that lags behind (or was
never started) cannot mistake an old slot for a new one.
"""

from __future__ import annotations

import heapq
from typing import Final, Generic, TypeVar

__all__ = ["TICK_S", "TimerWheel"]

TICK_S: Final = 1.0
"""Precision of the sweep in seconds: a due entry is handed out at most this much late."""

_SLOTS: Final = 64
_SPANS_S: Final = tuple(TICK_S * _SLOTS**level for level in range(4))

K = TypeVar("K")


class TimerWheel(Generic[K]):
    """Deadlines of keys: O(1) to schedule and to cancel, and due keys in bounded steps.

    Four levels of at most 64 future slots each: 1 s, 64 s, 68 min and 3 days wide. Keys in a slot of a higher level
    move down when its time begins. Later deadlines wait in the last slot and are looked at again from there.
    """

    __slots__ = ("_levels", "_looked_at_tick", "_slot_of", "_ticks")

    def __init__(self) -> None:
        """Begin empty."""
        self._levels: list[dict[float, dict[K, float]]] = [{} for _ in _SPANS_S]
        self._ticks: list[list[float]] = [[] for _ in _SPANS_S]
        """A heap of each level's ticks that have a slot."""
        self._slot_of: dict[K, dict[K, float]] = {}
        self._looked_at_tick = float("-inf")

    def __len__(self) -> int:
        """Return the number of scheduled keys."""
        return len(self._slot_of)

    def schedule(self, key: K, deadline_s: float, now_s: float) -> None:
        """Let ``key``, which must not be scheduled, be due at ``deadline_s``."""
        ahead_s = deadline_s - now_s
        level = 0
        # At least one span ahead on its level, so that a slot never begins before it is filled.
        while level < len(_SPANS_S) - 1 and ahead_s >= _SPANS_S[level + 1]:
            level += 1
        span_s = _SPANS_S[level]
        tick = int(min(deadline_s, now_s + span_s * _SLOTS) // span_s)
        slot = self._levels[level].get(tick)
        if slot is None:
            slot = self._levels[level][tick] = {}
            heapq.heappush(self._ticks[level], tick)
        slot[key] = deadline_s
        self._slot_of[key] = slot

    def cancel(self, key: K) -> None:
        """Forget ``key``; one that is not scheduled is no error."""
        slot = self._slot_of.pop(key, None)
        if slot is not None:
            del slot[key]

    def take_due(self, now_s: float, limit: int) -> tuple[list[K], bool]:
        """Return keys whose time has come, which are then no longer scheduled, and whether that was all of them.

        At most ``limit`` keys are looked at. Called again within one tick after all were taken, it does nothing.
        """
        if now_s // TICK_S == self._looked_at_tick:
            return [], True
        due: list[K] = []
        left = limit
        # From the widest level down, so that what moves down is found in the same sweep.
        for level in range(len(_SPANS_S) - 1, -1, -1):
            last, ticks = self._last_passed(level, now_s), self._ticks[level]
            while ticks and ticks[0] <= last:
                left = self._empty_slot(level, ticks[0], now_s, left, due)
                if left == 0:
                    return due, False
        self._looked_at_tick = now_s // TICK_S
        return due, True

    @staticmethod
    def _last_passed(level: int, now_s: float) -> float:
        tick_now: float = now_s // _SPANS_S[level]
        # The finest slots are taken when their whole second is over, wider ones moved down as soon as they begin.
        return tick_now - 1 if level == 0 else tick_now

    def _empty_slot(self, level: int, tick: float, now_s: float, left: int, due: list[K]) -> int:
        slot = self._levels[level][tick]
        while slot and left:
            key, deadline_s = slot.popitem()
            del self._slot_of[key]
            left -= 1
            if deadline_s <= now_s:
                due.append(key)
            else:
                self.schedule(key, deadline_s, now_s)
        if not slot:
            del self._levels[level][tick]
            heapq.heappop(self._ticks[level])
        return left
