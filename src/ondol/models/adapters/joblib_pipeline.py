"""adapter: joblib and pickle files (scikit-learn pipelines), only from folders that the operator trusts.

Such a file is a program: reading it runs what whoever wrote it wanted. So the folders are named one by one, a
path is judged by where it really leads, and what another user of the machine may change is not trusted.
"""

from __future__ import annotations

import os
import pickle  # what this module exists for, and why it asks whom to trust
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from ondol.errors import ConfigurationError, ModelLoadError
from ondol.extras import import_extra
from ondol.models.adapters.trust import check_ownership, check_writers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["trusted_pipeline"]

_SUFFIXES: Final = (".joblib", ".pkl", ".pickle")
# A link is refused, and a pipe is not waited for.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FOLDER: Final = _FILE | os.O_DIRECTORY


def trusted_pipeline(path: str | os.PathLike[str], *, trusted_dirs: Sequence[str | os.PathLike[str]]) -> Any:
    """Return the object in the file ``path``, which must lie within one of ``trusted_dirs``.

    A function for ``ModelSpec(load=functools.partial(trusted_pipeline, …), size_bytes=…)``: the object is whatever was
    saved, so it does not tell its bytes itself. ``.joblib`` is read by joblib, ``.pkl`` and ``.pickle`` by pickle.

    Args:
        path: the file; symbolic links and ``..`` are followed before it is judged.
        trusted_dirs: folders whose every file may run as this process. No folder is trusted by itself. They, and all
            between them and the file, must belong to this user or to root, and nobody else may write there (this
            user's own primary group may).

    Raises:
        ConfigurationError: the file is not in a trusted folder, or others may change it or a folder on the way to it
            (nothing was read then); or what it holds needs a package that is not installed.
        MissingExtraError: joblib is not installed.
        ModelLoadError: there is no such file, or reading it failed; ``__cause__`` holds its error.
    """
    if isinstance(trusted_dirs, str | bytes | os.PathLike):
        message = f"trusted_dirs must be a list of folders, not {trusted_dirs!r}"
        raise ConfigurationError(message)
    file = _real(path)
    folder = _trusted_folder(file, trusted_dirs)
    if file.suffix not in _SUFFIXES:
        message = f"{file} must end in one of {', '.join(_SUFFIXES)}"
        raise ConfigurationError(message)
    read = _reader(file)
    try:
        with os.fdopen(_opened(file, folder), "rb") as opened:
            return read(opened)
    except ConfigurationError:
        raise
    except ImportError as exc:
        message = f"{file} needs a package that is not installed here, or in another version: {exc}"
        raise ConfigurationError(message) from exc
    except Exception as exc:  # a pickle may raise whatever it likes
        message = f"{file} cannot be loaded: {type(exc).__name__}: {exc}"
        raise ModelLoadError(message) from exc


def _reader(file: Path) -> Callable[[BinaryIO], Any]:
    if file.suffix == ".joblib":
        joblib = import_extra("joblib", package="joblib", extra="joblib", purpose="loading .joblib files")
        return joblib.load  # type: ignore[no-any-return]  # joblib ships no types
    return pickle.load


def _real(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as exc:  # a NUL byte; links in a circle (until Python 3.12)
        message = f"{path} cannot be found: {exc}"
        raise ModelLoadError(message) from exc


def _trusted_folder(file: Path, trusted_dirs: Sequence[str | os.PathLike[str]]) -> Path:
    """Return the trusted folder that ``file`` is in, after a look at who might put another one in its place."""
    try:
        folders = {Path(given).resolve(): Path(given).absolute() for given in trusted_dirs}
    except (OSError, ValueError, RuntimeError) as exc:  # as in _real
        message = f"trusted_dirs must be folders, not {trusted_dirs!r}: {exc}"
        raise ConfigurationError(message) from exc
    for folder, given in folders.items():
        if folder in file.parents:
            for parent in (*folder.parents, *given.parents):
                _check_parent(parent)
            return folder
    trusted = ", ".join(map(str, folders)) or "none"
    message = (
        f"{file} is not in a trusted folder (trusted: {trusted}). Loading such a file runs the code in it. "
        f"If you trust everything in {file.parent}, say so: trusted_dirs=[{str(file.parent)!r}]"
    )
    raise ConfigurationError(message)


def _opened(file: Path, folder: Path) -> int:
    """Return a descriptor of ``file``, reached from ``folder`` step by step: what is judged is what is opened."""
    here = os.open(folder, _FOLDER)
    try:
        check_ownership(os.fstat(here), folder)
        parts = file.relative_to(folder).parts
        for depth, part in enumerate(parts, 1):
            flags = _FILE if depth == len(parts) else _FOLDER
            before, here = here, os.open(part, flags, dir_fd=here)
            os.close(before)
            check_ownership(os.fstat(here), folder.joinpath(*parts[:depth]))
        _check_regular(os.fstat(here))
    except BaseException:
        os.close(here)
        raise
    return here


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no regular file")


def _check_parent(path: Path) -> None:
    try:
        status = path.stat()
    except OSError as exc:
        message = f"{path} cannot be looked at, so what is in it cannot be trusted: {exc}"
        raise ConfigurationError(message) from exc
    # Where that bit is set (as for /tmp), nobody may exchange what others own, and whose the folder is is looked at.
    if not status.st_mode & stat.S_ISVTX:
        check_writers(status, path)
