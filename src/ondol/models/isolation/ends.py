"""decision: how the process of a model ended, in words and as an error."""

from __future__ import annotations

import signal
from typing import NamedTuple

from ondol.errors import ModelCrashedError
from ondol.models.isolation.protocol import EXIT_OUT_OF_MEMORY

__all__ = ["ModelExit"]


class ModelExit(NamedTuple):
    """The end of an isolated model.

    Attributes:
        name: of the model.
        exit_code: what its process returned; ``None`` after a signal, or when the process was lost.
        signal_name: of the signal that ended it, such as ``SIGKILL``.
        is_expected: it was told to close.
        reason: why it was ended from here (a call took too long, it sent nonsense) or cannot be told, else empty.
        stderr_tail: the last lines it wrote to standard error.
    """

    name: str
    exit_code: int | None
    signal_name: str | None
    is_expected: bool
    reason: str
    stderr_tail: tuple[str, ...]

    @classmethod
    def of(
        cls, name: str, code: int | None, *, is_expected: bool, reason: str, stderr_tail: tuple[str, ...]
    ) -> ModelExit:
        """Read ``code`` as the fork server reports it: negative is a signal, ``None`` is not known."""
        signal_name = _signal_name(-code) if code is not None and code < 0 else None
        return cls(name, code if signal_name is None else None, signal_name, is_expected, reason, stderr_tail)

    def describe(self) -> str:
        """Return how it ended, as part of a sentence."""
        if self.signal_name is not None:
            hint = ", perhaps by the kernel for want of memory" if self.signal_name == "SIGKILL" else ""
            how = f"was ended by {self.signal_name}" + (hint if not self.reason else "")
        elif self.exit_code is None:
            how = "was lost"
        elif self.exit_code == EXIT_OUT_OF_MEMORY:
            how = f"ran out of memory (exit code {self.exit_code})"
        else:
            how = f"ended with exit code {self.exit_code}"
        return f"{how}: {self.reason}" if self.reason else how

    def error(self) -> ModelCrashedError:
        """Return a new error for one caller."""
        return ModelCrashedError(
            f"the process of model {self.name!r} {self.describe()}",
            exit_code=self.exit_code,
            signal_name=self.signal_name,
            stderr_tail=self.stderr_tail,
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
