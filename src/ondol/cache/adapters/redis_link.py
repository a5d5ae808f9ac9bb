"""adapter: the connections to a Redis or Valkey server or cluster: commands in one round trip, with a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ondol.cache.adapters.redis_faults import fault_of
from ondol.cache.ports import StoreFaultError
from ondol.errors import InvalidSettingError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from ondol.cache.adapters.redis_url import RedisAddress

__all__ = ["Command", "RedisLink"]

Command = tuple[Any, ...]

_LATE_S: Final = 0.02
_ITEM_KINDS: Final = frozenset({"memory", "reply"})
"""Errors that concern one command; after any other kind the whole round trip counts as failed."""
_SCAN_KEYS: Final = 1000
_MAX_CONNECTIONS: Final = 64

_left_behind: list[object] = []
"""The parent's clients in a forked child: to close them there would disturb the parent."""


class RedisLink:
    """One process's connections, made on demand.

    Cancellation: drops the connection that waited for an answer; the others stay.
    """

    def __init__(self, address: RedisAddress, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._client: Any = None
        self._pid = 0
        self._checked()

    @property
    def is_cluster(self) -> bool:
        """Whether keys are spread over several nodes."""
        return self._address.is_cluster

    async def open(self) -> None:
        """Make a new client and reach the server with it."""
        await self.close()
        self._client, self._pid = self._made(), os.getpid()
        await self.bounded(self._client.initialize(), self._timeout_s)

    async def close(self) -> None:
        """Drop all connections."""
        client, self._client = self._client, None
        if client is None:
            return
        if self._pid != os.getpid():
            _left_behind.append(client)
            return
        with contextlib.suppress(StoreFaultError):
            await self.bounded(self._dropped(client), self._timeout_s)

    async def one(self, *command: Any, extra_s: float = 0.0) -> Any:
        """Return the reply to one command.

        Raises:
            StoreFaultError: there was none, or an error.
        """
        return await self.bounded(self._live().execute_command(*command), self._timeout_s + extra_s)

    async def run(self, commands: Sequence[Command], extra_s: float = 0.0) -> list[Any]:
        """Return the replies to several commands, sent together; an error that concerns only one stands in its place.

        Raises:
            StoreFaultError: there was no reply, or an error that concerns all.
        """
        if not commands:
            return []
        pipeline = self._live().pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies = await self.bounded(pipeline.execute(raise_on_error=False), self._timeout_s + extra_s)
        if not isinstance(replies, list) or len(replies) != len(commands):
            raise StoreFaultError(f"Redis: {len(commands)} commands got another number of replies", "protocol")
        results = [fault_of(reply) if isinstance(reply, Exception) else reply for reply in replies]
        for result in results:
            if isinstance(result, StoreFaultError) and result.kind not in _ITEM_KINDS:
                raise result
        return results

    async def scan(self, glob: bytes) -> AsyncIterator[list[bytes]]:
        """Yield the names that match a server's glob, page by page, from every node."""
        client = self._live()
        for node in client.get_primaries() if self.is_cluster else (client,):
            cursor: Any = 0
            while True:
                call = node.execute_command("SCAN", cursor, "MATCH", glob, "COUNT", _SCAN_KEYS)
                cursor, names = await self.bounded(call, self._timeout_s)
                yield names
                if not int(cursor):
                    break

    async def reach_all(self) -> None:
        """Ask every node of a cluster whether it is there."""
        if self.is_cluster:
            await self.bounded(self._live().ping(target_nodes=RedisCluster.PRIMARIES), self._timeout_s)

    async def bounded(self, operation: Coroutine[Any, Any, Any], limit_s: float) -> Any:
        """Return what ``operation`` returns within ``limit_s``; errors become faults.

        When the limit passed because this process did not get to run, and the answer may have been there for long,
        the limit begins anew, once.
        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(operation, name="ondol redis")
        try:
            deadline_s = loop.time() + limit_s
            await asyncio.wait({task}, timeout=limit_s)
            if not task.done() and loop.time() - deadline_s > _LATE_S:
                await asyncio.wait({task}, timeout=limit_s)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=limit_s)
            if task.done() and not task.cancelled():
                task.exception()  # seen, also when nobody waits for it any more
        if task.cancelled():
            raise StoreFaultError(f"Redis at {self._address.shown} did not answer within {limit_s:g} s", "timeout")
        try:
            return task.result()
        except Exception as exc:  # whatever a client raises over a broken reply is a fault of the store
            raise fault_of(exc) from exc

    async def _dropped(self, client: Any) -> None:
        await client.aclose()
        if self.is_cluster:  # whose client leaves connections open that it made before it failed
            for nodes in ("nodes_cache", "startup_nodes"):
                await client.nodes_manager.aclose(nodes)

    def _live(self) -> Any:
        if self._client is None or self._pid != os.getpid():
            raise StoreFaultError("Redis: not connected", "connection")
        return self._client

    def _made(self) -> Any:
        options: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "socket_timeout": None,  # the limit of ``bounded`` is the only one, for whole operations
            "socket_connect_timeout": None,
            "max_connections": _MAX_CONNECTIONS,
        }
        if self.is_cluster:
            return RedisCluster.from_url(self._address.client_url, **options)
        return Redis.from_url(self._address.client_url, **options)

    def _checked(self) -> None:
        """Find out, without connecting, whether the client takes the options of the address."""
        try:
            client = self._made()
            if not self.is_cluster:
                client.connection_pool.make_connection()
        except (TypeError, ValueError, AttributeError) as exc:
            message = f"CACHE_REDIS_URL={self._address.shown!r} is not allowed: {exc}"
            raise InvalidSettingError([message]) from None
