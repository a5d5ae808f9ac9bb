"""decision: bounds of single names, in bytes or as shares of the whole cache."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ondol.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Quotas", "checked_quotas"]


class Quotas:
    """Quotas by name as they were given; shares move with the bound of the cache."""

    __slots__ = ("_given",)

    def __init__(self, given: Mapping[str, float]) -> None:
        self._given = dict(given)

    def in_bytes(self, max_bytes: Any) -> dict[str, int]:
        """Return each quota in bytes, for a cache of ``max_bytes``."""
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int):
            return {}  # the cache refuses it with a word of its own
        return {
            name: max(1, int(quota * max_bytes)) if quota <= 1 else int(quota) for name, quota in self._given.items()
        }

    def with_quota(self, name: str, quota: float | None) -> Quotas:
        """Return the quotas with another one for ``name``, or without it.

        Raises:
            ConfigurationError: it is not allowed.
        """
        rest = {other: held for other, held in self._given.items() if other != name}
        return Quotas(rest) if quota is None else checked_quotas({**rest, name: quota})


def checked_quotas(quotas: Mapping[Any, Any]) -> Quotas:
    """Return the quotas.

    Raises:
        ConfigurationError: one that is no number above 0, or no whole number of bytes above 1.
    """
    for name, quota in quotas.items():
        is_number = isinstance(quota, (int, float)) and not isinstance(quota, bool) and math.isfinite(quota)
        if not isinstance(name, str) or not is_number or quota <= 0 or (quota > 1 and quota != int(quota)):
            raise ConfigurationError(
                f"the quota {name!r}: {quota!r} is not allowed: it must be a whole number of bytes, "
                "or a share of the cache above 0 and at most 1"
            )
    return Quotas(quotas)
