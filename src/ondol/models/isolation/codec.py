"""decision: plain data as JSON and raw buffers, so that nothing another process wrote is ever unpickled.

What goes through: ``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``, ``bytearray``, ``list``, ``tuple``,
``dict``, ``set``, ``frozenset``, numpy arrays and scalars of plain dtypes. Types come out as they went in, and only
exactly these types go in: a subclass would lose what it adds. The one exception is ``numpy.memmap``, which is what a
part of mapped weights is: it comes out as an array.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.errors import UnencodableValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np

__all__ = ["MAX_DEPTH", "Encoded", "MalformedMessageError", "decode", "encode"]

MAX_DEPTH: Final = 64
_TAG: Final = "$"
_PLAIN: Final = frozenset({type(None), bool, float, str})
_ARRAY_KINDS: Final = frozenset("biufcmMSUV")
_DTYPE: Final = re.compile(r"[<>|][biufcmMSUV][0-9]{1,10}(\[[0-9]*[A-Za-z]{1,2}\])?")
_MIN_INT: Final = -(1 << 63)
_MAX_INT: Final = (1 << 64) - 1
"""Integers beyond these are written in hexadecimal: reading many decimal digits takes too long, and is limited."""


class MalformedMessageError(ValueError):
    """Bytes that are no message of this codec."""


class Encoded(NamedTuple):
    """A value ready to be sent. The buffers are views: what they show must not change until they were sent."""

    header: bytes
    buffers: list[memoryview]


class _RefusedError(Exception):
    """Why a value cannot be encoded, and where it stands (innermost part first)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path: list[str] = []


def encode(value: object, *, place: str = "value") -> Encoded:
    """Return ``value`` as a JSON header and the raw bytes beside it.

    Args:
        value: what to encode.
        place: how the error calls it.

    Raises:
        UnencodableValueError: something in it is of another type; the message names the type and where it stands.

    Cost: O(number of items); arrays that are contiguous are not copied.
    """
    packer = _Packer()
    try:
        packed = packer.pack(value, 0)
    except _RefusedError as exc:
        message = f"{place}{''.join(reversed(exc.path))} cannot be sent between processes: {exc}"
        raise UnencodableValueError(message) from None
    except MemoryError:
        raise
    except Exception as exc:
        message = f"{place} cannot be sent between processes: {type(exc).__name__}: {exc}"
        raise UnencodableValueError(message) from exc  # such as a dictionary that a thread changes meanwhile
    text = json.dumps(packed, ensure_ascii=False, check_circular=False, separators=(",", ":"))
    return Encoded(text.encode("utf-8", "surrogatepass"), packer.buffers)


