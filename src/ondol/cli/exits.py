"""decision: the exit codes of the command line, and which error leads to which."""

from __future__ import annotations

from typing import Final

from ondol.errors import (
    ConfigurationError,
    InvalidTextError,
    MissingExtraError,
    OndolError,
    ServerUnreachableError,
    UnknownDocumentError,
    UnknownModelError,
)

__all__ = [
    "EXIT_BROKEN_PIPE",
    "EXIT_CODES_HELP",
    "EXIT_FAILURE",
    "EXIT_INTERRUPTED",
    "EXIT_INVALID",
    "EXIT_NO_SERVER",
    "EXIT_OK",
    "exit_code",
]

EXIT_OK: Final = 0
EXIT_FAILURE: Final = 1
EXIT_INVALID: Final = 2
EXIT_NO_SERVER: Final = 3
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE: Final = 141  # 128 + SIGPIPE: what `ondol … | head` gives, as from any other tool

EXIT_CODES_HELP: Final = (
    "0  done",
    "1  failure: the work could not be done",
    "2  wrong usage, or input or settings that are not valid",
    "3  no server could be reached",
)
"""The exit codes as lines of a help text."""

_INVALID: Final = (ConfigurationError, InvalidTextError, UnknownModelError, UnknownDocumentError)


def exit_code(error: OndolError) -> int:
    """Return the exit code that ``error`` ends a command with."""
    if isinstance(error, ServerUnreachableError):
        return EXIT_NO_SERVER
    if isinstance(error, MissingExtraError):
        return EXIT_FAILURE  # what was asked for is valid; it is the installation that lacks something
    return EXIT_INVALID if isinstance(error, _INVALID) else EXIT_FAILURE
