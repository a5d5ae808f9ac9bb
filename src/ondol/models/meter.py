"""decision: how much the process grew by one load, when that can be told at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ondol.models.ports import MemoryProbe

__all__ = ["MemoryMeter", "Reading"]


class Reading(NamedTuple):
    """The beginning of a load or an unload."""

    rss_bytes: int | None
    stamp: int


class MemoryMeter:
    """Reads the memory around loads and unloads; only one that was alone from begin to end is believed."""

    __slots__ = ("_probe", "_running", "_stamp")

    def __init__(self, probe: MemoryProbe | None) -> None:
        """Measure with ``probe``, or nothing without one."""
        self._probe = probe
        self._running = 0
        self._stamp = 0

    def reset(self) -> None:
        """Forget loads whose end will never come: their event loop is gone."""
        self._running = 0
        self._stamp += 1

    def begin(self) -> Reading:
        """Note the beginning of a load or an unload."""
        is_alone = self._running == 0
        self._running += 1
        self._stamp += 1
        return Reading(self._read() if is_alone else None, self._stamp)

    def end(self, reading: Reading) -> int | None:
        """Return the growth in bytes since ``reading``, or ``None`` when others ran meanwhile."""
        self._running -= 1
        if reading.rss_bytes is None or reading.stamp != self._stamp:
            return None
        now_bytes = self._read()
        return None if now_bytes is None else now_bytes - reading.rss_bytes

    def _read(self) -> int | None:
        try:
            return self._probe() if self._probe is not None else None
        except OSError:
            return None  # no figure is no reason to fail a load: the estimate counts then
