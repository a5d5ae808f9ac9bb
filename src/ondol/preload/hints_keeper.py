"""service: when hints are read from their file and written to it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from ondol.models.loader import call
from ondol.preload.hint import Hint, hint_from_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ondol.preload.ports import HintStore

__all__ = ["HintsKeeper"]

logger = logging.getLogger("ondol.preload")

_VERSION: Final = 1


class HintsKeeper:
    """Reads a store once, and writes it soon after each change. Without a store it does nothing."""

    def __init__(self, store: HintStore | None, capture: Callable[[], tuple[int, Sequence[Hint]]]) -> None:
        """Keep in ``store`` what ``capture`` returns: a number that grows with each change, and the hints."""
        self._store = store
        self._capture = capture
        self._has_read = False
        self._written = 0
        self._writing: asyncio.Task[None] | None = None
        self.failures = self.damaged = 0

    def start(self) -> list[Hint]:
        """Return what earlier processes kept: a small file, read once. Nothing that is wrong with it is raised."""
        self._writing = None  # not one of a loop that was closed
        if self._store is None or self._has_read:
            return []
        self._has_read = True
        try:
            plain = self._store.read()
            return [] if plain is None else self._understood(plain)
        except (ValueError, RecursionError) as exc:
            self._set_aside(exc)
        except OSError:
            self.failures += 1
            logger.exception("the hints of earlier processes cannot be read")
        return []

    def _understood(self, plain: dict[str, Any]) -> list[Hint]:
        """Return the sound ones; a copy of the rest is set aside, for all are written anew."""
        rows = plain.get("hints")
        if plain.get("version") != _VERSION or not isinstance(rows, list):
            message = f"they are not of version {_VERSION}"
            raise ValueError(message)
        if not rows:
            return []
        from ondol.preload.local_zone import local_zone  # noqa: PLC0415  # an idle start shall not pay for it

        zone = local_zone()
        found: list[Hint] = []
        refused: ValueError | None = None
        for row in rows:
            try:
                found.append(hint_from_plain(row, zone))
            except ValueError as exc:
                refused = exc
        if refused is not None:
            self._set_aside(refused)
        return found

    def _set_aside(self, exc: Exception) -> None:
        self.damaged += 1
        logger.error("the hints of earlier processes are damaged; the file is set aside", exc_info=exc)
        assert self._store is not None
        try:
            self._store.set_aside()
        except OSError:
            self.failures += 1
            logger.exception("the damaged hints cannot be set aside")

    def changed(self) -> None:
        """Write soon what has changed; in the loop."""
        if self._store is None or (self._writing is not None and not self._writing.done()):
            return  # whoever is writing looks again
        if self._capture()[0] != self._written:
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="ondol-preload-hints")

    async def close(self) -> None:
        """Write what is not written yet."""
        writing, self._writing = self._writing, None
        if writing is not None and writing.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([writing])
        await self._write()

    async def _write(self) -> None:
        while self._store is not None:
            number, hints = self._capture()
            if number == self._written:
                return
            plain = {"version": _VERSION, "hints": [hint.to_plain() for hint in hints]}
            try:
                await call(self._store.write, plain, name="preload-hints")
            except OSError:
                self.failures += 1
                logger.exception("hints cannot be kept: they end with this process")
                return
            self._written = number
