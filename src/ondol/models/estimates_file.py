"""adapter: the file in which learnt sizes and load times outlive the process."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any, Final

__all__ = ["EstimatesFile"]

_MOST_BYTES: Final = 16 * 1024 * 1024
_numbers = itertools.count(1)


class EstimatesFile:
    """A JSON file, replaced as a whole: readers see the old one or the new one, never a half.

    Several processes may use one file; the last that writes wins. What is lost then is learnt again.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Use ``path``; its folder is made with the first write."""
        self.path = Path(path)

    def read(self) -> dict[str, Any] | None:
        """Return what was written last, ``None`` when nothing was.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no JSON object, or far too large for one that was written here.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        if len(data) > _MOST_BYTES:
            message = f"{self.path} is larger than {_MOST_BYTES} bytes"
            raise ValueError(message)
        plain = json.loads(data)
        if not isinstance(plain, dict):
            message = f"{self.path} holds no JSON object"
            raise ValueError(message)  # noqa: TRY004  # the file's content is wrong, not an argument's type
        return plain

    def write(self, plain: dict[str, Any]) -> None:
        """Replace the file.

        Raises:
            OSError: it cannot be written; the old one is still there.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}-{os.getpid()}-{next(_numbers)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(plain, file, ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
