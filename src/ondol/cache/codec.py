"""decision: values as bytes and back, for the tiers behind the memory tier; nothing is ever unpickled or imported.

One byte says the kind, then: an array is a raw header and its buffer; text is UTF-8, compressed when that pays; bytes
are themselves; everything else is msgpack with strict types (:mod:`ondol.cache.codec_plain`).

>>> decode(encode({"name": "Mina", "scores": (1, 2.5)}))
{'name': 'Mina', 'scores': (1, 2.5)}
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ondol.cache.codec_arrays import ARRAY, RefusedError, array_of, array_parts, is_array
from ondol.cache.codec_plain import pack, unpack
from ondol.errors import CorruptEntryError, MissingExtraError, UnencodableValueError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_UNPACKED_BYTES", "decode", "decode_part", "encode", "encode_parts"]

TEXT, BYTES, BYTEARRAY, PLAIN = 0x02, 0x03, 0x04, 0x05
_IS_COMPRESSED: Final = 0x80
_COMPRESSED: Final = frozenset({TEXT | _IS_COMPRESSED, PLAIN | _IS_COMPRESSED})

MAX_UNPACKED_BYTES: Final = 256 * 1024 * 1024
"""Larger texts are not compressed, and nothing that says it becomes larger is unpacked."""

_MIN_COMPRESSED_BYTES: Final = 1024
_SAMPLE_BYTES: Final = 1024
_PAYS_RATIO: Final = 0.85
_LEVEL: Final = 1
_SIZE_BYTES: Final = 4


def encode(value: object) -> bytes:
    """Return ``value`` as bytes from which ``decode`` makes an equal one of the same types.

    These go through: ``None``, ``bool``, ``int``, ``float``, ``complex``, ``str``, ``bytes``, ``bytearray``, ``list``,
    ``tuple``, ``dict`` (its order kept), ``set``, ``frozenset``, ``Decimal``, ``UUID``, the types of ``datetime`` with
    ``timezone`` or ``ZoneInfo``, numpy arrays and scalars of plain dtypes; exactly these types, 64 levels deep at most.

    Raises:
        UnencodableValueError: something in it is of another type; the message names the type and where it stands.
        MissingExtraError: msgpack is not installed and the value is neither text, bytes nor an array.

    Cost: O(size); a third of a microsecond for a small array, a few for plain data, 10 ms a megabyte for text.
    """
    return b"".join(encode_parts(value))


def encode_parts(value: object) -> tuple[Any, Any]:
    """Return what ``encode`` joins: the second part may be a view of the value's memory, to be used at once.

    Raises:
        UnencodableValueError: as ``encode``.
        MissingExtraError: as ``encode``.
    """
    kind = type(value)
    try:
        parts_of = _PARTS.get(kind)
        if parts_of is not None:
            return parts_of(value)
        if is_array(kind):
            _PARTS[kind] = array_parts  # found at once from now on
            return array_parts(value)
        return _plain_parts(value)
    except RefusedError as exc:
        place = "".join(reversed(exc.path))
        raise UnencodableValueError(f"value{place} cannot be kept outside of memory: {exc}") from None
    except (MissingExtraError, MemoryError):
        raise
    except Exception as exc:
        message = f"the value cannot be kept outside of memory: {type(exc).__name__}: {exc}"
        raise UnencodableValueError(message) from exc  # such as a dictionary that a thread changes meanwhile


def _text_parts(value: str) -> tuple[bytes, bytes]:
    return _squeezed(TEXT, value.encode("utf-8", "surrogatepass"))


def _plain_parts(value: object) -> tuple[bytes, bytes]:
    return _squeezed(PLAIN, pack(value))


_PARTS: Final[dict[type, Callable[[Any], tuple[Any, Any]]]] = {
    str: _text_parts,
    bytes: lambda value: (bytes((BYTES,)), value),
    bytearray: lambda value: (bytes((BYTEARRAY,)), value),
}


def _squeezed(tag: int, raw: bytes) -> tuple[bytes, bytes]:
    if _MIN_COMPRESSED_BYTES <= len(raw) <= MAX_UNPACKED_BYTES and _is_worth_a_try(raw):
        packed = zlib.compress(raw, _LEVEL)
        if len(packed) < _PAYS_RATIO * len(raw):
            return bytes((tag | _IS_COMPRESSED,)) + len(raw).to_bytes(_SIZE_BYTES, "little"), packed
    return bytes((tag,)), raw


def _is_worth_a_try(raw: bytes) -> bool:
    """Whether a piece from the middle shrinks: numbers in floating point do not, and trying all of them is dear."""
    if len(raw) <= 2 * _SAMPLE_BYTES:
        return True
    middle = (len(raw) - _SAMPLE_BYTES) // 2
    sample = raw[middle : middle + _SAMPLE_BYTES]
    return len(zlib.compress(sample, _LEVEL)) < _PAYS_RATIO * _SAMPLE_BYTES


def decode(data: bytes | memoryview) -> Any:
    """Return the value that ``encode`` made ``data`` from.

    Arrays come back with memory of their own, read-only when they were that. No bytes make it do anything but return a
    value or raise ``CorruptEntryError``: no class is looked up, no length is believed that the data does not bear out,
    and nothing unpacks to more than ``MAX_UNPACKED_BYTES``.

    Raises:
        CorruptEntryError: not the bytes of a value.
        MissingExtraError: they are, but numpy or msgpack is not installed.

    Cost: O(size); about a microsecond for a small array.
    """
    if type(data) is not bytes:
        data = bytes(data)
    if data and data[0] == ARRAY:
        return array_of(data, 0, len(data))
    return decode_part(data, 0, len(data))


def decode_part(data: bytes, start: int, end: int) -> Any:
    """Do what ``decode`` does with ``data[start:end]``.

    Raises:
        CorruptEntryError: as ``decode``.
        MissingExtraError: as ``decode``.
    """
    if end <= start:
        raise CorruptEntryError("an entry's value is missing")
    tag = data[start]
    if tag == ARRAY:
        return array_of(data, start, end)
    try:
        raw, value_of = data[start + 1 : end], _VALUES.get(tag)
        if value_of is not None:
            return value_of(raw)
        if tag in _COMPRESSED:
            return _VALUES[tag ^ _IS_COMPRESSED](_unsqueezed(raw))
    except (CorruptEntryError, MissingExtraError):
        raise
    except Exception as exc:  # noqa: BLE001  # what comes from outside may be wrong in every way
        _refuse(exc)
    raise CorruptEntryError(f"an entry's value is of unknown kind {tag}")


def _refuse(exc: Exception) -> NoReturn:
    raise CorruptEntryError(f"an entry's value cannot be read: {type(exc).__name__}: {exc!s:.200}") from exc


def _unsqueezed(raw: bytes) -> bytes:
    size = int.from_bytes(raw[:_SIZE_BYTES], "little")
    if size > MAX_UNPACKED_BYTES:
        raise CorruptEntryError(f"an entry's value says it unpacks to {size} bytes")
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(raw[_SIZE_BYTES:], size + 1)
    except (zlib.error, MemoryError) as exc:
        _refuse(exc)
    if len(found) != size or not unpacker.eof or unpacker.unused_data:
        raise CorruptEntryError("an entry's compressed value has another length than it says")
    return found


_VALUES: Final[dict[int, Callable[[Any], Any]]] = {
    TEXT: lambda raw: str(raw, "utf-8", "surrogatepass"),
    BYTES: bytes,
    BYTEARRAY: bytearray,
    PLAIN: unpack,
}
