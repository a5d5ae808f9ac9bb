"""decision: numpy arrays and scalars as a raw header and their buffer, and back.

Dtypes of kinds ``b i u f c m M S U V`` without fields go through, in either byte order; objects and fields do not. An
array comes back with the dtype, the shape, the memory order (C, or Fortran when it was only that) and the writability
it had, in memory of its own. A view comes back as an array of its own.
"""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from ondol.errors import CorruptEntryError
from ondol.extras import import_extra

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RefusedError", "array_of", "array_parts", "is_array", "is_scalar", "scalar_bytes", "scalar_of"]

ARRAY: Final = 0x01
"""The first byte of an encoded array; it is the codec's tag too, so that nothing need be put before the header."""

_KINDS: Final = frozenset("biufcmMSUV")
_DTYPE: Final = re.compile(r"[<>|][biufcmMSUV][0-9]{1,9}(\[[0-9]{0,9}[A-Za-z]{1,2}\])?")
_C, _F, _WRITEABLE = 0x1, 0x2, 0x400
"""Bits of ``ndarray.flags.num``."""
_LAYOUT: Final = _C | _F | _WRITEABLE
_IS_F, _IS_READ_ONLY = 0x1, 0x2
"""Bits of the header."""
_FLAGS: Final = _IS_F | _IS_READ_ONLY
_PREFIX_BYTES: Final = 6  # tag, length of the header (2), flags, number of dimensions, length of the dtype
_SHORT_HEADER_BYTES: Final = 24
"""Headers are at least as long (filled with zeros), so that the form of a row of numbers is found in one step."""
_MAX_DIMENSIONS: Final = 64
_DIMENSION_BYTES: Final = 8
_KEPT_HEADERS: Final = 1024
_NO_COPY_BYTES: Final = 16_384
"""Smaller buffers are copied once more: that costs less than a view."""
_MAX_CODE_POINT: Final = 0x10FFFF


class RefusedError(Exception):
    """Inside the codec: why a value cannot be encoded; ``path`` says where it stands, innermost part first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path: list[str] = []


class _Form(NamedTuple):
    """What the header of an array says, and numpy's function that makes arrays from buffers."""

    from_buffer: Callable[..., Any]
    dtype: Any
    items: int
    size_bytes: int
    special: _Special | None


class _Special(NamedTuple):
    """What is to be done for arrays that are not simply a row of numbers."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    is_read_only: bool


_headers: Final[dict[Any, tuple[bytes, bool]]] = {}
_forms: Final[dict[bytes, _Form]] = {}


def is_array(kind: type) -> bool:
    """Whether ``kind`` is ``numpy.ndarray`` itself; never imports numpy."""
    if kind.__name__ != "ndarray":
        return False
    numpy = sys.modules.get("numpy")
    return numpy is not None and kind is getattr(numpy, "ndarray", None)


def is_scalar(kind: type) -> bool:
    """Whether ``kind`` is one of numpy's own scalar types; never imports numpy."""
    if kind.__module__ != "numpy":
        return False
    generic = getattr(sys.modules.get("numpy"), "generic", None)
    return generic is not None and issubclass(kind, generic)


def array_parts(array: Any) -> tuple[bytes, Any]:
    """Return the header and the buffer of ``array``; the buffer may be a view of its memory.

    Raises:
        RefusedError: a dtype that holds objects or fields.

    Cost: O(bytes); about a quarter of a microsecond for a small one whose form was met before.
    """
    form = (array.dtype, array.shape, array.flags.num & _LAYOUT)
    found = _headers.get(form)
    if found is None:
        found = _made_header(array, *form)
        _keep(_headers, form, found)
    header, is_small_row = found
    if is_small_row:
        return header, array.tobytes()
    if form[2] & (_C | _F) == _F:
        array = array.T
    return header, array.reshape(-1).view("u1") if form[2] & (_C | _F) else array.tobytes()


def _made_header(array: Any, dtype: Any, shape: tuple[int, ...], layout: int) -> tuple[bytes, bool]:
    """Return the header of arrays of a form, and whether their bytes are had by simply copying them."""
    text = _checked_dtype(dtype).encode("ascii")
    flags = (_IS_F if layout & (_C | _F) == _F else 0) | (0 if layout & _WRITEABLE else _IS_READ_ONLY)
    length = max(_PREFIX_BYTES + len(text) + _DIMENSION_BYTES * len(shape), _SHORT_HEADER_BYTES)
    prefix = bytes((ARRAY, length & 0xFF, length >> 8, flags, len(shape), len(text)))
    header = prefix + text + b"".join(side.to_bytes(_DIMENSION_BYTES, "little") for side in shape)
    return header.ljust(length, b"\0"), bool(layout & _C) and array.nbytes < _NO_COPY_BYTES


def _checked_dtype(dtype: Any) -> str:
    text: str = dtype.str
    if (
        dtype.kind not in _KINDS
        or dtype.fields
        or dtype.subdtype
        or not dtype.itemsize
        or _numpy().dtype(text) != dtype
    ):
        raise RefusedError(f"it has the numpy dtype {dtype}; numbers, times, texts and bytes of fixed size can be")
    return text


