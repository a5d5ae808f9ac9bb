"""Small ONNX models, written by hand as the protobuf messages they are: what the adapter reads, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = 1


def number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(place: int, content: bytes | str | int) -> bytes:
    if isinstance(content, int):
        return number(place << 3) + number(content)
    raw = content.encode() if isinstance(content, str) else content
    return number(place << 3 | 2) + number(len(raw)) + raw


def tensor(name: str, values: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    dims = b"".join(field(1, length) for length in values.shape)
    return dims + field(2, FLOAT) + field(8, name) + field(9, values.tobytes())


def value_info(name: str, *dims: int | str) -> bytes:
    shape = b"".join(field(1, field(2 if isinstance(dim, str) else 1, dim)) for dim in dims)
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, shape)))


def node(kind: str, inputs: list[str], output: str) -> bytes:
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind)


def external_tensor(name: str, location: str, length: int, *dims: int) -> bytes:
    shape = b"".join(field(1, length) for length in dims)
    entries = (("location", location), ("offset", "0"), ("length", str(length)))
    texts = b"".join(field(13, field(1, key) + field(2, value)) for key, value in entries)
    return shape + field(2, FLOAT) + field(8, name) + texts + field(14, 1)


def write_external(path: Path, location: str, *, width: int = 1600) -> bytes:
    """Write a model y = x·w whose weights are in ``location``; return what that file must hold (10 MB as a rule)."""
    weights = np.eye(width, dtype=np.float32).tobytes()
    graph = field(5, external_tensor("w", location, len(weights), width, width))
    graph += field(1, node("MatMul", ["x", "w"], "y"))
    graph += field(2, "one") + field(11, value_info("x", "n", width)) + field(12, value_info("y", "n", width))
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(2, 17)))
    return weights


def dense_model(layers: int, width: int) -> bytes:
    """Return y = tanh(… tanh(x·w0 + b0) …)."""
    random = np.random.default_rng(7)
    graph, x = b"", "x"
    for layer in range(layers):
        weights = (random.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32)
        graph += field(5, tensor(f"w{layer}", weights)) + field(5, tensor(f"b{layer}", np.full(width, 0.1, np.float32)))
        y = "y" if layer == layers - 1 else f"t{layer}"
        graph += field(1, node("MatMul", [x, f"w{layer}"], f"m{layer}"))
        graph += field(1, node("Add", [f"m{layer}", f"b{layer}"], f"a{layer}"))
        graph += field(1, node("Tanh", [f"a{layer}"], y))
        x = y
    graph += field(2, "dense") + field(11, value_info("x", "n", width)) + field(12, value_info("y", "n", width))
    return field(1, 8) + field(7, graph) + field(8, field(2, 17))


def write_dense(path: Path, *, layers: int = 4, width: int = 800) -> Path:
    """Write a model of ``layers · width² · 4`` bytes of weights; as a rule 10 MB, large enough for two stages."""
    path.write_bytes(dense_model(layers, width))
    return path
