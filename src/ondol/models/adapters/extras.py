"""adapter: importing an optional package when it is first needed."""

from __future__ import annotations

import importlib
from typing import Any

from ondol.errors import MissingExtraError

__all__ = ["import_extra"]


def import_extra(module: str, *, package: str, extra: str, purpose: str) -> Any:
    """Return the imported ``module``.

    Raises:
        MissingExtraError: ``package`` is not installed; the message has the pip line.
        ModuleNotFoundError: it is installed, but something it needs itself is not.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name != module.partition(".")[0]:
            raise
        raise MissingExtraError(package, extra, purpose) from exc
