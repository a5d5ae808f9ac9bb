"""service: the state of a shared store in memory, which several processes of a test share."""

from __future__ import annotations

import asyncio
import copy
import itertools
import threading
from typing import TYPE_CHECKING, NamedTuple

from ondol.cache.glob import Glob
from ondol.cache.keys import key_text
from ondol.cache.ports import Claim, LogGapError, LogLine, LogPage, LogPosition

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.cache.ports import ClaimRequest, Invalidation, Put
    from ondol.clock import Clock

__all__ = ["FakeSharedServer"]

_epochs = itertools.count(1)
_ids = itertools.count(1)


class _Value(NamedTuple):
    frame: bytes
    deadline_s: float | None
    tags: tuple[str, ...]


class _Lease(NamedTuple):
    token: str
    deadline_s: float
    is_awaited: bool = False


class _State:
    """What a server knows; copied for a snapshot."""

    def __init__(self) -> None:
        self.epoch = f"epoch {next(_epochs)}"
        self.values: dict[str, _Value] = {}
        self.leases: dict[str, _Lease] = {}
        self.sequence = 0
        self.stamps: dict[str, int] = {}
        self.lines: list[LogLine] = []
        self.ids: list[int] = []
        """What tells each line from all others, also from one that stands in its place after a crash."""
        self.first_line = 0
        self.wakes: list[str] = []


