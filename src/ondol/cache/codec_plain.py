"""decision: plain data as msgpack with strict types: what msgpack has no type for is one of its extension types.

The value is first walked in Python: only that finds a ``bytearray``, a subclass or what cannot be encoded, and says
where. Lists and dicts of simple items are handed to msgpack as they are.
"""

from __future__ import annotations

import sys
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.codec_arrays import RefusedError, array_of, array_parts, is_array, is_scalar, scalar_bytes, scalar_of
from ondol.cache.codec_moments import MOMENT_KINDS, moment_of, moment_parts
from ondol.errors import CorruptEntryError
from ondol.extras import import_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["MAX_DEPTH", "pack", "unpack"]

MAX_DEPTH: Final = 64
"""Deepest nesting of containers; one that holds itself ends here as an error."""

_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
"""What msgpack keeps exactly; integers beyond 64 bits come back to ``_big_int``."""

_TUPLE, _SET, _FROZENSET, _DICT = 1, 2, 3, 4
_BIG_INT, _COMPLEX, _BYTEARRAY, _UUID, _DECIMAL, _ARRAY, _SCALAR = 16, 17, 18, 19, 20, 21, 22

_BUFFER_BYTES: Final = 4096
"""What the packer begins with; it grows."""

_new: Final = tuple.__new__
"""Makes msgpack's ``ExtType`` without its checks, which take as long as packing it."""

_TWO_FLOATS: Final = Struct("<dd")

_MODULES: Final = {"UUID": "uuid", "Decimal": "decimal"}


def pack(value: object) -> bytes:
    """Return ``value`` as msgpack.

    Raises:
        RefusedError: something in it is of a type that is not plain data, or it is nested too deep.
        MissingExtraError: msgpack is not installed.
    """
    packer = _Packer()
    return packer.packed(packer.prepared(value, 0))


