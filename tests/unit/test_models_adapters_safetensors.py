"""Weights of safetensors files, mapped."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from ondol.errors import MissingExtraError, ModelLoadError
from ondol.models.adapters.safetensors import safetensors_weights

if TYPE_CHECKING:
    from pathlib import Path

INDEX = "model.safetensors.index.json"


def write(path: Path, header: Any, content: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


def entry(dtype: str, shape: list[int], *offsets: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


def write_shards(folder: Path, *names: str) -> None:
    for name in names:
        write(folder / f"{name}.safetensors", {name: entry("U8", [3], 0, 3)}, name.encode() * 3)


def write_index(path: Path, shards: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"metadata": {"total_size": 6}, "weight_map": shards}), encoding="utf-8")
    return path


def test_the_arrays_are_those_that_the_package_wrote(tmp_path: Path) -> None:
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "a": np.arange(12, dtype=np.float32).reshape(3, 4),
        "half": np.ones((5,), np.float16),
        "b": np.array([[True, False]]),
        "one": np.array(7, np.int64),
        "none": np.zeros((0, 3), np.float32),
        "가중치": np.array([1 + 2j], np.complex64),
    }
    safetensors.numpy.save_file(tensors, tmp_path / "모델.safetensors", metadata={"format": "np"})
    weights = safetensors_weights(tmp_path / "모델.safetensors")
    assert set(weights) == set(tensors)
    assert len(weights) == 6
    assert weights.metadata == {"format": "np"}
    assert weights.size_bytes == sum(array.nbytes for array in tensors.values())
    for name, array in tensors.items():
        assert weights[name].dtype == array.dtype
        assert weights[name].shape == array.shape
        assert (weights[name] == array).all()


@pytest.mark.parametrize(
    ("dtype", "type_name"),
    [("BF16", "bfloat16"), ("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2"), ("F8_E8M0", "float8_e8m0fnu")],
)
def test_types_that_numpy_lacks_come_from_ml_dtypes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, type_name: str
) -> None:
    values = np.array([1, 2, 4]).astype(getattr(ml_dtypes, type_name))
    header = {"w": entry(dtype, [3], 0, values.nbytes)}
    weights = safetensors_weights(write(tmp_path / "m.safetensors", header, values.tobytes()))
    assert weights["w"].dtype == values.dtype
    assert weights["w"].astype(np.float32).tolist() == [1, 2, 4]
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingExtraError, match=r"'ml-dtypes'.*pip install 'ondol\[safetensors\]'"):
        weights["w"]


def test_they_are_read_only_and_copy_nothing(tmp_path: Path) -> None:
    header = {"w": entry("F32", [2], 0, 8)}
    weights = safetensors_weights(write(tmp_path / "m.safetensors", header, np.ones(2, np.float32).tobytes()))
    with pytest.raises(ValueError, match="read-only"):
        weights["w"][0] = 5
    assert np.shares_memory(weights["w"], weights["w"])
    array = weights["w"]
    del weights
    assert array.tolist() == [1, 1]


def test_a_folder_of_shards_is_one_model(tmp_path: Path) -> None:
    write_shards(tmp_path, "a", "b")
    (tmp_path / "._a.safetensors").write_bytes(b"what another system adds")
    weights = safetensors_weights(tmp_path)
    assert {name: bytes(array) for name, array in weights.items()} == {"a": b"aaa", "b": b"bbb"}
    (tmp_path / "c.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    with pytest.raises(ModelLoadError, match=r"'a'.*give the file, or the index"):
        safetensors_weights(tmp_path)


def test_an_index_says_which_shards_are_the_model(tmp_path: Path) -> None:
    write_shards(tmp_path, "a", "b", "c")
    (tmp_path / "consolidated.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    index = write_index(tmp_path / INDEX, {"a": "a.safetensors", "b": "b.safetensors"})
    assert set(safetensors_weights(tmp_path)) == set(safetensors_weights(index)) == {"a", "b"}
    other = write_index(tmp_path / "model.fp16.safetensors.index.json", {"c": "c.safetensors"})
    assert set(safetensors_weights(tmp_path)) == {"a", "b"}
    assert set(safetensors_weights(other)) == {"c"}
    index.rename(tmp_path / "other.safetensors.index.json")
    with pytest.raises(ModelLoadError, match=r"holds several models \(model\.fp16.*other.*\); give one"):
        safetensors_weights(tmp_path)


def test_a_shard_that_is_missing_is_told(tmp_path: Path) -> None:
    write_shards(tmp_path, "a")
    index = write_index(tmp_path / INDEX, {"a": "a.safetensors", "b": "b.safetensors"})
    with pytest.raises(ModelLoadError, match=r"b\.safetensors cannot be read"):
        safetensors_weights(tmp_path)
    write_index(index, {"a": "a.safetensors", "b": "a.safetensors"})
    with pytest.raises(ModelLoadError, match=r"names the tensor 'b' of a\.safetensors, which is not there"):
        safetensors_weights(tmp_path)


@pytest.mark.parametrize("file", ["../a.safetensors", "/etc/a.safetensors", "a\0.safetensors", "a.bin", 5])
def test_an_index_leads_nowhere_else(tmp_path: Path, file: Any) -> None:
    write_shards(tmp_path, "a")
    (tmp_path / "model").mkdir()
    write_index(tmp_path / "model" / INDEX, {"a": file})
    with pytest.raises(ModelLoadError, match=r"only a \.safetensors file in its own folder is allowed"):
        safetensors_weights(tmp_path / "model")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}', "[" * 100_000])
def test_what_is_no_index_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content, encoding="utf-8")
    with pytest.raises(ModelLoadError, match="cannot be used"):
        safetensors_weights(tmp_path)
    with pytest.raises(ModelLoadError, match="cannot be read"):
        safetensors_weights(tmp_path / "absent.safetensors.index.json")


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ({"w": entry("F32", [3], 0, 12)}, "take 12 bytes, but it has 8"),
        ({"w": entry("U8", [4], 0, 4)}, "take 4 bytes, but it has 8"),
        ({"w": entry("U8", [4], 4, 8)}, "does not begin where"),
        ({"w": entry("U8", [8], 0, 8), "v": entry("U8", [4], 4, 8)}, "'v' does not begin where"),
        ({"w": entry("U8", [8], 8, 0)}, "does not begin where"),
        ({"w": entry("F32", [3], 0, 8)}, "8 bytes where its shape needs 12"),
        ({"w": entry("BF16", [3], 0, 8)}, "8 bytes where its shape needs 6"),
        ({"w": entry("F4", [3], 0, 8)}, "8 bytes where its shape needs 1.5"),
        ({"w": entry("F32", [2], -4, 4)}, "'w' is not described by"),
        ({"w": entry("F32", [-1], 0, 8)}, "'w' is not described by"),
        ({"w": entry("F32", [True], 0, 8)}, "'w' is not described by"),
        ({"w": entry("F32", [2], 0, 8, 9)}, "'w' is not described by"),
        ({"w": {"dtype": "F32", "shape": "x", "data_offsets": [0, 8]}}, "'w' is not described by"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, float("inf")]}}, "'w' is not described by"),
        ({"w": {"dtype": "F32"}}, "'w' is not described by"),
        ({"w": []}, "'w' is not described by"),
        ({"__metadata__": {"a": 1}, "w": entry("U8", [8], 0, 8)}, "its metadata"),
        ([], "no JSON object"),
        (b'{"w": ' + b"[" * 100_000, "no JSON object, or nested too deeply"),
        ("{}".encode("utf-16"), "codec can't decode"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, header: Any, fault: str) -> None:
    with pytest.raises(ModelLoadError, match=f"is damaged: .*{fault}"):
        safetensors_weights(write(tmp_path / "m.safetensors", header, bytes(8)))


@pytest.mark.parametrize(
    "content", [b"", b"\x01", b"\xff" * 20, (4).to_bytes(8, "little") + b"nope", (100_000_001).to_bytes(8, "little")]
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ModelLoadError, match="safetensors file"):
        safetensors_weights(tmp_path / "m.safetensors")


def test_a_header_longer_than_the_format_allows_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "m.safetensors").open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(200_000_000)  # takes no room
    with pytest.raises(ModelLoadError, match="longer than the file or the format allow"):
        safetensors_weights(tmp_path / "m.safetensors")


def test_nothing_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="cannot be read"):
        safetensors_weights(tmp_path / "m.safetensors")
    with pytest.raises(ModelLoadError, match="holds no"):
        safetensors_weights(tmp_path)


@pytest.mark.parametrize("dtype", ["F4", "new"])
def test_a_type_that_nothing_here_has(tmp_path: Path, dtype: str) -> None:
    weights = safetensors_weights(write(tmp_path / "m.safetensors", {"w": entry(dtype, [2], 0, 1)}, bytes(1)))
    assert "w" in weights
    assert "v" not in weights
    with pytest.raises(ModelLoadError, match=f"'{dtype}'"):
        weights["w"]


@pytest.mark.parametrize("shape", [[0, 2**62, 2**62], [0, 2**70], [1] * 65])
def test_a_shape_that_numpy_cannot_have_is_told(tmp_path: Path, shape: list[int]) -> None:
    end = 0 if 0 in shape else 1
    weights = safetensors_weights(write(tmp_path / "m.safetensors", {"w": entry("U8", shape, 0, end)}, bytes(end)))
    with pytest.raises(ModelLoadError, match=f"'w' with {len(shape)} dimensions"):
        weights["w"]


def test_without_numpy_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(MissingExtraError, match=r"ondol\[safetensors\]"):
        safetensors_weights(tmp_path)
