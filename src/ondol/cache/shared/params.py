"""decision: the numbers that the shared tier works by."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ondol.errors import InvalidSettingError

__all__ = ["SharedParams"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedParams:
    """What may be set about a :class:`ondol.cache.shared.SharedTier`; docs/en/decisions/008 gives the reasons.

    Raises:
        InvalidSettingError: a value is not a number above 0.
    """

    lease_s: float = 5.0
    """How long a lease lasts that its holder does not extend any more: the wait after a holder was killed."""
    max_hold_s: float = 300.0
    """A lease is not extended beyond this: a computation that hangs is given up by those who wait for it."""
    wake_poll_s: float = 0.25
    """How often at most a waiter asks without having been woken, in case the waking was lost."""
    read_batch: int = 512
    """Keys that go out in one round trip at most."""
    reads_under_way: int = 2
    """Round trips for reads that may be under way at once."""
    queue_puts: int = 10_000
    """Values that may wait to be written; more are dropped."""
    queue_bytes: int = 64 * 1024 * 1024
    queue_values: int = 100_000
    """Keys, tags and globs that may wait to be invalidated; when there are more, everything is."""
    failures_in_a_row: int = 3
    """Failures in a row that open the breaker."""
    failure_ratio: float = 0.5
    """It also opens when more than this part of the last 20 operations failed."""
    probe_s: float = 0.05
    """Wait before the first probe of a store that is down; doubles from probe to probe."""
    max_probe_s: float = 1.0
    settle_s: float = 1.5
    """After an outage nothing is read for this long: other processes bring their invalidations meanwhile."""
    log_wait_s: float = 1.0
    """How long one look into the log waits for lines; a dead connection is noticed after it."""

    def __post_init__(self) -> None:
        """Check the values."""
        problems = [
            f"{field.name}={value!r} is not allowed: it must be a number > 0"
            for field in fields(self)
            if not _is_positive(value := getattr(self, field.name)) and not (field.name == "settle_s" and value == 0)
        ]
        if problems:
            raise InvalidSettingError(problems)


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
