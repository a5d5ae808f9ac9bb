"""decision: an optional package when it is first needed, or the error that says how to install it."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ondol.errors import MissingExtraError

__all__ = ["import_extra"]


def import_extra(module: str, *, package: str, extra: str, purpose: str) -> Any:
    """Return the imported ``module``.

    Raises:
        MissingExtraError: ``package`` is not installed; the message has the pip line.
        ModuleNotFoundError: it is installed, but something it needs itself is not.

    Thread-safety: who comes while another thread imports it waits for that.

    Cost: a dictionary lookup once it is imported.
    """
    loaded = sys.modules.get(module)
    if loaded is not None and not getattr(getattr(loaded, "__spec__", None), "_initializing", False):
        return loaded
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name != module.partition(".")[0]:
            raise
        raise MissingExtraError(package, extra, purpose) from exc
