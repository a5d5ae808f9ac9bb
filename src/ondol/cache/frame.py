"""decision: what lies in a tier behind the memory tier: a value's bytes with times, tags, its key and a checksum.

A frame is: a fixed head (``ond``, a version, flags, lengths, times), the key (or a digest of a long one), the tags, the
value by :mod:`ondol.cache.codec`, and the CRC-32 of all that.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn
from zlib import crc32

from ondol.cache.codec import decode_part, encode_parts
from ondol.errors import CorruptEntryError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FrameTimes", "StoredEntry", "decode_frame", "encode_frame", "frame_times"]

_MAGIC: Final = b"ond"
_VERSION: Final = 1
_MARK: Final = _MAGIC + bytes((_VERSION,))
_MARK_BYTES: Final = len(_MARK)
_HEAD: Final = Struct("<BBHddddd")
_pack, _unpack = _HEAD.pack, _HEAD.unpack_from
_START: Final = len(_MARK) + _HEAD.size
_CHECKSUM_BYTES: Final = 4
_MIN_BYTES: Final = _START + _CHECKSUM_BYTES
_RESIDUE: Final = 0x2144DF1C
"""The CRC-32 of anything with its own CRC-32 (little-endian) at the end."""
_HAS_FRESH, _HAS_EXPIRY, _HAS_IDLE = 0x1, 0x2, 0x4
_HAS_TIMES: Final = _HAS_FRESH | _HAS_EXPIRY | _HAS_IDLE
_IS_DIGEST: Final = 0x8
_MAX_KEY_BYTES: Final = 255
_DIGEST_BYTES: Final = 32
_LENGTH: Final = Struct("<H")
_MAX_TAGS: Final = 0xFFFF

_new: Final = tuple.__new__
"""Makes a named tuple in half the time that its own constructor takes."""


class StoredEntry(NamedTuple):
    """A value and what is known of it, in wall-clock seconds: what goes into a frame and comes out of it."""

    value: Any
    cost_s: float
    created_at_s: float
    fresh_until_s: float | None = None
    expires_at_s: float | None = None
    idle_ttl_s: float | None = None
    tags: tuple[str, ...] = ()


class FrameTimes(NamedTuple):
    """The times of a frame, read without its value."""

    cost_s: float
    created_at_s: float
    fresh_until_s: float | None
    expires_at_s: float | None
    idle_ttl_s: float | None


def encode_frame(key: str, stored: StoredEntry) -> bytes:
    """Return the frame of ``stored`` under the canonical ``key``.

    Raises:
        UnencodableValueError: its value cannot be kept outside of memory; the message says why.
        MissingExtraError: msgpack is needed and not installed.
        ValueError: more than 65,535 tags, or one longer than as many bytes.

    Cost: that of ``encode``, and about 2 µs.
    """
    value, cost_s, created_at_s, fresh_until_s, expires_at_s, idle_ttl_s, tags = stored
    tag, payload = encode_parts(value)
    flags, raw_key = _key_check(key)
    if fresh_until_s is not None:
        flags |= _HAS_FRESH
    if expires_at_s is not None:
        flags |= _HAS_EXPIRY
    if idle_ttl_s is not None:
        flags |= _HAS_IDLE
    packed_tags = _packed_tags(tags) if tags else b""
    times = (cost_s, created_at_s, fresh_until_s or 0.0, expires_at_s or 0.0, idle_ttl_s or 0.0)
    head = _pack(flags, len(raw_key), len(tags), *times)
    body = b"".join((_MARK, head, raw_key, packed_tags, tag, payload))
    return body + crc32(body).to_bytes(_CHECKSUM_BYTES, "little")


def decode_frame(key: str, data: bytes | memoryview) -> StoredEntry:
    """Return what ``encode_frame`` put under ``key``.

    Raises:
        CorruptEntryError: damaged, cut off, of another key or of an unknown version; the message says which.
        MissingExtraError: numpy or msgpack is needed and not installed.

    Cost: that of ``decode``, and about 2 µs.
    """
    frame = data if type(data) is bytes else bytes(data)
    if frame[:_MARK_BYTES] != _MARK or len(frame) < _MIN_BYTES:
        _refuse(frame)
    flags, key_length, tag_count, cost_s, created_at_s, fresh_s, expires_s, idle_s = _unpack(frame, _MARK_BYTES)
    if crc32(frame) != _RESIDUE:
        raise CorruptEntryError("a frame is damaged or cut off: its checksum does not fit")
    start, end = _START + key_length, len(frame) - _CHECKSUM_BYTES
    if flags & _IS_DIGEST or not key.isascii() or frame[_START:start] != key.encode():
        _check_key(key, flags, frame[_START:start])
    tags: tuple[str, ...] = ()
    if tag_count:
        tags, start = _read_tags(frame, start, tag_count)
    value = decode_part(frame, start, end)
    if flags & _HAS_TIMES:
        return StoredEntry(value, cost_s, created_at_s, *_given(flags, fresh_s, expires_s, idle_s), tags)
    return _new(StoredEntry, (value, cost_s, created_at_s, None, None, None, tags))


def frame_times(data: bytes | memoryview) -> FrameTimes:
    """Return the times of a frame; neither its checksum nor its key is looked at.

    Raises:
        CorruptEntryError: not the beginning of a frame.

    Cost: under a microsecond, whatever the size.
    """
    head = bytes(data[:_MIN_BYTES])
    if not head.startswith(_MARK) or len(head) < _MIN_BYTES:
        _refuse(head)
    flags, _, _, cost_s, created_at_s, *times = _unpack(head, _MARK_BYTES)
    return FrameTimes(cost_s, created_at_s, *_given(flags, *times))


def _refuse(frame: bytes) -> NoReturn:
    if len(frame) < _MIN_BYTES:
        raise CorruptEntryError(f"a frame is cut off: it has {len(frame)} bytes")
    if not frame.startswith(_MAGIC):
        raise CorruptEntryError("not a frame: it begins with something else")
    version = frame[len(_MAGIC)]
    raise CorruptEntryError(f"a frame of version {version}; this ondol reads version {_VERSION}")


def _given(
    flags: int, fresh_until_s: float, expires_at_s: float, idle_ttl_s: float
) -> tuple[float | None, float | None, float | None]:
    return (
        fresh_until_s if flags & _HAS_FRESH else None,
        expires_at_s if flags & _HAS_EXPIRY else None,
        idle_ttl_s if flags & _HAS_IDLE else None,
    )


def _key_check(key: str) -> tuple[int, bytes]:
    """Return by which bytes a frame knows its key, and the flag that says how."""
    try:
        raw = key.encode()
    except UnicodeEncodeError:
        raw = key.encode("utf-8", "surrogatepass")  # always right, but three times as long on the way
    if len(raw) <= _MAX_KEY_BYTES:
        return 0, raw
    from hashlib import blake2b  # noqa: PLC0415  # loads OpenSSL, which programs without long keys need not wait for

    return _IS_DIGEST, blake2b(raw, digest_size=_DIGEST_BYTES).digest()


def _check_key(key: str, flags: int, raw_key: bytes) -> None:
    """Refuse a frame of another key, whatever the form of the key; short ones of ASCII need not come here."""
    if (flags & _IS_DIGEST, raw_key) != _key_check(key):
        raise CorruptEntryError("a frame belongs to another key")


def _packed_tags(tags: Sequence[str]) -> bytes:
    parts: list[bytes] = []
    if len(tags) > _MAX_TAGS:
        raise ValueError(f"an entry may have {_MAX_TAGS} tags, not {len(tags)}")
    for tag in tags:
        raw = tag.encode("utf-8", "surrogatepass")
        if len(raw) > _MAX_TAGS:
            raise ValueError(f"a tag may have {_MAX_TAGS} bytes, not {len(raw)}: {tag!r:.40}")
        parts += (_LENGTH.pack(len(raw)), raw)
    return b"".join(parts)


def _read_tags(frame: bytes, start: int, count: int) -> tuple[tuple[str, ...], int]:
    tags = []
    for _ in range(count):
        if start + _LENGTH.size > len(frame):
            raise CorruptEntryError("a frame's tags do not add up")
        (length,) = _LENGTH.unpack_from(frame, start)
        start += _LENGTH.size
        try:
            tags.append(str(frame[start : start + length], "utf-8", "surrogatepass"))
        except UnicodeDecodeError as exc:
            raise CorruptEntryError("a frame's tags are no text") from exc
        start += length
    return tuple(tags), start
