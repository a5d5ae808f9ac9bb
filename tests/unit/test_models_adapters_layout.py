"""Where weights stand in an .onnx file, and the file without them."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from ondol.errors import ModelLoadError
from ondol.models.adapters.onnx_layout import ALIGNMENT_BYTES, read_layout, without_weights


def field(place: int, content: bytes) -> bytes:
    length, size = bytearray(), len(content)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([place << 3 | 2]) + bytes(length) + content


def model(*tensors: bytes) -> bytes:
    return b"\x08\x08" + field(7, field(1, b"a node") + b"".join(field(5, one) for one in tensors)) + field(2, b"maker")


LARGE = field(8, b"large") + field(9, b"\x01" * 5000)
OTHER = field(8, b"other") + field(9, b"\x02" * 4096)
SMALL = field(8, b"small") + field(9, b"\x03" * 100)


def test_large_tensors_are_found_and_small_ones_stay() -> None:
    content = model(LARGE, SMALL, OTHER)
    layout = read_layout(memoryview(content))
    assert [content[start:end] for start, end in layout.inline] == [b"\x01" * 5000, b"\x02" * 4096]
    assert layout.inline_bytes == 9096
    assert layout.offsets() == [0, 2 * ALIGNMENT_BYTES]
    assert layout.locations == frozenset()


def test_without_weights_everything_else_is_the_same() -> None:
    content = model(LARGE, SMALL, OTHER)
    slim = without_weights(memoryview(content), read_layout(memoryview(content)), "weights.bin")
    assert len(slim) < 500
    assert slim.startswith(b"\x08\x08")
    assert slim.endswith(field(2, b"maker"))
    assert field(1, b"a node") in slim
    assert field(5, SMALL) in slim
    again = read_layout(memoryview(slim))
    assert again.inline == ()
    assert again.locations == {"weights.bin"}
    for part in (b"5000", b"4096", b"8192", b"large", b"other"):
        assert part in slim


@pytest.mark.parametrize("content", [b"\x0b", b"\x3a\x7f", b"\x3a", b"\xff" * 20, b"#!/bin/sh\n"])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(ModelLoadError, match="ONNX model"):
        read_layout(memoryview(content))


def stored(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def graph(*nodes: onnx.NodeProto, initializers: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], list(initializers))


def branch(inner: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If", ["c"], ["y"], then_branch=inner)


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["k"], value=tensor)


def sparse(name: str) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=stored(name), indices=stored(f"{name}-indices"), dims=[4])


def test_files_are_found_wherever_a_tensor_may_stand() -> None:
    main = graph(
        constant(stored("constant")),
        branch(graph(branch(graph(initializers=(stored("deep"),))))),
        helper.make_node("Own", [], ["z"], many=[stored("first"), stored("second")], graphs=[graph()]),
        helper.make_node("Own", [], ["s"], one=sparse("sparse"), several=[sparse("sparse-2")]),
        helper.make_node("Own", ["location"], ["location"]),
        initializers=(stored("main"),),
    )
    main.sparse_initializer.append(sparse("sparse-initializer"))
    whole = helper.make_model(main)
    whole.functions.append(helper.make_function("d", "f", [], ["k"], [constant(stored("function"))], []))
    whole.functions[0].attribute_proto.append(helper.make_attribute("a", stored("default")))
    training = whole.training_info.add()
    training.initialization.CopyFrom(graph(initializers=(stored("training"),)))
    training.algorithm.CopyFrom(graph(constant(stored("algorithm"))))
    sparse_names = {"sparse", "sparse-2", "sparse-initializer"}
    assert read_layout(memoryview(whole.SerializeToString())).locations == {
        *("constant", "deep", "first", "second", "main", "function", "default", "training", "algorithm"),
        *sparse_names,
        *(f"{name}-indices" for name in sparse_names),
    }


def test_bytes_that_other_readers_could_understand_otherwise_are_refused() -> None:
    # A number of a field beyond 32 bits, which a reader that cuts it down takes for that of an initializer.
    tag = 5 << 3 | 2 | 1 << 32
    disguised = bytes([tag & 0x7F | 0x80, 0x80, 0x80, 0x80, tag >> 28]) + b"\x00"
    with pytest.raises(ModelLoadError, match="ONNX model"):
        read_layout(memoryview(field(7, disguised)))


def test_of_several_contents_of_a_tensor_the_last_one_counts() -> None:
    content = model(field(8, b"twice") + field(9, b"\x01" * 5000) + field(9, b"\x02" * 5000))
    (span,) = read_layout(memoryview(content)).inline
    assert content[span.start : span.end] == b"\x02" * 5000


def test_graphs_within_graphs_without_end_are_refused() -> None:
    inner = field(5, field(13, field(1, b"location") + field(2, b"x")))
    for _ in range(60):
        inner = field(1, field(5, field(6, inner)))
    with pytest.raises(ModelLoadError, match="nested too deeply"):
        read_layout(memoryview(field(7, inner)))
