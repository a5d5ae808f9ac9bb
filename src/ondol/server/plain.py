"""decision: statistics as values that JSON has: the one conversion of percentages, enumerations and odd numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

from ondol.units import Percent

__all__ = ["to_plain"]


def to_plain(value: object) -> Any:
    """Return ``value`` as dicts, lists, strings, booleans, finite numbers and ``None``.

    A percentage becomes a string like ``83.2%``, an enumeration its value, a number that is not finite ``None``, and
    anything unknown its text.

    >>> to_plain({"hit_rate": Percent(83.21), "names": ("a",), "mean": float("nan")})
    {'hit_rate': '83.2%', 'names': ['a'], 'mean': None}
    """
    if isinstance(value, Mapping):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    return to_plain(value.value) if isinstance(value, Enum) else _leaf(value)


def _leaf(value: object) -> str | int | float | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and not isinstance(value, Percent):
        return float(value) if math.isfinite(value) else None
    return str(value)
