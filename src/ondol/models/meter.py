"""decision: how much the process grew by one load, when that can be told at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ondol.models.ports import MemoryProbe

__all__ = ["MemoryMeter", "Reading"]


class Reading(NamedTuple):
    """The beginning of a load or an unload. ``era`` counts the meter's resets, ``unloads`` those that had begun."""

    rss_bytes: int | None
    is_alone: bool
    unloads: int
    is_unload: bool
    stamp: int
    era: int


class MemoryMeter:
    """Reads the memory around loads and unloads; only one that was alone from begin to end is believed."""

    __slots__ = ("_era", "_probe", "_running", "_stamp", "_unloading", "_unloads")

    def __init__(self, probe: MemoryProbe | None) -> None:
        """Measure with ``probe``, or nothing without one."""
        self._probe = probe
        self._running = 0
        self._stamp = 0
        self._era = 0
        self._unloads = 0
        self._unloading = 0

    @property
    def is_measuring(self) -> bool:
        """Whether there is anything to measure with."""
        return self._probe is not None

    def reset(self) -> None:
        """Forget what runs: its event loop is gone, or it ignored a stop. Should it end all the same, it is ignored."""
        self._running = self._unloading = 0
        self._era += 1

    def begin(self, *, is_unload: bool = False) -> Reading:
        """Note the beginning of a load or an unload."""
        is_alone = self._running == 0
        unloads = -1 if self._unloading else self._unloads  # -1: one is under way, memory goes while this comes
        self._running += 1
        self._unloading += is_unload
        self._unloads += is_unload
        self._stamp += 1
        return Reading(self._read(), is_alone, unloads, is_unload, self._stamp, self._era)

    def end(self, reading: Reading) -> int | None:
        """Return the growth in bytes since ``reading``, or ``None`` when others ran meanwhile."""
        if reading.era != self._era:
            return None
        self._running -= 1
        self._unloading -= reading.is_unload
        return self.growth_since(reading) if reading.is_alone and reading.stamp == self._stamp else None

    def growth_since(self, reading: Reading) -> int | None:
        """Return the growth in bytes since ``reading``, by whatever ran meanwhile."""
        if reading.rss_bytes is None or (now_bytes := self._read()) is None:
            return None
        return now_bytes - reading.rss_bytes

    def shared_growth_since(self, reading: Reading) -> int | None:
        """Return the growth in bytes by loads alone; ``None`` when something was unloaded meanwhile."""
        return self.growth_since(reading) if reading.unloads == self._unloads else None

    def _read(self) -> int | None:
        try:
            return self._probe() if self._probe is not None else None
        except OSError:
            return None  # no figure is no reason to fail a load: the estimate counts then
