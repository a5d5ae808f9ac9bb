"""service: a shared store in memory, for tests of what stands on one: it fails, hangs and forgets on demand."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from ondol.cache.ports import Invalidation, StoreFaultError
from ondol.testing.shared_server import FakeSharedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ondol.cache.ports import Claim, ClaimRequest, FaultKind, LogPage, LogPosition, Put
    from ondol.clock import Clock

__all__ = ["FakeSharedServer", "FakeSharedStore"]

T = TypeVar("T")


class FakeSharedStore:
    """A :class:`ondol.cache.ports.SharedStore` for tests: one process's connection to a :class:`FakeSharedServer`.

    Args:
        clock: tells when values and leases run out.
        server: the state it shares with other stores; a new one by default.
        timeout_s: how long an operation takes before it fails while the server hangs.
        latency_s: how long each way to the server takes, asked anew each time.

    Cancellation: an operation that was under way may have been done.
    """

    def __init__(
        self,
        clock: Clock,
        server: FakeSharedServer | None = None,
        *,
        timeout_s: float = 0.1,
        latency_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Stand for one process."""
        self.server = server if server is not None else FakeSharedServer(clock)
        self.address = "fake://shared-store"
        self.is_cut_off = False
        """While set, this process alone does not reach the server."""
        self.calls: list[str] = []
        """What was asked, in order."""
        self._timeout_s = timeout_s
        self._latency_s = latency_s
        self._faults: deque[tuple[StoreFaultError, bool]] = deque()
        self._lives: dict[str, int] = {}
        self._is_open = False

    def fail_next(self, kind: FaultKind, *, is_done: bool = False) -> None:
        """Let the next operation fail; with ``is_done`` the server does it nevertheless."""
        self._faults.append((StoreFaultError(f"the fake store was told to fail ({kind})", kind), is_done))

    async def open(self) -> None:
        """Connect."""
        self._is_open = True
        self._lives = dict.fromkeys(("log", "rest"), self.server.life)
        await self._trip("open", lambda: None)

    async def close(self) -> None:
        """Disconnect."""
        self._is_open = False

    async def ping(self) -> None:
        """Find out whether the server answers."""
        await self._trip("ping", lambda: None)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values under ``keys``."""
        server = self.server
        found = await self._trip("get", lambda: [server.value(key) for key in keys])
        return [None if value is None else value.frame for value in found]

    async def claim_many(self, requests: Sequence[ClaimRequest], lease_s: float) -> list[Claim | StoreFaultError]:
        """Return values, leases or how long to wait."""
        server = self.server
        return await self._trip("claim", lambda: [server.claim(request, lease_s) for request in requests])

    async def put_many(self, puts: Sequence[Put]) -> list[bool | StoreFaultError]:
        """Keep values."""
        return await self._trip("put", lambda: [self.server.put(put) for put in puts])

    async def extend_many(self, requests: Sequence[ClaimRequest], lease_s: float) -> list[bool | StoreFaultError]:
        """Hold leases longer."""
        server = self.server
        return await self._trip("extend", lambda: [server.extend(request, lease_s) for request in requests])

    async def release(self, key: str, token: str) -> None:
        """End a lease."""
        await self._trip("release", lambda: self.server.release(key, token))

    async def invalidate(self, invalidation: Invalidation, sender: str) -> int:
        """Drop what is meant."""
        return await self._trip("invalidate", lambda: self.server.invalidate(invalidation, sender))

    async def announce(self, keys: Sequence[str], sender: str) -> int:
        """Tell the others."""
        return await self._trip("announce", lambda: self.server.tell(Invalidation("keys", tuple(keys)), sender))

    async def position(self) -> LogPosition:
        """Return where the log ends."""
        return await self._trip("position", self.server.position)

    async def read_log(self, position: LogPosition, wait_s: float) -> LogPage:
        """Return what came after ``position``."""
        event = self.server.subscribe()
        try:
            page = await self._trip("read_log", lambda: self.server.page(position))
            if page.lines or page.woken or not wait_s:
                return page
            await self.server.news(event, wait_s)
            self._check_life("log")
            return await self._trip("read_log", lambda: self.server.page(position))
        finally:
            self.server.unsubscribe(event)

    async def _trip(self, what: str, act: Callable[[], T]) -> T:
        self.calls.append(what)
        if not self._is_open:
            raise StoreFaultError("the fake store is closed", "connection")
        await asyncio.sleep(self._latency_s())
        fault, is_done = self._faults.popleft() if self._faults else (None, True)
        await self._reach()
        self._check_life("log" if what == "read_log" else "rest")
        if fault is not None and not is_done:
            raise fault
        with self.server.lock:
            result = act()
        if fault is not None:
            raise fault
        await asyncio.sleep(self._latency_s())
        await self._reach()
        return result

    def _check_life(self, connection: str) -> None:
        """Fail once on each connection that the server's restart broke."""
        if self._lives[connection] != self.server.life:
            self._lives[connection] = self.server.life
            raise StoreFaultError("the fake store was restarted", "connection")

    async def _reach(self) -> None:
        if self.server.is_down or self.is_cut_off:
            raise StoreFaultError("the fake store is down", "connection")
        if self.server.is_hanging:
            await asyncio.sleep(self._timeout_s)
            raise StoreFaultError("the fake store does not answer", "timeout")