class FakeSharedServer:
    """The state that several :class:`FakeSharedStore` share, on an injected clock.

    Thread-safety: may be shared by stores in several event loops and threads.
    """

    def __init__(self, clock: Clock) -> None:
        """Begin empty."""
        self._now_s = clock.monotonic
        self.lock = threading.RLock()
        self.state = _State()
        self.is_down = False
        """While set, every operation fails at once."""
        self.is_hanging = False
        """While set, every operation runs into its time limit."""
        self.life = 1
        """Grows with each restart: connections of an earlier life are broken."""
        self._readers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def snapshot(self) -> _State:
        """Return what ``restart`` may come back with."""
        with self.lock:
            return copy.deepcopy(self.state)

    def restart(self, state: _State | None = None) -> None:
        """Come up again, empty or with an earlier state."""
        with self.lock:
            self.state = _State() if state is None else copy.deepcopy(state)
            self.is_down = self.is_hanging = False
            self.life += 1
        self.announce()

    def trim_log(self, keep: int) -> None:
        """Forget all but the last ``keep`` lines of the log."""
        with self.lock:
            gone = max(0, len(self.state.lines) - keep)
            del self.state.lines[:gone], self.state.ids[:gone]
            self.state.first_line += gone

    def value(self, key: str) -> _Value | None:
        """Return the value under ``key`` that has not run out."""
        value = self.state.values.get(key)
        if value is not None and value.deadline_s is not None and self._now_s() >= value.deadline_s:
            del self.state.values[key]
            return None
        return value

    def lease(self, key: str) -> _Lease | None:
        """Return the lease on ``key`` that has not run out."""
        lease = self.state.leases.get(key)
        if lease is not None and self._now_s() >= lease.deadline_s:
            del self.state.leases[key]
            return None
        return lease

    def claim(self, request: ClaimRequest, lease_s: float) -> Claim:
        """Do what :meth:`FakeSharedStore.claim_many` does for one key."""
        value, lease = self.value(request.key), self.lease(request.key)
        if value is not None:
            return Claim(value.frame, is_granted=False, wait_s=0.0)
        if lease is not None:
            self.state.leases[request.key] = lease._replace(is_awaited=True)
            return Claim(None, is_granted=False, wait_s=lease.deadline_s - self._now_s())
        self.state.leases[request.key] = _Lease(request.token, self._now_s() + lease_s)
        return Claim(None, is_granted=True, wait_s=0.0, stamp=self.state.sequence)

    def put(self, put: Put) -> bool:
        """Do what :meth:`FakeSharedStore.put_many` does for one value."""
        if put.token is not None:
            lease = self.lease(put.key)
            if lease is None or lease.token != put.token:
                return False
            if any(self.state.stamps.get(tag, 0) > put.stamp for tag in put.tags):
                self.end_lease(put.key)
                return False
        self.end_lease(put.key)
        deadline_s = None if put.ttl_s is None else self._now_s() + put.ttl_s
        self.state.values[put.key] = _Value(put.frame, deadline_s, put.tags)
        return True

    def extend(self, request: ClaimRequest, lease_s: float) -> bool:
        """Do what :meth:`FakeSharedStore.extend_many` does for one lease."""
        lease = self.lease(request.key)
        if lease is None or lease.token != request.token:
            return False
        self.state.leases[request.key] = lease._replace(deadline_s=self._now_s() + lease_s)
        return True

    def release(self, key: str, token: str) -> None:
        """Do what :meth:`FakeSharedStore.release` does."""
        lease = self.lease(key)
        if lease is not None and lease.token == token:
            self.end_lease(key)

    def invalidate(self, invalidation: Invalidation, sender: str) -> int:
        """Do what :meth:`FakeSharedStore.invalidate` does."""
        state = self.state
        state.sequence += 1
        if invalidation.kind == "tag":
            state.stamps.update(dict.fromkeys(invalidation.values, state.sequence))
        matches = _matcher(invalidation)
        gone = [
            key for key in list(state.values) if self.value(key) is not None and matches(key, state.values[key].tags)
        ]
        for key in gone:
            del state.values[key]
        for key in [key for key in state.leases if matches(key, ())]:
            self.end_lease(key)
        self.tell(invalidation, sender)
        return len(gone)

    def tell(self, invalidation: Invalidation, sender: str) -> int:
        """Write a line into the log; return how many values it has."""
        self.state.lines.append(LogLine(sender, invalidation))
        self.state.ids.append(next(_ids))
        self.announce()
        return len(invalidation.values)

    def end_lease(self, key: str) -> None:
        """End the lease on ``key`` and wake who waits for it."""
        lease = self.state.leases.pop(key, None)
        if lease is not None and lease.is_awaited:
            self.state.wakes.append(key)
            self.announce()

    def position(self) -> LogPosition:
        """Return where the log ends."""
        state = self.state
        last_id = state.ids[-1] if state.ids else 0
        return LogPosition(state.epoch, f"{state.first_line + len(state.lines)} {last_id} {len(state.wakes)}")

    def page(self, position: LogPosition) -> LogPage:
        """Return what came after ``position``."""
        state = self.state
        line, line_id, wake = (int(number) for number in position.offset.split())
        end = state.first_line + len(state.lines)
        if position.epoch != state.epoch:
            raise LogGapError("the log began a new life", is_rollback=False)
        if line > end or (line > state.first_line and state.ids[line - 1 - state.first_line] != line_id):
            raise LogGapError("the store went back to an earlier state", is_rollback=True)
        if line < state.first_line:
            raise LogGapError("the log does not reach back", is_rollback=False)
        return LogPage(self.position(), tuple(state.lines[line - state.first_line :]), tuple(state.wakes[wake:]))

    def announce(self) -> None:
        """Wake all who wait for news."""
        for event, loop in list(self._readers.items()):
            loop.call_soon_threadsafe(event.set)

    async def news(self, event: asyncio.Event, wait_s: float) -> None:
        """Wait for news, up to ``wait_s``."""
        try:
            async with asyncio.timeout(wait_s):
                await event.wait()
        except TimeoutError:
            return

    def subscribe(self) -> asyncio.Event:
        """Return an event that news will set."""
        event = asyncio.Event()
        self._readers[event] = asyncio.get_running_loop()
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        """Set it no more."""
        self._readers.pop(event, None)


def _matcher(invalidation: Invalidation) -> Callable[[str, tuple[str, ...]], bool]:
    values = frozenset(invalidation.values)
    if invalidation.kind == "keys":
        return lambda key, _tags: key in values
    if invalidation.kind == "tag":
        return lambda _key, tags: not values.isdisjoint(tags)
    globs = [Glob(pattern) for pattern in invalidation.values]
    if invalidation.kind == "pattern":
        return lambda key, _tags: any(glob.matches(key_text(key)) for glob in globs)
    return lambda _key, _tags: True
