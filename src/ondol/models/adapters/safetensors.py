"""adapter: the weights of safetensors files as arrays over the mapped files: read when touched, shared, read-only.

The package of that name copies each tensor into memory of its own; here nothing is copied, and nothing but numpy is
needed.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.errors import ModelLoadError
from ondol.extras import import_extra
from ondol.models.adapters.safetensors_header import MAX_HEADER_BYTES, Header, TensorPlace, read_header, read_shards

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    import numpy.typing as npt

__all__ = ["SafetensorsWeights", "safetensors_weights"]

_INDEX: Final = ".safetensors.index.json"
_DTYPES: Final = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip
_WIDER_DTYPES: Final = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}


class _Tensor(NamedTuple):
    content: mmap.mmap
    place: TensorPlace


class SafetensorsWeights(Mapping[str, "npt.NDArray[Any]"]):
    """The tensors by name. Each access makes a new array over the same mapped bytes.

    A file stays mapped (and takes a descriptor) as long as these weights, or one of the arrays, are referred to; there
    is nothing to close. Changing an array raises ``ValueError``. Types that numpy lacks (``BF16``, ``F8_…``) need the
    package ml-dtypes, which comes with the extra ``safetensors``.

    Thread-safety: safe.
    """

    def __init__(self, tensors: Mapping[str, _Tensor], metadata: Mapping[str, str]) -> None:
        """Wrap what :func:`safetensors_weights` found."""
        self._tensors = dict(tensors)
        self.metadata = dict(metadata)
        """The free texts that the files carry."""
        self.size_bytes = sum(tensor.place.end - tensor.place.start for tensor in self._tensors.values())
        """Bytes of all tensors: what they count in a budget. The process grows only by those that were touched."""

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        content, place = self._tensors[name]
        numpy = _numpy()
        dtype = _dtype(name, place.dtype)
        try:
            if 0 in place.shape:
                return numpy.empty(place.shape, dtype)  # type: ignore[no-any-return]  # numpy is imported late
            flat = numpy.frombuffer(content, dtype, math.prod(place.shape), place.start)
            return flat.reshape(place.shape)  # type: ignore[no-any-return]  # for the same reason
        except (ValueError, OverflowError) as exc:
            message = f"numpy has no array of the tensor {name!r} with {len(place.shape)} dimensions: {exc}"
            raise ModelLoadError(message) from exc

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def safetensors_weights(path: str | os.PathLike[str]) -> SafetensorsWeights:
    """Map weights; a function for ``ModelSpec(load=functools.partial(safetensors_weights, …))``.

    The files are mapped for as long as they are used: replace one by another of its name, never write into it. A file
    that is cut short while it is mapped ends the process when a lost page is touched.

    Args:
        path: a file, an index (``model.safetensors.index.json``), or a folder with one model: all shards that its
            index names, or else all of its ``*.safetensors``.

    Raises:
        ModelLoadError: there is no such file, it is damaged, or a shard is missing; no byte beyond a file is ever read.
        MissingExtraError: numpy is not installed.
    """
    _numpy()
    path = Path(path)
    index = path if path.name.endswith(_INDEX) else _index_of(path)
    if index is None:
        return _read_all(_files_of(path))
    shards = _shards(index)
    weights = _read_all(sorted({index.parent / file for file in shards.values()}))
    if missing := sorted(name for name in shards if name not in weights):
        message = f"{index} names the tensor {missing[0]!r} of {shards[missing[0]]}, which is not there"
        raise ModelLoadError(message)
    return weights


def _index_of(path: Path) -> Path | None:
    usual = path / f"model{_INDEX}"
    found = [usual] if usual.is_file() else [file for file in path.glob(f"*{_INDEX}") if not file.name.startswith(".")]
    if len(found) > 1:
        message = f"the folder {path} holds several models ({', '.join(sorted(file.name for file in found))}); give one"
        raise ModelLoadError(message)
    return found[0] if found else None


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.glob("*.safetensors") if not file.name.startswith("."))
    if not files:
        message = f"the folder {path} holds no .safetensors file"
        raise ModelLoadError(message)
    return files


def _shards(index: Path) -> dict[str, str]:
    try:
        with index.open("rb") as opened:
            return read_shards(opened.read(MAX_HEADER_BYTES))
    except OSError as exc:
        message = f"the index {index} cannot be read: {exc}"
        raise ModelLoadError(message) from exc
    except ValueError as exc:
        message = f"the index {index} cannot be used: {exc}"
        raise ModelLoadError(message) from exc


def _read_all(files: Iterable[Path]) -> SafetensorsWeights:
    tensors: dict[str, _Tensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        content, header = _read(file)
        if twice := sorted(tensors.keys() & header.tensors.keys()):
            message = (
                f"{file} holds the tensor {twice[0]!r}, which another file of that folder holds too; "
                "give the file, or the index, of one model"
            )
            raise ModelLoadError(message)
        tensors |= {name: _Tensor(content, place) for name, place in header.tensors.items()}
        metadata |= header.metadata
    return SafetensorsWeights(tensors, metadata)


def _read(file: Path) -> tuple[mmap.mmap, Header]:
    try:
        with file.open("rb") as opened:
            content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as exc:  # ValueError: an empty file cannot be mapped
        message = f"the safetensors file {file} cannot be read: {exc}"
        raise ModelLoadError(message) from exc
    try:
        return content, read_header(content)
    except ValueError as exc:
        content.close()
        message = f"the safetensors file {file} is damaged: {exc}"
        raise ModelLoadError(message) from exc


def _numpy() -> Any:
    return import_extra("numpy", package="numpy", extra="safetensors", purpose="reading safetensors files")


def _dtype(name: str, dtype: str) -> Any:
    if dtype in _DTYPES:
        return _DTYPES[dtype]
    if dtype not in _WIDER_DTYPES:
        message = f"the tensor {name!r} is of type {dtype!r}, which numpy has no type for"
        raise ModelLoadError(message)
    purpose = f"the type {dtype} of the tensor {name!r}"
    ml_dtypes = import_extra("ml_dtypes", package="ml-dtypes", extra="safetensors", purpose=purpose)
    return getattr(ml_dtypes, _WIDER_DTYPES[dtype])
