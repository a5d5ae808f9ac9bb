"""adapter: the server's own admin key, in a file that only its user can read, for as long as the server runs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ondol.settings import Settings

__all__ = ["FILE_NAME", "AdminToken", "token_path"]

logger = logging.getLogger("ondol.server")

FILE_NAME: Final = "admin-token"


def token_path(settings: Settings) -> Path:
    """Return where a server with these settings puts its token."""
    return Path(settings.data_dir).absolute() / FILE_NAME


class AdminToken:
    """A random key, made at the start when the settings hold none, so that actions on models are never open to all.

    Of two servers on one folder the file holds the token of the one that started last.
    """

    def __init__(self, path: Path) -> None:
        """Make the key; nothing is written yet."""
        self.path = path
        self.value = os.urandom(24).hex()
        self.is_written = False

    def write(self) -> None:
        """Put it into its file, all at once; a folder that cannot be written is logged, and the server runs without."""
        draft = self.path.with_name(f"{FILE_NAME}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draft.unlink(missing_ok=True)
            # A new file, or none: never through a link that somebody has put there.
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(self.value + "\n")
            draft.replace(self.path)
        except OSError as exc:
            logger.warning(
                "the admin token could not be written to %s (%s): actions on models need ONDOL_ADMIN_KEY",
                self.path,
                exc.strerror or exc,
            )
        else:
            self.is_written = True

    def remove(self) -> None:
        """Remove the file, if it is still this one."""
        try:
            if self.is_written and self.path.read_text(encoding="ascii").strip() == self.value:
                self.path.unlink()
        except (OSError, UnicodeDecodeError) as exc:
            logger.debug("the admin token at %s was not removed: %s", self.path, exc)