class _Packer:
    """Turns one value into what JSON can hold, and gathers its buffers."""

    def __init__(self) -> None:
        self.buffers: list[memoryview] = []

    def pack(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is int:
            return value if _MIN_INT <= value <= _MAX_INT else {_TAG: ["int", hex(value)]}
        if depth >= MAX_DEPTH:
            raise _RefusedError(f"it is nested deeper than {MAX_DEPTH} levels, or contains itself")
        return self._dict(value, depth) if kind is dict else self._object(value, kind, depth)

    def _object(self, value: Any, kind: type, depth: int) -> Any:
        if kind is list:
            return self._items(value, depth)
        if kind in {tuple, set, frozenset}:
            return {_TAG: [kind.__name__, self._items(value, depth)]}
        if kind in {bytes, bytearray}:
            return {_TAG: [kind.__name__, self._buffer(memoryview(value))]}
        if _is_numpy(kind):
            return self._numpy(value)
        raise _RefusedError(f"it is a {kind.__module__}.{kind.__qualname__}, only plain data and numpy arrays can be")

    def _buffer(self, view: memoryview) -> int:
        self.buffers.append(view)
        return len(self.buffers) - 1

    def _items(self, values: Iterable[Any], depth: int) -> list[Any]:
        values = list(values)
        kinds = set(map(type, values))
        if kinds <= _PLAIN or (kinds == {int} and min(values) >= _MIN_INT and max(values) <= _MAX_INT):
            return values  # most often it is many numbers or texts: no need to look at each
        packed = []
        for index, item in enumerate(values):
            try:
                packed.append(self.pack(item, depth + 1))
            except _RefusedError as exc:
                exc.path.append(f"[{index}]")
                raise
        return packed

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        is_object = _TAG not in value and all(type(key) is str for key in value)
        packed = []
        for key, item in value.items():
            try:
                packed.append((key if is_object else self.pack(key, depth + 1), self.pack(item, depth + 1)))
            except _RefusedError as exc:
                exc.path.append(f"[{key!r:.80}]")
                raise
        return dict(packed) if is_object else {_TAG: ["dict", packed]}

    def _numpy(self, value: Any) -> dict[str, Any]:
        dtype = value.dtype
        if dtype.kind not in _ARRAY_KINDS or dtype.fields or dtype.subdtype or not _is_told_by_text(dtype):
            raise _RefusedError(f"it holds the numpy dtype {dtype}, only plain numbers, times, texts and bytes can be")
        if not _is_array(type(value)):
            return {_TAG: ["scalar", self._buffer(memoryview(value.tobytes())), dtype.str]}
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        index = self._buffer(_bytes_of(value.T if order == "F" else value))
        return {_TAG: ["array", index, dtype.str, list(value.shape), order]}


def _is_array(kind: type) -> bool:
    return kind.__name__ in {"ndarray", "memmap"}


def _is_numpy(kind: type) -> bool:
    """Tell whether ``kind`` is numpy's array (not a subclass but the one for mapped files) or one of its scalars."""
    return kind.__module__ == "numpy" and (_is_array(kind) or "generic" in {c.__name__ for c in kind.mro()})


def _is_told_by_text(dtype: Any) -> bool:
    """Tell whether ``dtype.str`` says all there is about ``dtype`` (not so for extension types)."""
    import numpy as np  # noqa: PLC0415  # whoever holds an array has imported it

    return bool(np.dtype(dtype.str) == dtype)


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    import numpy as np  # noqa: PLC0415  # whoever holds an array has imported it

    if not array.size or not array.dtype.itemsize:
        return memoryview(b"")
    flat: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return memoryview(flat)


def decode(header: bytes | bytearray, buffers: list[bytearray]) -> Any:
    """Return the value that ``encode`` made ``header`` and ``buffers`` of. Arrays keep the buffers as their memory.

    Each buffer may be used once: or a short message could unfold into any number of copies of a long buffer.

    Raises:
        MalformedMessageError: they are no such thing.
    """
    try:
        return _unpack(json.loads(header.decode("utf-8", "surrogatepass")), _Buffers(buffers), 0)
    except MalformedMessageError:
        raise
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as exc:
        message = f"not a message: {type(exc).__name__}: {exc}"
        raise MalformedMessageError(message) from exc


class _Buffers:
    """The buffers of one message, each for one use."""

    def __init__(self, buffers: list[bytearray]) -> None:
        self._left = dict(enumerate(buffers))

    def take(self, index: int) -> bytearray:
        return self._left.pop(index)


def _unpack(packed: Any, buffers: _Buffers, depth: int) -> Any:
    kind = type(packed)
    if kind is list:
        return _unpack_items(packed, buffers, depth)
    if kind is not dict:
        return packed
    if depth > 3 * MAX_DEPTH:
        raise MalformedMessageError("not a message: nested too deeply")
    tagged = packed.get(_TAG)
    if tagged is None:
        return {key: _unpack(item, buffers, depth + 1) for key, item in packed.items()}
    name, *rest = tagged
    if name == "dict":
        return {_unpack(key, buffers, depth + 1): _unpack(item, buffers, depth + 1) for key, item in rest[0]}
    if name in _COLLECTIONS:
        return _COLLECTIONS[name](_unpack_items(rest[0], buffers, depth + 1))
    return _LEAVES[name](buffers, *rest)


def _unpack_items(packed: list[Any], buffers: _Buffers, depth: int) -> list[Any]:
    if depth > 3 * MAX_DEPTH:
        raise MalformedMessageError("not a message: nested too deeply")
    kinds = set(map(type, packed))
    if dict not in kinds and list not in kinds:
        return packed
    return [_unpack(item, buffers, depth + 1) for item in packed]


def _unpack_array(buffers: _Buffers, index: int, dtype: str, shape: list[int], order: str) -> Any:
    import numpy as np  # noqa: PLC0415  # only a message with arrays needs it

    plain = _plain_dtype(dtype)
    buffer = buffers.take(index)
    is_shape = all(type(length) is int and length >= 0 for length in shape) and order in {"C", "F"}
    if not is_shape or math.prod(shape) * plain.itemsize != len(buffer):
        raise MalformedMessageError("not a message: an array of no possible shape")
    if not buffer:
        return np.empty(shape, dtype=plain, order="F" if order == "F" else "C")
    array = np.frombuffer(buffer, dtype=plain)
    return array.reshape(shape[::-1]).T if order == "F" else array.reshape(shape)


def _unpack_scalar(buffers: _Buffers, index: int, dtype: str) -> Any:
    import numpy as np  # noqa: PLC0415  # only a message with numpy values needs it

    plain = _plain_dtype(dtype)
    buffer = buffers.take(index)
    if plain.kind == "S":  # these three as a whole: from an array they would come without their last zeros
        return np.bytes_(bytes(buffer))
    if plain.kind == "U":
        return np.str_(buffer.decode("utf-32-be" if dtype[0] == ">" else "utf-32-le", "surrogatepass"))
    if plain.kind == "V":
        return np.void(bytes(buffer))
    return np.frombuffer(buffer, dtype=plain)[0]


def _plain_dtype(text: str) -> np.dtype[Any]:
    """Return the dtype; only what ``dtype.str`` may say of one is ever shown to numpy's own, richer reading."""
    import numpy as np  # noqa: PLC0415  # only a message with numpy values needs it

    if not _DTYPE.fullmatch(text):
        raise MalformedMessageError("not a message: an array of no plain dtype")
    return np.dtype(text)


_COLLECTIONS: Final[Mapping[str, Callable[[list[Any]], Any]]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_LEAVES: Final[Mapping[str, Callable[..., Any]]] = {
    "int": lambda _buffers, text: int(text, 16),
    "bytes": lambda buffers, index: bytes(buffers.take(index)),
    "bytearray": lambda buffers, index: buffers.take(index),
    "array": _unpack_array,
    "scalar": _unpack_scalar,
}
