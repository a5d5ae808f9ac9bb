"""adapter: the log of invalidations, and the wake-ups of those who wait for leases, as two Redis streams.

Each line has a number one above the line before it, so that a hole is noticed, however it came about.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.adapters import redis_scripts as scripts
from ondol.cache.ports import Invalidation, LogGapError, LogLine, LogPage, LogPosition, StoreFaultError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ondol.cache.adapters.redis_link import RedisLink
    from ondol.cache.shared.names import Naming

__all__ = ["RedisLog"]

LINES_KEPT: Final = 10_000
WAKES_KEPT: Final = 1_000
_LINES_A_PAGE: Final = 1_000
_VALUES_A_LINE: Final = 1_000


class RedisLog:
    """The log in one namespace."""

    def __init__(self, link: RedisLink, naming: Naming, lines_kept: int = LINES_KEPT) -> None:
        self._link = link
        self._naming = naming
        self._lines_kept = lines_kept

    async def append(self, invalidation: Invalidation, sender: str) -> None:
        """Write one line, or several for many values."""
        for part in _parts(invalidation):
            text = json.dumps([part.kind, *part.values])
            epoch, keep = secrets.token_hex(8), self._lines_kept
            await self._link.one("EVAL", scripts.APPEND, 1, self._naming.log, epoch, keep, sender, text)

    async def wake(self, keys: Sequence[str]) -> None:
        """Tell those who wait for leases on ``keys`` that these have ended."""
        await self._link.run(
            [
                ("XADD", self._naming.wakes, "MAXLEN", "~", WAKES_KEPT, "*", "k", key.encode("utf-8", "surrogatepass"))
                for key in keys
            ]
        )

    async def position(self) -> LogPosition:
        """Return where the log ends."""
        begin = ("EVAL", scripts.POSITION, 1, self._naming.log, secrets.token_hex(8))
        latest = ("XREVRANGE", self._naming.wakes, "+", "-", "COUNT", 1)
        ends, wakes = await self._link.run([begin, latest])
        for reply in (ends, wakes):
            if isinstance(reply, StoreFaultError):
                raise reply
        epoch, line_id, number = (part.decode() for part in ends)
        return LogPosition(epoch, f"{line_id} {number} {wakes[0][0].decode() if wakes else '0-0'}")

    async def read(self, position: LogPosition, wait_s: float) -> LogPage:
        """Return what came after ``position``.

        Raises:
            LogGapError: the log does not tell all of it.
            StoreFaultError: the server failed.
        """
        line_id, number, wake_id = position.offset.split(" ")
        if not wait_s:
            await self._check(position.epoch, line_id, number)
        wait = ("BLOCK", max(1, round(wait_s * 1000))) if wait_s else ()
        names = (self._naming.log, self._naming.wakes, line_id, wake_id)
        streams = await self._link.one("XREAD", "COUNT", _LINES_A_PAGE, *wait, "STREAMS", *names, extra_s=wait_s)
        lines: list[LogLine] = []
        woken: list[str] = []
        for name, entries in _streams(streams):
            for entry_id, fields in entries:
                if name == self._naming.log:
                    number = _following(fields, position.epoch, number)
                    lines.extend(_line(fields))
                    line_id = entry_id.decode()
                else:
                    woken.append(fields[b"k"].decode("utf-8", "surrogatepass"))
                    wake_id = entry_id.decode()
        return LogPage(LogPosition(position.epoch, f"{line_id} {number} {wake_id}"), tuple(lines), tuple(woken))

    async def _check(self, epoch: str, line_id: str, number: str) -> None:
        state = await self._link.one("EVAL", scripts.LOG_STATE, 1, self._naming.log, epoch, line_id, number)
        if state == b"new":
            raise LogGapError("the log of invalidations began anew", is_rollback=False)
        if state == b"trimmed":
            raise LogGapError("the log of invalidations does not reach back far enough", is_rollback=False)
        if state != b"ok":
            raise LogGapError("the server went back to an earlier state of its data", is_rollback=True)


def _streams(reply: Any) -> Iterator[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]:
    """Read the reply to XREAD, which the client gives as a list or, of newer versions, as a dict."""
    for name, entries in reply.items() if isinstance(reply, dict) else reply or ():
        yield name, entries[0] if isinstance(reply, dict) and entries and isinstance(entries[0], list) else entries


def _following(fields: dict[bytes, bytes], epoch: str, number: str) -> str:
    """Return a line's number, which has to be the one after ``number``."""
    if fields[b"e"].decode() != epoch:
        raise LogGapError("the log of invalidations began anew", is_rollback=False)
    if int(fields[b"n"]) != int(number) + 1:
        raise LogGapError("lines of the log of invalidations were dropped before they were read", is_rollback=False)
    return fields[b"n"].decode()


def _line(fields: dict[bytes, bytes]) -> Iterator[LogLine]:
    if b"i" in fields:  # the line that a log begins with has none
        kind, *values = json.loads(fields[b"i"])
        yield LogLine(fields[b"s"].decode(), Invalidation(kind, tuple(values)))


def _parts(invalidation: Invalidation) -> Iterator[Invalidation]:
    values = invalidation.values
    for begin in range(0, max(1, len(values)), _VALUES_A_LINE):
        yield Invalidation(invalidation.kind, values[begin : begin + _VALUES_A_LINE])
