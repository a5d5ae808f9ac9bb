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
    from collections.abc import Iterator, Mapping

    from ondol.monitor.counting import Batch

__all__ = ["MAX_PACKED_BYTES", "SLOT_S", "Window", "Windows"]

SLOT_S: Final = 10.0

MAX_PACKED_BYTES: Final = 10_500
"""Most bytes that the packed slots of a series take together, their objects included."""

_LEVELS: Final = (
    (6, (1, 2, 3, 6)),
    (30, (6, 10, 15, 30)),
    (360, (60, 90, 120, 180, 360)),
    (8640, (1080, 2160, 4320, 8640)),
)
"""For slots younger than so many slots: how long they are, and may become when they take too much room."""

_LONGEST_SLOTS: Final = _LEVELS[-1][0]
_WINDOW_SLOTS: Final[Mapping[str, int]] = {name: int(length_s / SLOT_S) for name, length_s in WINDOWS_S.items()}
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


class Windows:
    """The slots of one series, newest last. Not thread-safe: its owner locks."""

    __slots__ = ("_coarseness", "_older", "_slots")

    def __init__(self) -> None:
        """Begin empty."""
        self._slots: list[bytes] = []
        self._older: bytes | None = None
        self._coarseness = bytearray(len(_LEVELS))

    def add(self, batch: Batch, at_s: float) -> Sketch | None:
        """Count ``batch`` at ``at_s`` (monotonic seconds); return the sketch of the slot that this closed, if any.

        What comes out of order is counted in the newest slot.
        """
        now = max(0, int(at_s // SLOT_S))
        newest = _unpacked(self._slots[-1]) if self._slots else None
        closed: Sketch | None = None
        if newest is None or now > newest.start:
            if newest is not None:
                closed = newest.sketch
                self._slots[-1] = newest.packed(is_final=True)
                if now // _AGEING_SLOTS != newest.start // _AGEING_SLOTS:
                    self._age(now)
            newest = _Slot(now, 1, Sketch())
            self._slots.append(b"")
        newest.sketch.add(batch)
        self._slots[-1] = newest.packed(is_final=False)
        return closed

    def newest(self) -> Sketch:
        """Return what the slot that is open has seen."""
        return _unpacked(self._slots[-1]).sketch if self._slots else Sketch()

    def _age(self, now: int) -> None:
        self._coarsen(now)
        while self.packed_bytes > MAX_PACKED_BYTES and self._widen(now):
            self._coarsen(now)

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
        """Return all windows by name."""
        return dict(self._windows(now_s, first_at_s))

    def _windows(self, now_s: float, first_at_s: float) -> Iterator[tuple[str, Window]]:
        now = int(now_s // SLOT_S)
        within = Sketch()
        position = len(self._slots)
        for name, length in _WINDOW_SLOTS.items():
            begins = now - length + 1
            joining = []
            while position and _PLACE.unpack_from(self._slots[position - 1])[0] >= begins:
                position -= 1
                joining.append(_unpacked(self._slots[position]).sketch)
            grown = Sketch()
            grown.add_all([within, *joining])
            within = grown
            if position:
                start, width = _PLACE.unpack_from(self._slots[position - 1])
                begins = max(begins, start + width)  # what reaches into the window is left out as a whole
            yield name, Window(within, max(1.0, now_s - max(begins * SLOT_S, first_at_s)))

    def whole(self) -> Sketch:
        """Return what came ever."""
        sketch = Sketch()
        parts = [_unpacked(packed).sketch for packed in self._slots]
        if self._older is not None:
            parts.append(_unpacked(self._older).sketch)
        sketch.add_all(parts)
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