def array_of(data: bytes, start: int, end: int) -> Any:
    """Return the array of which ``data[start:end]`` is the header and the buffer.

    Raises:
        CorruptEntryError: it is not one.
        MissingExtraError: numpy is not installed.
    """
    header = data[start : start + _SHORT_HEADER_BYTES]
    form = _forms.get(header)
    if form is None:
        header, form = _looked_up(data[start:end])
    from_buffer, dtype, items, size_bytes, special = form
    buffer_at = start + len(header)
    if end != buffer_at + size_bytes:
        raise CorruptEntryError(f"an array of {size_bytes} bytes has {end - buffer_at}")
    try:
        if special is None:
            # A copy, so that the array is aligned and can be written to, as the one that was put in.
            return from_buffer(data, dtype, items, buffer_at).copy()
        return _finished(data, buffer_at, form, special)
    except (ValueError, TypeError, OverflowError, MemoryError) as exc:
        raise CorruptEntryError(f"an array cannot be made: {exc}") from exc


def _finished(data: bytes, buffer_at: int, form: _Form, special: _Special) -> Any:
    if form.items:
        row = form.from_buffer(data, form.dtype, form.items, buffer_at).copy()
        if form.dtype.kind == "U":
            _check_text(row)
        array = row.reshape(special.shape, order=special.order)
    else:
        array = _numpy().empty(special.shape, form.dtype, special.order)
    if special.is_read_only:
        array.setflags(write=False)
    return array


def _looked_up(data: bytes) -> tuple[bytes, _Form]:
    """Return the header of an array whose form was not met before, or has many dimensions, and what it says."""
    if len(data) < _SHORT_HEADER_BYTES:
        raise CorruptEntryError("an array's header is cut off")
    length = data[1] | data[2] << 8
    header = data[:length]
    form = _forms.get(header)
    if form is None:
        form = _read_form(header, length)
        _keep(_forms, header, form)
    return header, form


def _read_form(header: bytes, length: int) -> _Form:
    flags, dimensions, text_length = header[3:_PREFIX_BYTES] if len(header) > _PREFIX_BYTES else (0, 0, 0)
    start = _PREFIX_BYTES + text_length
    end = start + _DIMENSION_BYTES * dimensions
    is_padded = max(end, _SHORT_HEADER_BYTES) == length == len(header) and not any(header[end:])
    if not is_padded or dimensions > _MAX_DIMENSIONS or flags & ~_FLAGS:
        raise CorruptEntryError("an array's header does not add up")
    dtype = _dtype_of(header[_PREFIX_BYTES:start])
    steps = range(start, end, _DIMENSION_BYTES)
    shape = tuple(int.from_bytes(header[step : step + _DIMENSION_BYTES], "little") for step in steps)
    special = _Special(shape, "F" if flags & _IS_F else "C", bool(flags & _IS_READ_ONLY))
    is_row = len(shape) == 1 and shape[0] and not flags and dtype.kind != "U"
    items = math.prod(shape)
    return _Form(_numpy().frombuffer, dtype, items, items * dtype.itemsize, None if is_row else special)


def _dtype_of(raw: bytes) -> Any:
    text = raw.decode("latin-1")
    if not _DTYPE.fullmatch(text):
        raise CorruptEntryError(f"{text!r:.40} is no dtype of an array")
    numpy = _numpy()
    try:
        dtype = numpy.dtype(text)
    except (TypeError, ValueError, OverflowError) as exc:
        raise CorruptEntryError(f"{text!r} is no dtype of an array here: {exc}") from exc
    if dtype.hasobject or not dtype.itemsize:
        raise CorruptEntryError(f"{text!r} is no dtype of an array")
    return dtype


def _check_text(array: Any) -> None:
    """Refuse code points that Python's own text cannot hold: such an array raises when it is read."""
    points = array.view(f"{array.dtype.str[0]}u4")
    if int(points.max()) > _MAX_CODE_POINT:
        raise CorruptEntryError("an array of texts holds what is no character")


def scalar_bytes(value: Any) -> bytes:
    """Return a numpy scalar as the length of its dtype, its dtype and its bytes.

    Raises:
        RefusedError: it holds objects or fields, or is of a derived class.
    """
    dtype = value.dtype
    if type(value) is not dtype.type or dtype.kind == "V":
        raise RefusedError(f"it is a numpy scalar of type {type(value).__name__}; plain numbers and times can be")
    if dtype.kind == "U":
        return b"\x01U" + str.__str__(value).encode("utf-8", "surrogatepass")
    if dtype.kind == "S":
        return b"\x01S" + bytes(value)
    text = _checked_dtype(dtype).encode("ascii")
    raw: bytes = value.tobytes()
    return bytes((len(text),)) + text + raw


def scalar_of(data: bytes) -> Any:
    """Return the scalar that ``scalar_bytes`` wrote.

    Raises:
        CorruptEntryError: it is not one.
        MissingExtraError: numpy is not installed.
    """
    start = 1 + (data[0] if data else 0)
    text, raw = data[1:start], data[start:]
    if text == b"U":
        return _numpy().str_(raw.decode("utf-8", "surrogatepass"))
    if text == b"S":
        return _numpy().bytes_(raw)
    dtype = _dtype_of(text)
    if len(raw) != dtype.itemsize or dtype.kind in "SUV":
        raise CorruptEntryError("a numpy scalar does not have the bytes of its dtype")
    return _numpy().frombuffer(raw, dtype)[0]


def _numpy() -> Any:
    # Programs that cache no arrays need not have or load it.
    return import_extra("numpy", package="numpy", extra="server", purpose="reading an array from the cache")


def _keep(memo: dict[Any, Any], key: Any, value: Any) -> None:
    if len(memo) >= _KEPT_HEADERS:
        memo.clear()
    memo[key] = value
