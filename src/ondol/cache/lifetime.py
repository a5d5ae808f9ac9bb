"""decision: how long entries live: time to live, idle time, stale use, refreshing ahead of time, jitter."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple, TypedDict

__all__ = [
    "DEFAULT_LIFETIME",
    "Lifetime",
    "LifetimeOptions",
    "Timing",
    "checked_lifetime",
    "checked_time_s",
    "checked_ttl_s",
]

_S_PER_HOUR: Final = 3600.0


class Timing:
    """The times of one entry, in monotonic seconds."""

    __slots__ = ("calm_until_s", "deadline_s", "fresh_until_s", "idle_ttl_s", "leaves_at_s")

    def __init__(self, leaves_at_s: float, fresh_until_s: float, idle_ttl_s: float | None, now_s: float) -> None:
        self.leaves_at_s = leaves_at_s
        """Its time to live ends here, stale use included; infinity for one that only idleness ends."""
        self.fresh_until_s = fresh_until_s
        """From here on a hit asks for a refresh."""
        self.idle_ttl_s = idle_ttl_s
        self.deadline_s = leaves_at_s
        """From here on it is not to be used: the end of its time to live, or of its idle time as it is now."""
        self.calm_until_s = min(fresh_until_s, leaves_at_s)
        if idle_ttl_s is not None:
            self.calm_until_s = -math.inf  # each use moves the deadline
            self.used(now_s)

    def used(self, now_s: float) -> None:
        """Move the end of the idle time."""
        if self.idle_ttl_s is not None:
            self.deadline_s = min(self.leaves_at_s, now_s + self.idle_ttl_s)

    def refresh_later(self, at_s: float) -> None:
        """Ask for no refresh before ``at_s``."""
        self.fresh_until_s = at_s
        if self.idle_ttl_s is None:
            self.calm_until_s = min(at_s, self.leaves_at_s)


class Lifetime(NamedTuple):
    """How long entries of a kind live; ``None`` stands for without limit, or not wanted."""

    ttl_s: float | None = None
    idle_ttl_s: float | None = None
    stale_ttl_s: float = 0.0
    refresh_ahead: float | None = None
    ttl_jitter: float = 0.0

    def begin(self, now_s: float, chance: float) -> Timing | None:
        """Return the times of an entry that is set now.

        Args:
            now_s: the monotonic time.
            chance: a random number in [0, 1), which the jitter takes its part from.
        """
        if self.ttl_s is None:
            if self.idle_ttl_s is None:
                return None
            return Timing(math.inf, math.inf, self.idle_ttl_s, now_s)
        ttl_s = self.ttl_s * (1.0 - self.ttl_jitter * chance)
        fresh_s = ttl_s if self.refresh_ahead is None else ttl_s * self.refresh_ahead
        return Timing(now_s + ttl_s + self.stale_ttl_s, now_s + fresh_s, self.idle_ttl_s, now_s)

    @property
    def is_refreshed(self) -> bool:
        """Whether a hit may find it in need of a refresh while it can still be used."""
        return self.stale_ttl_s > 0 or self.refresh_ahead is not None


class LifetimeOptions(TypedDict, total=False):
    """The keyword arguments that say how long an entry lives."""

    ttl_hours: float | None
    ttl_s: float | None
    idle_ttl_s: float | None
    stale_ttl_s: float | None
    refresh_ahead: float | None
    ttl_jitter: float | None


DEFAULT_LIFETIME: Final = Lifetime()


def checked_ttl_s(ttl_hours: float | None, ttl_s: float | None) -> float | None:
    """Return the time to live in seconds, ``None`` when none was given, infinity for ever.

    Raises:
        ValueError: it is not above 0, not a number, or given twice.
    """
    if ttl_hours is None and ttl_s is None:
        return None
    if ttl_hours is not None and ttl_s is not None:
        raise ValueError(f"give ttl_hours or ttl_s, not both: ttl_hours={ttl_hours!r}, ttl_s={ttl_s!r}")
    if ttl_hours is None:
        return checked_time_s("ttl_s", ttl_s)
    return checked_time_s("ttl_hours", ttl_hours) * _S_PER_HOUR


def checked_lifetime(options: LifetimeOptions, base: Lifetime = DEFAULT_LIFETIME) -> Lifetime:
    """Return the lifetime that the keyword arguments of a call mean; what is not given is as in ``base``.

    Raises:
        ValueError: a value that is not allowed, or that makes no sense without a time to live.
    """
    unknown = options.keys() - LifetimeOptions.__annotations__.keys()
    if unknown:
        allowed = ", ".join(sorted(LifetimeOptions.__annotations__))
        raise TypeError(f"unexpected argument {min(unknown)!r}; how long an entry lives is said with {allowed}")
    ttl_s = checked_ttl_s(options.get("ttl_hours"), options.get("ttl_s"))
    ttl_s = base.ttl_s if ttl_s is None else ttl_s
    lifetime = Lifetime(
        None if ttl_s is None or math.isinf(ttl_s) else ttl_s,
        _idle(options, base),
        _within("stale_ttl_s", options.get("stale_ttl_s"), base.stale_ttl_s, math.inf),
        _share("refresh_ahead", options.get("refresh_ahead"), base.refresh_ahead),
        _within("ttl_jitter", options.get("ttl_jitter"), base.ttl_jitter, 1.0),
    )
    if lifetime.ttl_s is None:
        given = [name for name in ("stale_ttl_s", "refresh_ahead", "ttl_jitter") if options.get(name)]
        if given:
            raise ValueError(f"{given[0]}={options.get(given[0])!r} needs a time to live: give ttl_s or ttl_hours too")
        return Lifetime(None, lifetime.idle_ttl_s)
    return lifetime


def _idle(options: LifetimeOptions, base: Lifetime) -> float | None:
    idle_ttl_s = options.get("idle_ttl_s")
    if idle_ttl_s is None:
        return base.idle_ttl_s
    idle_ttl_s = checked_time_s("idle_ttl_s", idle_ttl_s)
    return None if math.isinf(idle_ttl_s) else idle_ttl_s


def checked_time_s(name: str, value: Any) -> float:
    """Return a time to live.

    Raises:
        ValueError: it is not a number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{name}={value!r} is not allowed: it must be a number > 0 (math.inf for ever)")
    return _as_float(name, value)


def _within(name: str, value: Any, default: float, end: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < end:
        allowed = "a number ≥ 0" if math.isinf(end) else f"a number ≥ 0 and < {end:g}"
        raise ValueError(f"{name}={value!r} is not allowed: it must be {allowed}")
    return _as_float(name, value)


def _as_float(name: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is not allowed: it is too large (math.inf stands for ever)") from None


def _share(name: str, value: Any, default: float | None) -> float | None:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise ValueError(
            f"{name}={value!r} is not allowed: it must be a number > 0 and < 1, "
            "the share of the time to live after which a hit refreshes the entry"
        )
    return float(value)
