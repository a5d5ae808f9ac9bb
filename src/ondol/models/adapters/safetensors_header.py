"""decision: what stands where in a safetensors file.

The format is a length (8 bytes, little-endian), a JSON header of that length, and the bytes of the tensors, one
after the other without gaps. A header that says anything else is refused, so that no byte beyond the file, and none
of another tensor, is ever read.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from mmap import mmap

__all__ = ["MAX_HEADER_BYTES", "Header", "TensorPlace", "read_header", "read_shards"]

MAX_HEADER_BYTES: Final = 100_000_000
"""The format's own limit."""

_LENGTH_BYTES: Final = 8
_BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip


class TensorPlace(NamedTuple):
    """One tensor: its type as the format calls it, its shape, and its bytes from ``start`` to before ``end``."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Header(NamedTuple):
    """What one file holds."""

    tensors: dict[str, TensorPlace]
    metadata: dict[str, str]


def read_header(content: bytes | mmap) -> Header:
    """Return what the file with this ``content`` holds.

    Raises:
        ValueError: the file is not as the format wants it; the message goes on from "the file …: ".
    """
    size = len(content)
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    base = _LENGTH_BYTES + length
    if size < _LENGTH_BYTES or length > MAX_HEADER_BYTES or base > size:
        raise ValueError("its header is longer than the file or the format allow")
    header = _json_object(content[_LENGTH_BYTES:base], "header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata is not made of texts")
    tensors = {name: _place(name, entry, base) for name, entry in header.items()}
    _check_bounds(tensors, base, size)
    return Header(tensors, metadata)


def read_shards(content: bytes) -> dict[str, str]:
    """Return the file's name of each tensor by the ``*.safetensors.index.json`` with this ``content``.

    Raises:
        ValueError: it is no such index, or names something else than files beside it.
    """
    shards = _json_object(content, "text").get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ValueError("it has no weight_map")
    for file in shards.values():
        if not isinstance(file, str) or not file.endswith(".safetensors") or "/" in file or "\0" in file:
            message = f"it names {file!r}; only a .safetensors file in its own folder is allowed"
            raise ValueError(message)
    return shards


def _json_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text.decode("utf-8"))
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        message = f"its {what} is no JSON object, or nested too deeply"
        raise ValueError(message)  # noqa: TRY004  # the file is at fault, not the caller
    return found


def _place(name: str, entry: object, base: int) -> TensorPlace:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, end]}:
            if all(type(number) is int and number >= 0 for number in (*shape, start, end)):
                return TensorPlace(dtype, tuple(shape), base + start, base + end)
    message = f"the tensor {name!r} is not described by a dtype, a shape and two data_offsets"
    raise ValueError(message)


def _check_bounds(tensors: dict[str, TensorPlace], base: int, size: int) -> None:
    covered = base
    for name, place in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if place.start != covered or place.end < place.start:
            message = f"the tensor {name!r} does not begin where the one before it ends"
            raise ValueError(message)
        covered = place.end
        bits = _BITS.get(place.dtype)
        if bits is not None and math.prod(place.shape) * bits != (place.end - place.start) * 8:
            wanted = math.prod(place.shape) * bits / 8
            message = f"the tensor {name!r} has {place.end - place.start} bytes where its shape needs {wanted:.10g}"
            raise ValueError(message)
    if covered != size:
        message = f"its tensors take {covered - base} bytes, but it has {size - base} for them"
        raise ValueError(message)
