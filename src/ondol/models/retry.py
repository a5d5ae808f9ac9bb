"""decision: when a load that failed is tried again, and when no more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ondol.errors import ConfigurationError, MissingExtraError, ModelBudgetError, RemoteModelError

__all__ = ["RetryPolicy", "is_hopeless"]

_HOPELESS: Final = (ConfigurationError, MissingExtraError, ModelBudgetError, ImportError, SyntaxError)
_HOPELESS_ELSEWHERE: Final = frozenset(
    {
        "builtins.ImportError",
        "builtins.ModuleNotFoundError",
        "builtins.SyntaxError",
        "ondol.errors.ConfigurationError",
        "ondol.errors.InvalidSettingError",
        "ondol.errors.MissingExtraError",
    }
)
"""The same, as the process of an isolated model names them."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter; quarantine after too many failures in a row.

    Attributes:
        attempts: failures in a row after which the model is quarantined; at least 1.
        first_s: wait after the first failure, in seconds.
        factor: each further wait is so many times longer.
        most_s: longest wait, in seconds.
        jitter_ratio: 0 to 1; so much of each wait is drawn by chance, or many processes would try in step.
        stable_s: a model that has been ready for so long has recovered: earlier crashes no longer count.

    Raises:
        ConfigurationError: a field is out of its range.

    Source: "equal jitter" of M. Brooker, Exponential Backoff And Jitter (AWS Architecture Blog, 2015), with the share
    that is drawn as a parameter.

    >>> [RetryPolicy(first_s=1.0).delay_s(failures, drawn=1.0) for failures in (1, 2, 3, 9)]
    [1.0, 2.0, 4.0, 30.0]
    """

    attempts: int = 3
    first_s: float = 0.5
    factor: float = 2.0
    most_s: float = 30.0
    jitter_ratio: float = 0.5
    stable_s: float = 60.0

    def __post_init__(self) -> None:
        """Check every field."""
        attempts: object = self.attempts
        is_count = isinstance(attempts, int) and not isinstance(attempts, bool) and attempts >= 1
        problems = [
            ("attempts", "an integer >= 1", is_count),
            ("first_s", "a number >= 0", _is_within(self.first_s, 0.0, math.inf)),
            ("factor", "a number >= 1", _is_within(self.factor, 1.0, math.inf)),
            ("most_s", "a number >= 0", _is_within(self.most_s, 0.0, math.inf)),
            ("jitter_ratio", "a number from 0 to 1", _is_within(self.jitter_ratio, 0.0, 1.0)),
            ("stable_s", "a number >= 0", _is_within(self.stable_s, 0.0, math.inf)),
        ]
        for field, allowed, is_right in problems:
            if not is_right:
                message = f"{field} of a retry policy must be {allowed}, not {getattr(self, field)!r}"
                raise ConfigurationError(message)

    def is_exhausted(self, failures: int) -> bool:
        """Tell whether so many failures in a row are enough."""
        return failures >= self.attempts

    def delay_s(self, failures: int, *, drawn: float) -> float:
        """Return the wait after ``failures`` in a row (at least 1); ``drawn`` is a random number from 0 to 1."""
        exponent = min(failures - 1, 64)  # beyond that only most_s counts, and powers would overflow
        full_s = min(self.most_s, self.first_s * self.factor**exponent)
        return full_s * (1.0 - self.jitter_ratio) + full_s * self.jitter_ratio * drawn


def _is_within(value: object, least: float, most: float) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most and value < math.inf
    )


def is_hopeless(error: BaseException) -> bool:
    """Tell whether trying again cannot help: something is missing, wrong or too large and stays so.

    >>> is_hopeless(ModuleNotFoundError("torch")), is_hopeless(TimeoutError())
    (True, False)
    """
    seen: BaseException | None = error
    for _ in range(8):  # loaders wrap what went wrong
        if isinstance(seen, _HOPELESS):
            return True
        if isinstance(seen, RemoteModelError) and seen.type_name in _HOPELESS_ELSEWHERE:
            return True
        seen = seen.__cause__ if seen is not None else None
    return False
