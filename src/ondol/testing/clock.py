"""decision: a clock that goes only when told to."""

from __future__ import annotations

__all__ = ["FakeClock"]


class FakeClock:
    """A :class:`ondol.clock.Clock` for tests of decisions and other synchronous code.

    >>> clock = FakeClock()
    >>> clock.advance(1.5)
    >>> clock.monotonic()
    1.5
    """

    def __init__(self, start_s: float = 0.0, epoch_s: float = 1_750_000_000.0) -> None:
        """Begin at ``start_s`` monotonic, ``epoch_s`` wall-clock seconds."""
        self._now_s = start_s
        self._epoch_s = epoch_s - start_s

    def monotonic(self) -> float:
        """Return the time it was advanced to."""
        return self._now_s

    def wall(self) -> float:
        """Return wall-clock seconds that advance together with the monotonic ones."""
        return self._epoch_s + self._now_s

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        if seconds < 0:
            message = f"time does not go back: advance({seconds})"
            raise ValueError(message)
        self._now_s += seconds
