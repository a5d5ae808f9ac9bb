"""adapter: the files of an ONNX model, and its copy with the weights in a file that can be mapped."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from ondol.errors import ModelLoadError
from ondol.models.adapters.onnx_layout import Layout, read_layout, without_weights
from ondol.models.adapters.trust import check_ownership
from ondol.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ondol.models.adapters.onnx_layout import Span

__all__ = ["find_model", "layout_of", "mappable_copy", "model_bytes"]

_USUAL: Final = ("model.onnx", "onnx/model.onnx")
_MODEL: Final = "model.onnx"
_WEIGHTS: Final = "weights.bin"
_WRITE_BYTES: Final = 16 * MIB


def find_model(path: str | os.PathLike[str]) -> Path:
    """Return the ``.onnx`` file that ``path`` is, or that the folder ``path`` holds.

    In a folder that is ``model.onnx``, else ``onnx/model.onnx``, else the only ``.onnx`` file there.

    Raises:
        ModelLoadError: there is none, or there are several.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        message = f"there is no ONNX model at {path}"
        raise ModelLoadError(message)
    for usual in _USUAL:
        if (path / usual).is_file():
            return path / usual
    found = sorted(file for file in path.glob("*.onnx") if file.is_file() and not file.name.startswith("."))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        message = f"the folder {path} has no model.onnx and not exactly one .onnx file ({names}); give the file itself"
        raise ModelLoadError(message)
    return found[0]


def layout_of(model: Path) -> Layout:
    """Return where the weights of ``model`` are.

    Raises:
        ModelLoadError: it cannot be read, or is no ONNX model.
    """
    with _source(model) as source:
        return _layout(source)


def model_bytes(model: Path, layout: Layout) -> int:
    """Return the size of ``model`` with the files its weights are in.

    Raises:
        ModelLoadError: one of them is missing, or lies outside the model's folder: nothing of it is read then.
    """
    folders = {model.resolve().parent, model.parent.resolve()}  # two where the model is a link into a store of files
    files = [_weights_file(model, location, folders) for location in sorted(layout.locations)]
    return sum(file.stat().st_size for file in [model, *files])


def _weights_file(model: Path, location: str, folders: set[Path]) -> Path:
    allowed = "only a file in its own folder is allowed"
    # Beside other places there is onnxruntime's own mark for an address in memory instead of a file.
    if Path(location).is_absolute() or location.startswith("*/"):
        message = f"the ONNX model {model} has its weights in {location!r}; {allowed}"
        raise ModelLoadError(message)
    try:
        file = (model.parent / location).resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as exc:  # a NUL byte; links in a circle (until Python 3.12)
        message = f"the ONNX model {model} has its weights in {location!r}, which cannot be found: {exc}"
        raise ModelLoadError(message) from exc
    if not file.is_file() or not any(file.is_relative_to(folder) for folder in folders):
        message = f"the ONNX model {model} has its weights in {location!r}, which is {file}; {allowed}"
        raise ModelLoadError(message)
    return file


def mappable_copy(model: Path, folder: Path) -> Path:
    """Return a copy of ``model`` under ``folder`` whose weights stand in a file of their own; make it if need be.

    The copy belongs to one version of the file (place, size, times of change); copies of its older versions, and
    what a process that died left of one, are removed. It takes as much of the disk as the model. It is complete or
    not there at all: of several processes one makes it, and the others wait.

    Raises:
        OSError: it cannot be written.
        ConfigurationError: others may change ``folder``.
        ModelLoadError: the model cannot be read, or changes meanwhile.
    """
    path = model.resolve()
    place = _digest(str(path))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_ownership(folder.stat(), folder)
    with _source(path) as source:
        target = folder / f"{place}-{_digest(source.version)}"
        layout = _layout(source)
        if not _is_complete(target, layout):
            with _only_one(folder / f"{place}.lock"):
                if not _is_complete(target, layout):  # nobody else made it meanwhile
                    _renew_copy(source, layout, target)
    return target / _MODEL


class _Source(NamedTuple):
    """A model's file, open."""

    path: Path
    file: BinaryIO
    content: memoryview
    version: str


@contextmanager
def _source(path: Path) -> Iterator[_Source]:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            version = _version(os.fstat(file.fileno()))
            mapped = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as exc:  # ValueError: an empty file cannot be mapped
            message = f"the ONNX model {path} cannot be read: {exc}"
            raise ModelLoadError(message) from exc
        yield _Source(path, file, stack.enter_context(memoryview(mapped)), version)


def _version(status: os.stat_result) -> str:
    # The time of the last change of any kind, too: builds that want to be reproducible set the other one.
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _layout(source: _Source) -> Layout:
    try:
        return read_layout(source.content)
    except ModelLoadError as exc:
        message = f"{source.path} cannot be loaded: {exc}"
        raise ModelLoadError(message) from exc


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Wait until no other thread and no other process is in a block with this ``lock``; it ends with its holder."""
    with lock.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _is_complete(target: Path, layout: Layout) -> bool:
    try:
        return (target / _MODEL).is_file() and (target / _WEIGHTS).stat().st_size == _weights_bytes(layout)
    except FileNotFoundError:
        return False


def _weights_bytes(layout: Layout) -> int:
    return layout.offsets()[-1] + layout.inline[-1].end - layout.inline[-1].start if layout.inline else 0


def _renew_copy(source: _Source, layout: Layout, target: Path) -> None:
    # Whatever else bears that name is older, or was left by a crash. Sessions that have it mapped keep its pages.
    for old in target.parent.glob(f"{target.name.partition('-')[0]}-*"):
        shutil.rmtree(old, ignore_errors=True)
    unfinished = target.with_name(f"{target.name}-unfinished")
    unfinished.mkdir(mode=0o700)
    try:
        _write_copy(source, layout, unfinished)
        if _version(source.path.stat()) != source.version:
            message = f"the ONNX model {source.path} was changed while it was copied"
            raise ModelLoadError(message)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_copy(source: _Source, layout: Layout, folder: Path) -> None:
    with (folder / _WEIGHTS).open("wb", buffering=_WRITE_BYTES) as weights:
        for span, offset in zip(layout.inline, layout.offsets(), strict=True):
            weights.write(bytes(offset - weights.tell()))
            _write_span(weights, source, span)
        _sync(weights)
    with (folder / _MODEL).open("wb") as model:
        model.write(without_weights(source.content, layout, _WEIGHTS))
        _sync(model)


def _write_span(weights: BinaryIO, source: _Source, span: Span) -> None:
    # Read, not mapped: touching pages of a file that somebody cuts short meanwhile would end the process. And in
    # large pieces: so the system keeps the new file in large pages, and touching all of it costs 3 ms instead of
    # 29 (256 MB, ext4).
    for start in range(span.start, span.end, _WRITE_BYTES):
        piece = os.pread(source.file.fileno(), min(_WRITE_BYTES, span.end - start), start)
        if len(piece) != min(_WRITE_BYTES, span.end - start):
            message = f"the ONNX model {source.path} was cut short while it was copied"
            raise ModelLoadError(message)
        weights.write(piece)


def _sync(file: BinaryIO) -> None:
    file.flush()
    # Without it a power failure could leave a copy that has its name and its size, but zeros for weights.
    os.fsync(file.fileno())
