"""service: the shared tier on its event loop: brings the store up, keeps it going, and makes up for what was missed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.ports import StoreFaultError
from ondol.cache.shared.claims import Claims
from ondol.cache.shared.follower import Follower
from ondol.cache.shared.reads import Reads

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ondol.cache.ports import LogPosition, SharedStore
    from ondol.cache.shared.follower import Events
    from ondol.cache.shared.health import Health
    from ondol.cache.shared.leases import Sender
    from ondol.cache.shared.params import SharedParams
    from ondol.cache.shared.writer import Writer

__all__ = ["Engine"]

logger = logging.getLogger("ondol.cache")

_SETTLE_STEP_S: Final = 0.1


class Engine:
    """One life of the tier, in one event loop.

    Thread-safety: for that loop; ``reads.ask`` and ``claims.ask`` may be called from any thread.
    """

    def __init__(
        self,
        store: SharedStore,
        params: SharedParams,
        health: Health,
        writer: Writer,
        *,
        events: Events,
        sender: Sender,
    ) -> None:
        self._store = store
        self._params = params
        self._health = health
        self._writer = writer
        self._sender = sender.name
        self._tasks: list[asyncio.Task[None]] = []
        self._down = asyncio.Event()
        self.ready = asyncio.Event()
        """Set after the first attempt to reach the store, whatever came of it."""
        loop = asyncio.get_running_loop()
        self.reads = Reads(loop, store, health, params)
        self.claims = Claims(loop, store, writer, health, params, new_token=sender.new_token)
        self.follower = Follower(store, health, writer, self.claims, events=events, sender=sender.name)
        writer.attach(loop)
        writer.invalidated = self.claims.invalidated
        health.went_down = self._went_down

    def start(self, position: LogPosition | None) -> None:
        """Begin; with the ``position`` where an earlier life stopped following the log, if there was one."""
        self.follower.position = position
        self._spawn(self._keep(), "ondol shared keeper")
        self._spawn(self._writer.run(self._store, self._sender), "ondol shared writer")
        self._spawn(self.claims.run(), "ondol shared leases")

    async def stop(self, grace_s: float) -> LogPosition | None:
        """Write what waits and give leases back, for ``grace_s`` at most; answer everybody who waits with a miss.

        Returns:
            Where to go on following the log.
        """
        try:
            async with asyncio.timeout(grace_s):
                await self._flush()
                await self.claims.stop()
        except TimeoutError:
            logger.warning("cache: the shared store did not take everything within %g s of shutdown", grace_s)
        self._health.is_up = False
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self.claims.abandon()
        await self.reads.stop()
        self._writer.detach()
        try:
            async with asyncio.timeout(grace_s):
                await self._store.close()
        except TimeoutError:
            logger.warning("cache: the connections to the shared store did not close within %g s", grace_s)
        return self.follower.position

    async def _flush(self) -> None:
        goal = self._writer.goal()
        while self._health.is_up and self._writer.finished < goal and not self._writer.is_idle():
            await self._writer.progress()

    async def _keep(self) -> None:
        is_first = True
        while True:
            if await self._bring_up(is_first=is_first):
                self.ready.set()
                await self._follow_until_down()
            self.ready.set()
            is_first = False
            await asyncio.sleep(self._health.breaker.next_probe_s())

    async def _bring_up(self, *, is_first: bool) -> bool:
        """Probe the store; when it is there, make up for the outage and let requests out again."""
        self._health.breaker.probe()
        try:
            await self._store.close()
            await self._store.open()
            await self._store.ping()
            self._writer.repeat_unconfirmed()
            await self._settle(0.0 if is_first else self._params.settle_s)
        except Exception as exc:  # noqa: BLE001  # whatever it is: the store is not usable
            self._health.probe_failed(exc)
            return False
        self._down.clear()
        self._health.came_up()
        self._writer.wake()
        return True

    async def _settle(self, settle_s: float) -> None:
        """Exchange invalidations with the other processes, for as long as any of them may still find the store back."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + settle_s
        while True:
            await self.follower.catch_up()
            if not await self._writer.replay(self._store, self._sender):
                raise StoreFaultError("the invalidations that waited for the store could not be written", "reply")
            if (rest_s := end_s - loop.time()) <= 0:
                return
            await asyncio.sleep(min(rest_s, _SETTLE_STEP_S))

    async def _follow_until_down(self) -> None:
        follow = asyncio.get_running_loop().create_task(
            self.follower.run(self._params.log_wait_s), name="ondol shared follower"
        )
        follow.add_done_callback(_report)
        try:
            await self._down.wait()
        finally:
            follow.cancel()
            await asyncio.wait({follow})

    def _went_down(self) -> None:
        self._down.set()
        self._writer.drop_puts()
        self.claims.went_down()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(_report)
        self._tasks.append(task)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (exc := task.exception()) is not None:
        logger.error("cache: %s ended, the shared tier does not work any more", task.get_name(), exc_info=exc)