class _Packer:
    """Turns one value into what msgpack has types for."""

    def __init__(self) -> None:
        msgpack = _msgpack()
        self._ext_type = msgpack.ExtType
        # One packer for all parts: they are packed one after the other, the innermost first.
        self.packed: Callable[[object], bytes] = msgpack.Packer(
            strict_types=True, unicode_errors="surrogatepass", default=self._big_int, buf_size=_BUFFER_BYTES
        ).pack

    def _ext(self, code: int, data: bytes) -> Any:
        return _new(self._ext_type, (code, data))

    def _big_int(self, value: object) -> Any:
        if type(value) is not int:
            raise RefusedError(f"it is a {_name(type(value))}")
        return self._ext(_BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))

    def prepared(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if depth >= MAX_DEPTH:
            raise RefusedError(f"it is nested deeper than {MAX_DEPTH} levels, or contains itself")
        if kind is list:
            return self._items(value, depth)
        if kind is dict:
            return self._dict(value, depth)
        code = _SEQUENCES.get(kind)
        if code is not None:
            return self._ext(code, self.packed(self._items(list(value), depth)))
        return self._leaf(value, kind, depth)

    def _leaf(self, value: Any, kind: type, depth: int) -> Any:
        coded = _leaf_bytes(value, kind)
        if coded is not None:
            return self._ext(*coded)
        moment = moment_parts(value, kind)
        if moment is None:
            raise RefusedError(f"it is a {_name(kind)}; only plain data and numpy arrays can be")
        code, parts = moment
        return self._ext(code, self.packed([self.prepared(part, depth + 1) for part in parts]))

    def _items(self, values: list[Any], depth: int) -> list[Any]:
        if _are_plain(values):
            return values  # most often it is many numbers or texts: no need to look at each
        prepared = []
        for index, item in enumerate(values):
            try:
                prepared.append(self.prepared(item, depth + 1))
            except RefusedError as exc:
                exc.path.append(f"[{index}]")
                raise
        return prepared

    def _dict(self, value: dict[Any, Any], depth: int) -> Any:
        has_plain_keys = _are_plain(value)
        if has_plain_keys and _are_plain(value.values()):
            return value
        keys, items = [], []
        for key, item in value.items():
            try:
                keys.append(self.prepared(key, depth + 1))
                items.append(self.prepared(item, depth + 1))
            except RefusedError as exc:
                exc.path.append(f"[{key!r:.80}]")
                raise
        if has_plain_keys:
            return dict(zip(keys, items, strict=True))
        # Pairs, not a map: keys that differ may become extension values that do not (two tuples of NaN).
        return self._ext(_DICT, self.packed([part for pair in zip(keys, items, strict=True) for part in pair]))


_SEQUENCES: Final[dict[type, int]] = {tuple: _TUPLE, set: _SET, frozenset: _FROZENSET}


def _leaf_bytes(value: Any, kind: type) -> tuple[int, bytes] | None:
    leaf = _BUILT_IN.get(kind)
    if leaf is not None:
        return leaf[0], leaf[1](value)
    if is_array(kind):
        return _ARRAY, b"".join(array_parts(value))
    if is_scalar(kind):
        return _SCALAR, scalar_bytes(value)
    if _is_named(kind, "UUID"):
        return _UUID, value.bytes
    return (_DECIMAL, str(value).encode("ascii")) if _is_named(kind, "Decimal") else None


_BUILT_IN: Final[dict[type, tuple[int, Callable[[Any], bytes]]]] = {
    bytearray: (_BYTEARRAY, bytes),
    complex: (_COMPLEX, lambda value: _TWO_FLOATS.pack(value.real, value.imag)),
}


def _are_plain(values: Iterable[Any]) -> bool:
    return set(map(type, values)) <= _PLAIN


def _is_named(kind: type, name: str) -> bool:
    """Whether ``kind`` is the standard library's class of that name; does not import its module."""
    module = _MODULES[name]
    return kind.__name__ == name and kind is getattr(sys.modules.get(module), name, None)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def unpack(data: bytes) -> Any:
    """Return the value that ``pack`` wrote.

    Raises:
        CorruptEntryError: it is not one.
        MissingExtraError: msgpack or, for an array, numpy is not installed.
        Exception: what msgpack or a type of the standard library says about bytes that are no value.
    """
    return _Unpacker().unpacked(data)


class _Unpacker:
    """Makes one value from msgpack; knows how deep in extension types it is."""

    def __init__(self) -> None:
        self._msgpack = _msgpack()
        self._depth = 0

    def unpacked(self, data: bytes) -> Any:
        # The longest array, map, text or extension that msgpack believes in is as long as the data.
        return self._msgpack.unpackb(
            data, strict_map_key=False, unicode_errors="surrogatepass", ext_hook=self._value_of, use_list=True
        )

    def _value_of(self, code: int, data: bytes) -> Any:
        leaf_of = _LEAVES.get(code)
        if leaf_of is not None:
            return leaf_of(data)
        if self._depth >= MAX_DEPTH:
            raise CorruptEntryError(f"an entry's value is nested deeper than {MAX_DEPTH} levels")
        self._depth += 1
        parts = self.unpacked(data)
        self._depth -= 1
        if type(parts) is not list:
            raise CorruptEntryError("an entry's value holds a container that is none")
        return self._made(code, parts)

    def _made(self, code: int, parts: list[Any]) -> Any:
        if code in MOMENT_KINDS:
            return moment_of(code, parts)
        container_of = _CONTAINERS.get(code)
        if container_of is None:
            raise CorruptEntryError(f"an entry's value holds something of unknown kind {code}")
        return container_of(parts)


def _dict_of(parts: list[Any]) -> dict[Any, Any]:
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _complex_of(data: bytes) -> complex:
    return complex(*_TWO_FLOATS.unpack(data))


def _uuid_of(data: bytes) -> Any:
    from uuid import UUID  # noqa: PLC0415  # not every program has one in its cache

    return UUID(bytes=data)


def _decimal_of(data: bytes) -> Any:
    from decimal import Decimal  # noqa: PLC0415  # not every program has one in its cache

    return Decimal(data.decode("ascii"))


_CONTAINERS: Final[dict[int, Callable[[list[Any]], Any]]] = {
    _TUPLE: tuple,
    _SET: set,
    _FROZENSET: frozenset,
    _DICT: _dict_of,
}
_LEAVES: Final[dict[int, Callable[[bytes], Any]]] = {
    _BIG_INT: lambda data: int.from_bytes(data, "little", signed=True),
    _COMPLEX: _complex_of,
    _BYTEARRAY: bytearray,
    _UUID: _uuid_of,
    _DECIMAL: _decimal_of,
    _ARRAY: lambda data: array_of(data, 0, len(data)),
    _SCALAR: scalar_of,
}


def _msgpack() -> Any:
    # An optional package, wanted by the tiers behind the memory only.
    return import_extra("msgpack", package="msgpack", extra="disk", purpose="keeping plain data outside of memory")
