"""decision: the circuit breaker: when a store counts as down, and when it is asked again.

While it is down no caller's request is sent to find out whether it is back: probes of its own do, ever more rarely.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.cache.shared.params import SharedParams

__all__ = ["CircuitBreaker", "State"]

State = Literal["closed", "open", "half-open"]

_WINDOW: Final = 20
_CALM_S: Final = 10.0
"""A store that fails again within this time after it came back is probed as rarely as before."""


class CircuitBreaker:
    """Begins open: a store counts as up once a probe has found it so.

    ``random`` returns numbers from 0 to 1 (1 excluded): probes of many processes do not come at the same time.

    Source: the states are those of M. Nygard, Release It! (2007); ours never uses a caller's request as the probe, and
    closes only after what was missed meanwhile has been made up for.
    """

    def __init__(self, params: SharedParams, random: Callable[[], float]) -> None:
        self._params = params
        self._random = random
        self._in_a_row = 0
        self._outcomes: deque[bool] = deque(maxlen=_WINDOW)
        self._attempts = 0
        self._closed_at_s: float | None = None
        self.state: State = "open"
        self.opened = 0
        """How often it opened after having been closed."""

    @property
    def is_closed(self) -> bool:
        """Whether requests may go out."""
        return self.state == "closed"

    def succeeded(self) -> None:
        """Take note of an operation that was done."""
        self._in_a_row = 0
        self._outcomes.append(True)

    def failed(self, now_s: float, *, is_final: bool = False) -> bool:
        """Take note of a failure; ``is_final`` when one is enough. Return whether the breaker opened by it."""
        if not self.is_closed:
            return False
        self._in_a_row += 1
        self._outcomes.append(False)
        failures = self._outcomes.count(False)
        is_often = len(self._outcomes) == _WINDOW and failures > self._params.failure_ratio * _WINDOW
        if not (is_final or is_often or self._in_a_row >= self._params.failures_in_a_row):
            return False
        self.state = "open"
        self.opened += 1
        if self._closed_at_s is None or now_s - self._closed_at_s > _CALM_S:
            self._attempts = 0
        return True

    def probe(self) -> None:
        """Take note that a probe goes out."""
        self.state = "half-open"

    def probe_failed(self) -> None:
        """Take note that it failed."""
        self.state = "open"

    def next_probe_s(self) -> float:
        """Return how long to wait before the next probe: from half to all of a time that doubles each time."""
        longest_s = min(self._params.max_probe_s, self._params.probe_s * 2.0 ** min(self._attempts, 60))
        self._attempts += 1
        return longest_s * (0.5 + 0.5 * self._random())

    def close(self, now_s: float) -> None:
        """Let requests out again."""
        self.state = "closed"
        self._closed_at_s = now_s
        self._in_a_row = 0
        self._outcomes.clear()
