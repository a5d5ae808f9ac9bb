"""decision: one stored value and what the memory tier and its eviction policy know of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ondol.cache.lifetime import Timing
    from ondol.cache.shelf import Shelf

__all__ = ["FOREVER", "NEVER_CALM", "Entry"]

FOREVER: Final = math.inf
"""Compared by identity on the hot path: with this very object as ``calm_until_s`` nobody looks at the clock."""

NEVER_CALM: Final = -math.inf
"""As ``calm_until_s``: of every hit somebody is to be told."""


class Entry:
    """One stored value. Its policy may keep what it likes in ``place`` and ``rank``, and a hash of the key in ``mark``.

    ``uses`` is counted by the tier at each hit. A policy that wants to be told of an entry's hits one by one, in their
    order, calls ``track`` for it; the hits of all others cost it nothing. ``is_live`` turns false when an entry leaves:
    who finds one that has left, in a queue or a list of hits, passes over it.
    """

    __slots__ = (
        "calm_until_s",
        "cost_s",
        "is_live",
        "is_tracked",
        "key",
        "mark",
        "place",
        "rank",
        "shelf",
        "size_bytes",
        "tags",
        "timing",
        "uses",
        "value",
    )

    def __init__(
        self,
        key: Hashable,
        shelf: Shelf,
        value: Any,
        size_bytes: int,
        cost_s: float,
        timing: Timing | None = None,
        tags: tuple[str, ...] = (),
    ) -> None:
        self.key = key
        self.shelf = shelf
        self.value = value
        self.size_bytes = size_bytes
        self.cost_s = cost_s
        self.timing = timing
        self.tags = tags
        self.is_live = True
        self.is_tracked = False
        self.uses = 0
        self.mark = 0
        self.place: Any = None
        self.rank = 0.0
        self.calm_until_s = FOREVER if timing is None else timing.calm_until_s
        """Until then a hit is nothing but a hit: no deadline to look at, nothing to refresh, nobody to tell."""

    def track(self, is_tracked: bool) -> None:
        """Have the policy told of each hit from now on, or not any more."""
        self.is_tracked = is_tracked
        self.settle()

    def settle(self) -> None:
        """Work out ``calm_until_s`` again after ``timing`` or ``is_tracked`` were changed."""
        if self.is_tracked:
            self.calm_until_s = NEVER_CALM
        else:
            self.calm_until_s = FOREVER if self.timing is None else self.timing.calm_until_s
