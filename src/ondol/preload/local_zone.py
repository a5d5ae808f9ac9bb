"""adapter: the machine's own time zone, by the TZ variable, else by /etc/localtime."""

from __future__ import annotations

import logging
import os
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["local_zone"]

logger = logging.getLogger("ondol.preload")

_FOLDER: Final = "zoneinfo/"
_LOCALTIME: Final = Path("/etc/localtime")
_told: set[str] = set()


def local_zone(environ: Mapping[str, str] = os.environ, localtime: Path = _LOCALTIME) -> tzinfo:
    """Return the zone with its changes of clocks; its present offset alone, with a warning, when it cannot be found."""
    name = environ.get("TZ", "").removeprefix(":")
    zone = (_named(name) or _from_file(Path(name))) if name else _from_file(localtime)
    if zone is not None:
        return zone
    now = datetime.now().astimezone()
    assert now.tzinfo is not None
    source = f"TZ={name!r}" if name else str(localtime)
    if source not in _told:  # once is enough
        _told.add(source)
        logger.warning(
            "the machine's time zone cannot be found out by %s: hints without a zone go by its present offset %s, also "
            "when its clocks change; give them a zone such as Asia/Seoul, or set TZ to one",
            *(source, f"UTC{now:%z}"),
        )
    return now.tzinfo


def _named(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (ValueError, LookupError, OSError):
        return None


def _from_file(path: Path) -> tzinfo | None:
    """Return the zone that a file describes: under its name if a link tells that."""
    try:
        target = str(path.resolve())
        named = _named(target.rpartition(_FOLDER)[2]) if _FOLDER in target else None
        if named is not None:
            return named
        with path.open("rb") as file:
            return ZoneInfo.from_file(file)
    except (ValueError, OSError):
        return None
