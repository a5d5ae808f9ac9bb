"""decision: where the weights stand in an ``.onnx`` file, and the same model with them moved to a file beside it.

An ``.onnx`` file is one protobuf message (onnx.proto3): ModelProto.graph = 7, GraphProto.initializer = 5,
TensorProto.raw_data = 9, .external_data = 13 (entries of key = 1 and value = 2), .data_location = 14. Reading
the few fields that matter needs no package, and touches no page of the weights themselves.

Only tensors of the main graph are moved. Files are looked for wherever a tensor may stand: a model names the files
that the runtime will open, so none may be overlooked, and bytes that two readers could understand in two ways are
refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from ondol.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ALIGNMENT_BYTES", "Layout", "Span", "read_layout", "without_weights"]

ALIGNMENT_BYTES: Final = 4096
"""Where a moved tensor begins is a multiple of this: mapped pages, and every element type aligned."""

_LEAST_BYTES: Final = 4096  # smaller tensors stay: they would cost a page and a mapping each
_GRAPH: Final = 7
_INITIALIZER: Final = 5
_RAW_DATA: Final = 9
_EXTERNAL_DATA: Final = 13
_KEY: Final = 1
_VALUE: Final = 2
_LOCATION: Final = b"location"
_NAMED: Final = re.compile(_LOCATION)
_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_IS_EXTERNAL: Final = b"\x70\x01"  # field 14 as a varint of 1
_MOST_FIELD_NUMBER: Final = (1 << 29) - 1
_MOST_DEPTH: Final = 100  # as protobuf's own readers

# Which fields of a message lead to tensors, and to which kind of message.
_WAYS: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


class Span(NamedTuple):
    """The bytes from ``start`` to before ``end``."""

    start: int
    end: int


class Layout(NamedTuple):
    """Where a model's weights are."""

    inline: tuple[Span, ...]
    """The tensors inside the file that are worth moving, in the file's order."""
    locations: frozenset[str]
    """The files, as the model names them, that hold tensors already; they should lie in its folder."""

    @property
    def inline_bytes(self) -> int:
        """Bytes of the tensors inside the file."""
        return sum(end - start for start, end in self.inline)

    def offsets(self) -> list[int]:
        """Return where each inline tensor begins in a file of its own that holds all of them."""
        offsets, next_free = [], 0
        for start, end in self.inline:
            offsets.append(next_free)
            next_free += -(-(end - start) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return offsets


class _Field(NamedTuple):
    number: int
    wire: int
    tag_start: int
    start: int
    end: int


def read_layout(model: memoryview) -> Layout:
    """Return where the weights of ``model``, the whole file, are.

    Raises:
        ModelLoadError: the bytes are no protobuf message.
    """
    inline: list[Span] = []
    locations: set[str] = set()
    for part in _fields(model, 0, len(model)):
        if part.number != _GRAPH or part.wire != _BYTES:
            locations.update(_locations_within(model, part, "model", 1))
            continue
        for field in _fields(model, part.start, part.end):
            if field.number == _INITIALIZER and field.wire == _BYTES:
                raw = _raw_data(model, field)
                if raw is not None:
                    inline.append(raw)
                locations.update(_locations(model, field))
            else:
                locations.update(_locations_within(model, field, "graph", 2))
    return Layout(tuple(inline), frozenset(locations))


def _locations_within(model: memoryview, field: _Field, kind: str, depth: int) -> Iterator[str]:
    """Yield the files named anywhere within ``field``, which stands in a message of that ``kind``."""
    found = _WAYS[kind].get(field.number)
    # Most nodes name no file, and reading all their fields would take longer than all else here.
    if found is None or field.wire != _BYTES or not _NAMED.search(model[field.start : field.end]):
        return
    if depth > _MOST_DEPTH:
        raise ModelLoadError("this is no ONNX model: its graphs are nested too deeply")
    if found == "tensor":
        yield from _locations(model, field)
        return
    for inner in _fields(model, field.start, field.end):
        yield from _locations_within(model, inner, found, depth + 1)


def without_weights(model: memoryview, layout: Layout, location: str) -> bytes:
    """Return ``model`` with its inline tensors standing in the file ``location``, at ``layout.offsets()``."""
    places = dict(zip((span.start for span in layout.inline), layout.offsets(), strict=True))
    parts: list[bytes] = []
    for field in _fields(model, 0, len(model)):
        if field.number == _GRAPH and field.wire == _BYTES:
            parts.append(_message(_GRAPH, _slim_graph(model, field, places, location)))
        else:
            parts.append(bytes(model[field.tag_start : field.end]))
    return b"".join(parts)


def _slim_graph(model: memoryview, graph: _Field, places: dict[int, int], location: str) -> bytes:
    parts: list[bytes] = []
    for field in _fields(model, graph.start, graph.end):
        is_tensor = field.number == _INITIALIZER and field.wire == _BYTES
        raw = _raw_data(model, field) if is_tensor else None
        if raw is None:
            parts.append(bytes(model[field.tag_start : field.end]))
        else:
            parts.append(_message(_INITIALIZER, _slim_tensor(model, field, raw, (location, places[raw.start]))))
    return b"".join(parts)


def _slim_tensor(model: memoryview, tensor: _Field, raw: Span, place: tuple[str, int]) -> bytes:
    location, offset = place
    parts = [
        bytes(model[field.tag_start : field.end])
        for field in _fields(model, tensor.start, tensor.end)
        if field.number != _RAW_DATA
    ]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(raw.end - raw.start))):
        parts.append(_message(_EXTERNAL_DATA, _message(_KEY, key.encode()) + _message(_VALUE, value.encode())))
    parts.append(_IS_EXTERNAL)
    return b"".join(parts)


