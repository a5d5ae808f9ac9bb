"""decision: what one series has seen: in the last minute, five minutes, hour, day, and in its whole life.

Time is cut into slots of ten seconds, each a packed sketch. The older a slot, the more neighbours it is put together
with: whole minutes within five minutes, ten minutes within the hour, three hours within the day, and one sketch of all
that is older. A window moves by whole slots, so it covers its length less at most one slot of that age.

The bytes of a series are bounded. Values that are spread widely make large sketches; then the slots of the age that
takes most are made longer: the window begins less exactly, its percentiles stay as good as they are.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from ondol.monitor.query import WINDOWS_S
from ondol.monitor.sketch import Sketch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ondol.monitor.counting import Batch

__all__ = ["MAX_PACKED_BYTES", "SLOT_S", "WHOLE", "Window", "Windows"]

SLOT_S: Final = 10.0

MAX_PACKED_BYTES: Final = 8_200
"""Most bytes that the packed slots of a series take together, their objects included."""

MAX_KEPT_BYTES: Final = 1_600
"""Most bytes of what is kept put together for reading."""

_LEVELS: Final = (
    (6, (1, 2, 3, 6)),
    (30, (6, 10, 15, 30)),
    (360, (60, 90, 120, 180, 360)),
    (8640, (1080, 2160, 4320, 8640)),
)
"""For slots younger than so many slots: how long they are, and may become when they take too much room."""

_LONGEST_SLOTS: Final = _LEVELS[-1][0]
_WINDOW_SLOTS: Final[Mapping[str, int]] = {name: int(length_s / SLOT_S) for name, length_s in WINDOWS_S.items()}
WHOLE: Final = "whole"
"""The name of the window that is the whole life."""

_LENGTHS: Final = (*_WINDOW_SLOTS.items(), (WHOLE, 1 << 40))
_AGEING_SLOTS: Final = 6
"""Slots are put together once in so many: it need not be done at once."""

_PLACE: Final = struct.Struct("<II")
_OBJECT_BYTES: Final = 33 + 8


class Window(NamedTuple):
    """What came within a window, and how many seconds of it there were."""

    sketch: Sketch
    span_s: float


class _Slot(NamedTuple):
    """A stretch of time, in slots of ten seconds, and what came in it."""

    start: int
    length: int
    sketch: Sketch

    def packed(self, *, is_final: bool) -> bytes:
        return _PLACE.pack(self.start, self.length) + self.sketch.pack(is_final=is_final)


def _unpacked(packed: bytes) -> _Slot:
    start, length = _PLACE.unpack_from(packed)
    return _Slot(start, length, Sketch.unpack(packed[_PLACE.size :]))


class _Parts(NamedTuple):
    """What closed slots come to, cut up so that each window is the sum of the first few parts and the open slot."""

    since: int
    until: int
    """The slot from which on it has to be made anew: then another slot falls out of a window."""
    sources: tuple[list[bytes], ...]
    """The slots in each window, without those in the shorter ones; the last is all that is older."""
    packed: tuple[bytes, ...]
    """What these come to, where there are several; made anew only when they have changed."""
    earliest: tuple[int, ...]
    """The slot that each window begins with at the earliest: what reaches into it is left out as a whole."""


_NO_PARTS: Final = _Parts(0, 0, ([],) * len(_LENGTHS), (b"",) * len(_LENGTHS), (0,) * len(_LENGTHS))


class Windows:
    """The slots of one series, newest last. Not thread-safe: its owner locks.

    Cost: reading puts the slots together once in ten seconds, and then only adds what is new.
    """

    __slots__ = ("_coarseness", "_older", "_parts", "_slots")

    def __init__(self) -> None:
        """Begin empty."""
        self._slots: list[bytes] = []
        self._older: bytes | None = None
        self._coarseness = bytearray(len(_LEVELS))
        self._parts = _NO_PARTS

    def add(self, batch: Batch, at_s: float) -> None:
        """Count ``batch`` at ``at_s`` (monotonic seconds); what comes out of order is counted in the newest slot."""
        now = max(0, int(at_s // SLOT_S))
        newest = _unpacked(self._slots[-1]) if self._slots else None
        if newest is None or now > newest.start:
            self._parts = self._parts._replace(until=0)
            if newest is not None:
                self._slots[-1] = newest.packed(is_final=True)
                if now // _AGEING_SLOTS != newest.start // _AGEING_SLOTS:
                    self._age(now)
            newest = _Slot(now, 1, Sketch())
            self._slots.append(b"")
        newest.sketch.add(batch)
        self._slots[-1] = newest.packed(is_final=False)

    def _age(self, now: int) -> None:
        self._coarsen(now)
        while self.packed_bytes > MAX_PACKED_BYTES and self._widen(now):
            self._coarsen(now)
        coarsest = max(self._coarseness)
        if coarsest and self.packed_bytes < MAX_PACKED_BYTES // 2:
            self._coarseness[self._coarseness.index(coarsest)] -= 1  # there is room for shorter slots again
        self._let_go()

    def _let_go(self) -> None:
        """Keep nothing that was made of slots which are no more: it would hold on to them."""
        alive = {id(packed) for packed in self._slots}
        parts = self._parts
        is_alive = [all(id(slot) in alive for slot in source) for source in parts.sources]
        self._parts = parts._replace(
            sources=tuple(source if stays else [] for source, stays in zip(parts.sources, is_alive, strict=True)),
            packed=tuple(packed if stays else b"" for packed, stays in zip(parts.packed, is_alive, strict=True)),
        )

    @property
    def packed_bytes(self) -> int:
        """How many bytes its slots take, their objects included."""
        slots = self._slots if self._older is None else [*self._slots, self._older]
        return sum(map(len, slots)) + _OBJECT_BYTES * len(slots)

    def _coarsen(self, now: int) -> None:
        """Put neighbours together that are old enough, and what is older than a day with the rest of it."""
        kept: list[bytes] = []
        cell_before: tuple[int, int] | None = None
        for packed in self._slots:
            start, length = _PLACE.unpack_from(packed)
            if now - (start + length - 1) >= _LONGEST_SLOTS:
                self._older = _joined(self._older, packed)
                continue
            level = _level(now - start)
            cell = (level, start // self._length(level))
            if cell == cell_before:
                kept[-1] = _joined(kept[-1], packed)
            else:
                kept.append(packed)
            cell_before = cell
        self._slots = kept

    def _length(self, level: int) -> int:
        return _LEVELS[level][1][self._coarseness[level]]

    def _widen(self, now: int) -> bool:
        """Lengthen the slots of the age that takes most room; return whether any could be lengthened."""
        sizes = [0] * len(_LEVELS)
        for packed in self._slots:
            level = _level(now - _PLACE.unpack_from(packed)[0])
            if self._coarseness[level] + 1 < len(_LEVELS[level][1]):
                sizes[level] += len(packed)
        largest = max(sizes)
        if not largest:
            return False
        self._coarseness[sizes.index(largest)] += 1
        return True

    def window(self, name: str, now_s: float, first_at_s: float) -> Window:
        """Return what came within the window ``name`` (``1m``, ``5m``, ``1h``, ``24h``)."""
        return next(window for found, window in self._windows(now_s, first_at_s) if found == name)

    def windows(self, now_s: float, first_at_s: float) -> dict[str, Window]:
        """Return all windows by name, and as ``WHOLE`` what came ever."""
        return dict(self._windows(now_s, first_at_s))

    def whole(self) -> Sketch:
        """Return what came ever."""
        parts = [*self._slots, *([] if self._older is None else [self._older])]
        return _sum([_unpacked(packed).sketch for packed in parts])

    def _windows(self, now_s: float, first_at_s: float) -> Iterator[tuple[str, Window]]:
        now = int(now_s // SLOT_S)
        parts = self._parts
        if not parts.since <= now < parts.until:
            parts = self._parts = self._put_together(now)
        open_slot = _unpacked(self._slots[-1]) if self._slots else None
        within = Sketch()
        for index, (name, length) in enumerate(_LENGTHS):
            slots, packed = parts.sources[index], parts.packed[index]
            begins = max(now - length + 1, parts.earliest[index])
            joining = [Sketch.unpack(packed)] if packed else [_unpacked(slot).sketch for slot in slots]
            if open_slot is not None and open_slot.start >= begins:
                joining.append(open_slot.sketch)
                open_slot = None  # told, in this window and in all that are longer
            within = _sum([within, *joining])
            yield name, Window(within, max(1.0, now_s - max(begins * SLOT_S, first_at_s)))

    def _put_together(self, now: int) -> _Parts:
        closed = self._slots[:-1]
        places: list[tuple[int, int]] = [_PLACE.unpack_from(packed) for packed in closed]
        until = now + _LONGEST_SLOTS
        sources: list[list[bytes]] = []
        earliest: list[int] = []
        position = len(closed)
        for length in _WINDOW_SLOTS.values():
            before = position
            while position and places[position - 1][0] > now - length:
                position -= 1
            sources.append(closed[position:before])
            earliest.append(sum(places[position - 1]) if position else 0)
            if position < len(closed):
                until = min(until, places[position][0] + length)  # the first in it is the next to fall out
        sources.append([*closed[:position], *([] if self._older is None else [self._older])])
        packed: list[bytes] = []
        for source, known, known_source in zip(sources, self._parts.packed, self._parts.sources, strict=True):
            together = known if source == known_source else self._packed_sum(source)
            # Values that are spread without end make it large: then it is put together at each reading instead.
            has_room = sum(map(len, packed)) + len(together) <= MAX_KEPT_BYTES
            packed.append(together if has_room else b"")
        return _Parts(now, until, tuple(sources), tuple(packed), (*earliest, 0))

    @staticmethod
    def _packed_sum(slots: list[bytes]) -> bytes:
        return _sum([_unpacked(packed).sketch for packed in slots]).pack(is_final=True) if len(slots) > 1 else b""


def _sum(several: Sequence[Sketch]) -> Sketch:
    sketch = Sketch()
    sketch.add_all(several)
    return sketch


def _level(age: int) -> int:
    # The oldest slot may begin before the longest window does.
    return next((level for level, (until, _) in enumerate(_LEVELS) if age < until), len(_LEVELS) - 1)


def _joined(one: bytes | None, other: bytes) -> bytes:
    if one is None:
        return other
    first, second = _unpacked(one), _unpacked(other)
    first.sketch.add(second.sketch)
    return first._replace(length=second.start + second.length - first.start).packed(is_final=True)
