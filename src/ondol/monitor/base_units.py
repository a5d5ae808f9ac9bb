"""decision: the base unit that exporters give a metric in: seconds, bytes, ratio; and its name there."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["base_unit"]

_BASES: Final[Mapping[str, tuple[str, float]]] = MappingProxyType(
    {
        "milliseconds": ("seconds", 1e-3),
        "microseconds": ("seconds", 1e-6),
        "percent": ("ratio", 1e-2),
        "kilobytes": ("bytes", 1e3),
        "megabytes": ("bytes", 1e6),
        "gigabytes": ("bytes", 1e9),
        "kibibytes": ("bytes", 1024.0),
        "mebibytes": ("bytes", 1024.0**2),
        "gibibytes": ("bytes", 1024.0**3),
    }
)


def base_unit(unit: str) -> tuple[str, float]:
    """Return the base unit of ``unit``, and by what a value is multiplied to be in it.

    Inside of the monitor a value stays as it was given, so that thresholds mean what they say.

    Source: the base units of https://prometheus.io/docs/practices/naming/.

    >>> base_unit("milliseconds"), base_unit("percent"), base_unit("entries")
    (('seconds', 0.001), ('ratio', 0.01), ('entries', 1.0))
    """
    return _BASES.get(unit, (unit, 1.0))
