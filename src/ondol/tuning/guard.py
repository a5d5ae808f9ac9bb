"""decision: the memory guard: takes memory back at once when it runs short, gives it back slowly when it is safe.

At 85 % and more, each look halves the cache (never below a tenth of its configured bound) and background loads
pause. Below 75 % three times in a row, each further look gives a quarter of the configured bound back; when all of it
is back, loads go on. Between the two nothing moves.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from ondol.units import format_bytes

__all__ = ["FLOOR_RATIO", "PRESSURE_PERCENT", "SAFE_PERCENT", "GuardState", "MemoryGuard", "Move", "Observation"]

PRESSURE_PERCENT: Final = 85.0
SAFE_PERCENT: Final = 75.0
SAFE_LOOKS: Final = 3
FLOOR_RATIO: Final = 0.1
STEP_RATIO: Final = 0.25

GuardState = Literal["normal", "pressure", "recovering"]


class Observation(NamedTuple):
    """What the guard looks at."""

    memory_percent: float | None
    """Of the limit that would kill the process; ``None`` when it is not known."""
    cache_max_bytes: int
    base_cache_bytes: int
    """The configured bound of the cache."""
    is_paused: bool
    """Whether background loads are paused, by whomever."""


class Move(NamedTuple):
    """One change to make, and why."""

    action: Literal["shrink", "pause", "restore", "resume"]
    sentence: str
    cache_bytes: int | None = None


class MemoryGuard:
    """Decides from one observation to the next. It undoes only what it did itself."""

    def __init__(self) -> None:
        """Begin in the normal state, holding nothing back."""
        self.state: GuardState = "normal"
        self._has_shrunk = False
        self._has_paused = False
        self._safe_looks = 0

    def look(self, seen: Observation) -> list[Move]:
        """Return the changes to make now, in their order; mostly none."""
        percent = seen.memory_percent
        if percent is None:
            return []  # frozen: nothing moves on figures that are not there
        if percent >= PRESSURE_PERCENT:
            self.state, self._safe_looks = "pressure", 0
            return self._take(seen, percent)
        if self.state == "normal":
            return []
        if percent >= SAFE_PERCENT:
            self._safe_looks = 0
            return []
        self._safe_looks += 1
        return self._give_a_step(seen, percent) if self._safe_looks >= SAFE_LOOKS else []

    def _take(self, seen: Observation, percent: float) -> list[Move]:
        moves: list[Move] = []
        floor = max(1, int(seen.base_cache_bytes * FLOOR_RATIO))
        target = max(floor, seen.cache_max_bytes // 2)
        why = f"memory is at {percent:.1f} % (limit for tuning: {PRESSURE_PERCENT:.0f} %)"
        if target < seen.cache_max_bytes:
            self._has_shrunk = True
            change = f"{format_bytes(seen.cache_max_bytes)} to {format_bytes(target)}"
            end = ", the least it is given" if target == floor else ""
            moves.append(Move("shrink", f"{why}: cache bound lowered from {change}{end}", target))
        if not seen.is_paused:
            self._has_paused = True
            moves.append(Move("pause", f"{why}: background preloading paused"))
        return moves

    def _give_a_step(self, seen: Observation, percent: float) -> list[Move]:
        self.state = "recovering"
        why = f"memory is at {percent:.1f} %, below {SAFE_PERCENT:.0f} % for {self._safe_looks} looks"
        if self._has_shrunk and seen.cache_max_bytes < seen.base_cache_bytes:
            step = max(1, int(seen.base_cache_bytes * STEP_RATIO))
            return [_restore(seen, min(seen.base_cache_bytes, seen.cache_max_bytes + step), why)]
        self._has_shrunk = False
        self.state = "normal"
        return self._resume(seen, why)

    def give_back(self, seen: Observation, why: str) -> list[Move]:
        """Return what undoes everything the guard did, at once, because ``why``; it is in the normal state then."""
        moves: list[Move] = []
        if self._has_shrunk and seen.cache_max_bytes < seen.base_cache_bytes:
            moves.append(_restore(seen, seen.base_cache_bytes, why))
        moves += self._resume(seen, why)
        self.state, self._has_shrunk, self._safe_looks = "normal", False, 0
        return moves

    def _resume(self, seen: Observation, why: str) -> list[Move]:
        was_ours, self._has_paused = self._has_paused, False
        return [Move("resume", f"{why}: background preloading resumed")] if was_ours and seen.is_paused else []


def _restore(seen: Observation, target: int, why: str) -> Move:
    change = f"{format_bytes(seen.cache_max_bytes)} to {format_bytes(target)}"
    end = ", its configured size" if target == seen.base_cache_bytes else ""
    return Move("restore", f"{why}: cache bound raised from {change}{end}", target)
