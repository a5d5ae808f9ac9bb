"""adapter: whether what is in a folder may be trusted, by who may change it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ondol.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_ownership", "check_writers"]


def check_ownership(status: os.stat_result, path: Path) -> None:
    """Check that only this user and root may change ``path``.

    The group may be allowed to write when it is this user's own primary group: where every user has a group of the
    same name, that is how files are made.

    Raises:
        ConfigurationError: it belongs to another user, or another group or everybody may change it; the message says
            what to do.
    """
    user = os.geteuid()
    if status.st_uid not in {0, user}:
        message = f"{path} belongs to user {status.st_uid}, so it cannot be trusted: chown {user} {path}"
        raise ConfigurationError(message)
    check_writers(status, path)
    if status.st_mode & stat.S_IWGRP and status.st_gid != os.getegid():
        message = f"all of group {status.st_gid} may change {path}, so it cannot be trusted: chmod g-w {path}"
        raise ConfigurationError(message)


def check_writers(status: os.stat_result, path: Path) -> None:
    """Check that not everybody may change ``path``.

    Raises:
        ConfigurationError: everybody may.
    """
    if status.st_mode & stat.S_IWOTH:
        message = f"every user may change {path}, so it cannot be trusted: chmod o-w {path}"
        raise ConfigurationError(message)
