"""decision: what of a pool can be configured while it runs, and which values are allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ondol.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ondol.models.retry import RetryPolicy

__all__ = ["Options", "check_bound"]

_UNBOUNDED = frozenset({"is_lazy_loading_enabled", "retry"})


@dataclass(slots=True, eq=False, repr=False)
class Options:
    """The options, checked when made. ``None`` is no limit, or no retry.

    Raises:
        ConfigurationError: a bound is not positive.
    """

    max_background_loads: int
    max_demand_loads: int
    is_lazy_loading_enabled: bool
    lease_timeout_s: float
    load_timeout_s: float | None
    idle_ttl_s: float | None
    retry: RetryPolicy | None

    def __post_init__(self) -> None:
        """Check every bound."""
        for name in self.__slots__:
            if name not in _UNBOUNDED:
                check_bound(name, getattr(self, name))

    def change(self, changes: Mapping[str, Any]) -> None:
        """Take ``changes``, all or none.

        Raises:
            ConfigurationError: a bound is not positive; nothing was changed.
        """
        for name, value in changes.items():
            if name not in _UNBOUNDED:
                check_bound(name, value)
        for name, value in changes.items():
            setattr(self, name, value)


def check_bound(name: str, value: float | None) -> None:
    """Check that ``value`` is positive and finite, or ``None``.

    Raises:
        ConfigurationError: it is not.
    """
    if value is not None and (isinstance(value, bool) or not math.isfinite(value) or value <= 0):
        message = f"{name} must be a number greater than 0, not {value!r}"
        raise ConfigurationError(message)