def _raw_data(model: memoryview, tensor: _Field) -> Span | None:
    raw = None
    for field in _fields(model, tensor.start, tensor.end):
        if field.number == _RAW_DATA and field.wire == _BYTES:
            raw = Span(field.start, field.end)  # of several the last one counts
    return raw if raw is not None and raw.end - raw.start >= _LEAST_BYTES else None


def _locations(model: memoryview, tensor: _Field) -> Iterator[str]:
    for entry in _fields(model, tensor.start, tensor.end):
        if entry.number != _EXTERNAL_DATA or entry.wire != _BYTES:
            continue
        texts = {
            field.number: bytes(model[field.start : field.end]) for field in _fields(model, entry.start, entry.end)
        }
        if texts.get(_KEY) == _LOCATION:
            yield texts.get(_VALUE, b"").decode("utf-8", "surrogateescape")


def _fields(model: memoryview, start: int, end: int) -> Iterator[_Field]:
    """Yield the fields of the message from ``start`` to ``end``."""
    while start < end:
        tag, at = _varint(model, start, end)
        wire, number = tag & 7, tag >> 3
        if not 0 < number <= _MOST_FIELD_NUMBER:  # other readers would cut it down to a number that means something
            raise ModelLoadError("this is no ONNX model: the file is not a protobuf message")
        if wire == _VARINT:
            begin, stop = at, _varint(model, at, end)[1]
        elif wire == _BYTES:
            length, begin = _varint(model, at, end)
            stop = begin + length
        elif wire in {_FIXED64, _FIXED32}:
            begin, stop = at, at + (8 if wire == _FIXED64 else 4)
        else:
            raise ModelLoadError("this is no ONNX model: the file is not a protobuf message")
        if stop > end:
            raise ModelLoadError("this is no whole ONNX model: the file ends within a field")
        yield _Field(number, wire, start, begin, stop)
        start = stop


def _varint(model: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = model[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise ModelLoadError("this is no whole ONNX model: the file ends within a number")


def _message(number: int, content: bytes) -> bytes:
    return _encoded(number << 3 | _BYTES) + _encoded(len(content)) + content


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
