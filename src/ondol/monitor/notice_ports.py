"""decision: what a notifier is for the rest of the monitor, and how patient one is with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ondol.errors import OndolError

if TYPE_CHECKING:
    from ondol.monitor.notice import Notice

__all__ = ["DeliveryTerms", "NoticeRejectedError", "Notifier", "backoff_s"]

FIRST_BACKOFF_S: Final = 1.0
MAX_BACKOFF_S: Final = 60.0


class DeliveryTerms(NamedTuple):
    """What a notifier may take and how long it is tried again."""

    timeout_s: float = 10.0
    """For one attempt."""
    retry_for_s: float = 300.0
    """After so long a notice is put off to the next interval of its group."""
    sends_resolved: bool = True


class NoticeRejectedError(OndolError):
    """A receiver answered, and did not take a notice."""

    def __init__(self, message: str, *, is_permanent: bool, retry_after_s: float | None = None) -> None:
        """Keep whether trying the same again is of no use, else how long the receiver asks to wait."""
        super().__init__(message)
        self.is_permanent = is_permanent
        self.retry_after_s = retry_after_s


class Notifier(Protocol):
    """Tells somebody of a notice."""

    @property
    def name(self) -> str:
        """Return the name in statistics, logs and metrics."""
        ...

    @property
    def terms(self) -> DeliveryTerms:
        """Return how long an attempt may take, and how long a notice is tried again."""
        ...

    async def send(self, notice: Notice) -> None:
        """Return when the receiver has taken ``notice``; any error means that it may not have.

        Cancellation: an attempt that takes too long is cancelled; the event loop must never be blocked.

        Raises:
            NoticeRejectedError: the receiver refused it.
            OSError: the receiver cannot be reached.
        """
        ...


def backoff_s(attempt: int, random: float, retry_after_s: float | None = None) -> float:
    """Return how long to wait after the failed ``attempt`` (0 is the first), given a random number in [0, 1).

    Exponential with full jitter: evenly spread up to 1, 2, 4 … 60 s, and not before the receiver asked for.
    """
    jitter_s = random * min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(attempt, 10))
    return max(jitter_s, retry_after_s or 0.0)
