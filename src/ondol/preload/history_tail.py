"""decision: the bytes of the tail: the uses since a snapshot, appended as they come, each flush with a checksum.

::

    header   b"ondoltl1", generation (8 bytes), CRC-32 of both
    record   length of the payload (u32), CRC-32 (u32), payload; all numbers little-endian
    payload  number of new names, (length, UTF-8) of each;
             number of uses, (name's number, milliseconds since the one before) of each;
             milliseconds from the last use to the moment of writing; each number a varint

A name has a number from its first use on. The checksums of records go on from the header's, so that a record of
another tail is none of this one. A record that is cut off or damaged ends the tail; what came before it counts.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["GENERATION_BYTES", "MAX_TAIL_BYTES", "MAX_TAIL_USES", "Tail", "TailContent", "read_tail"]

MAX_TAIL_BYTES: Final = 1024 * 1024
MAX_TAIL_USES: Final = 100_000
"""A start replays them one by one, so their number is bounded, too."""
GENERATION_BYTES: Final = 8

_MAGIC: Final = b"ondoltl1"
_HEADER: Final = struct.Struct(f"<8s{GENERATION_BYTES}sI")
_FRAME: Final = struct.Struct("<II")
_MAX_SHIFT: Final = 63


class TailContent(NamedTuple):
    """What a tail says."""

    generation: bytes | None
    """The snapshot it belongs to; ``None`` when the header is not whole."""
    uses: tuple[tuple[str, float], ...]
    moment_s: float
    is_torn: bool
    """Whether it ends within a record."""
    fault: str
    """What is wrong with the bytes; empty when nothing is."""


class Tail:
    """Encodes one tail from its beginning.

    >>> tail = Tail(b"12345678")
    >>> data = tail.header + tail.record([("m", 0.5), ("m", 2.0)], 3.0)
    >>> len(data), read_tail(data).uses, read_tail(data).moment_s
    (40, (('m', 0.5), ('m', 2.0)), 3.0)
    """

    def __init__(self, generation: bytes) -> None:
        """Begin a tail that belongs to the snapshot of that generation."""
        self.header = _header(generation)
        self.size_bytes = len(self.header)
        self.uses = 0
        self._seed = _crc(generation)
        self._numbers: dict[str, int] = {}
        self._at_ms = 0

    def record(self, uses: Iterable[tuple[str, float]], moment_s: float) -> bytes | None:
        """Return the bytes to append; ``None`` when the tail is full, and then nothing may be appended any more.

        Times that go back are taken for the one before.
        """
        names, body, count = bytearray(), bytearray(), 0
        known = len(self._numbers)
        for name, since_s in uses:
            number = self._numbers.get(name)
            if number is None:
                number = self._numbers[name] = len(self._numbers)
                raw = name.encode("utf-8", "surrogatepass")
                _put(names, len(raw))
                names += raw
            _put(body, number)
            self._put_time(body, since_s)
            count += 1
        payload = bytearray()
        _put(payload, len(self._numbers) - known)
        payload += names
        _put(payload, count)
        payload += body
        self._put_time(payload, moment_s)
        self.size_bytes += _FRAME.size + len(payload)
        self.uses += count
        if self.size_bytes > MAX_TAIL_BYTES or self.uses > MAX_TAIL_USES:
            return None
        return _FRAME.pack(len(payload), zlib.crc32(payload, self._seed)) + payload

    def _put_time(self, out: bytearray, since_s: float) -> None:
        ms = max(self._at_ms, round(since_s * 1000))
        _put(out, ms - self._at_ms)
        self._at_ms = ms


def read_tail(data: bytes) -> TailContent:
    """Return what ``data`` says up to the first record that is not whole. Never fails."""
    if len(data) < _HEADER.size:
        return TailContent(None, (), 0.0, bool(data), "")
    generation = _HEADER.unpack_from(data)[1]
    if _header(generation) != data[: _HEADER.size]:
        return TailContent(None, (), 0.0, is_torn=False, fault="its header is damaged")
    seed, reader, place = _crc(generation), _Reader(), _HEADER.size
    is_torn, fault = False, ""
    while place < len(data) and not is_torn:
        begin = place + _FRAME.size
        size, crc = _FRAME.unpack_from(data, place) if begin <= len(data) else (len(data), 0)
        place = begin + size
        if is_torn := place > len(data):
            break
        payload = data[begin:place]
        if zlib.crc32(payload, seed) != crc:
            fault = f"the record at byte {begin - _FRAME.size} is damaged"
            break
        try:
            reader.read(payload)
        except (IndexError, ValueError) as exc:
            fault = f"the record at byte {begin - _FRAME.size} is none: {exc}"
            break
    return TailContent(generation, tuple(reader.uses), reader.moment_ms / 1000, is_torn, fault)


class _Reader:
    """Goes through the payloads of one tail."""

    def __init__(self) -> None:
        self.uses: list[tuple[str, float]] = []
        self.moment_ms = 0
        self._names: list[str] = []
        self._data = b""
        self._place = 0

    def read(self, payload: bytes) -> None:
        """Add what one payload says: all of it, or nothing when it is none."""
        self._data, self._place = payload, 0
        names = [*self._names, *(self._text() for _ in range(self._number()))]
        at_ms, uses = self.moment_ms, []
        for _ in range(self._number()):
            name = names[self._number()]
            at_ms += self._number()
            uses.append((name, at_ms / 1000))
        at_ms += self._number()
        if self._place != len(payload):
            message = "it is longer than what it says"
            raise ValueError(message)
        self._names, self.moment_ms = names, at_ms
        self.uses += uses

    def _number(self) -> int:
        number = shift = 0
        while True:
            byte = self._data[self._place]
            self._place += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7
            if shift > _MAX_SHIFT:
                message = "a number is too large"
                raise ValueError(message)

    def _text(self) -> str:
        end = self._number() + self._place
        if end > len(self._data):
            message = "a name is cut off"
            raise ValueError(message)
        text = self._data[self._place : end].decode("utf-8", "surrogatepass")
        self._place = end
        return text


def _header(generation: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, generation, _crc(generation))


def _crc(generation: bytes) -> int:
    return zlib.crc32(_MAGIC + generation)


def _put(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
