"""adapter: what nodes know of the use of models, left for each other at a Redis or Valkey server or cluster.

::

    {namespace}:preload           a sorted set: when (seconds since the epoch) each node has written
    {namespace}:preload:{node}    zlib over JSON: {"format", "node", "knowledge"}; expires after 7 days

The connection is made for each exchange, by a loop of its own: between them there is none, and no thread.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import socket
import zlib
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.adapters.redis_url import read_url
from ondol.cache.ports import StoreFaultError
from ondol.clock import SystemClock
from ondol.errors import MissingExtraError
from ondol.preload.ports import Foreign, Taken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ondol.cache.adapters.redis_link import RedisLink
    from ondol.clock import Clock

__all__ = ["KEPT_S", "MAX_NODES", "MAX_PACKED_BYTES", "MAX_PLAIN_BYTES", "RedisHistory"]

logger = logging.getLogger("ondol.preload")

KEPT_S: Final = 7 * 86_400
MAX_NODES: Final = 16
MAX_PACKED_BYTES: Final = 4 * 1024 * 1024
MAX_PLAIN_BYTES: Final = 16 * 1024 * 1024
"""A few bytes can become gigabytes when they are unpacked."""

_FORMAT: Final = 1
_TIMEOUT_S: Final = 1.0
_BYTES_PER_S: Final = 5_000_000.0
"""Large values are given as much more time as this slow a network needs."""


class RedisHistory:
    """A :class:`ondol.preload.ports.KnowledgeExchange`.

    Thread-safety: safe; the methods block, and must not be called in a thread that runs an event loop.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str,
        node: str | None = None,
        clock: Clock | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: as the shared tier of the cache takes it.
            namespace: what every key begins with; programs with another one do not meet.
            node: what this node is called, different for each process that runs at the same time; its host's name and
                process number when it is ``None``.
            clock: where the time of writing comes from.
            timeout_s: how long one round trip may take.

        Raises:
            InvalidSettingError: the address cannot work.
            MissingExtraError: the client is not installed.
        """
        self._url = read_url(url)
        try:
            from ondol.cache.adapters.redis_link import RedisLink  # noqa: PLC0415  # imports the optional client
        except ImportError as exc:
            raise MissingExtraError("redis", "redis", "the shared history of use") from exc
        self._link_type = RedisLink
        self._timeout_s = timeout_s
        self._link()  # checks the address's options
        self._index = f"{namespace}:preload".encode("utf-8", "surrogatepass")
        self._node = node
        self._clock = clock if clock is not None else SystemClock()

    @property
    def address(self) -> str:
        """The server, without its password."""
        return self._url.shown

    @property
    def node(self) -> str:
        """The name of this process's key."""
        return f"{socket.gethostname()}-{os.getpid()}" if self._node is None else self._node

    def leave(self, plain: Mapping[str, Any]) -> None:
        """Put this node's knowledge in place of what it left before.

        Raises:
            StoreFaultError: the server did not take it.
            ValueError: it is larger than what is read again.
        """
        asyncio.run(self._leave(self.node, _packed(self.node, plain)))

    def take(self, seen: Mapping[str, float]) -> Taken:
        """Return what the freshest other nodes left and is not in ``seen``.

        Raises:
            StoreFaultError: the server did not answer.
        """
        return asyncio.run(self._take(self.node, seen))

    async def _leave(self, node: str, packed: bytes) -> None:
        wall_s = self._clock.wall()
        commands = [
            ("SET", self._key(node), packed, "EX", KEPT_S),
            ("ZADD", self._index, repr(wall_s), _raw(node)),
            ("ZREMRANGEBYSCORE", self._index, "-inf", repr(wall_s - KEPT_S)),
            ("EXPIRE", self._index, KEPT_S),
        ]
        link = self._link()
        try:
            await link.open()
            for reply in await link.run(commands, extra_s=len(packed) / _BYTES_PER_S):
                if isinstance(reply, StoreFaultError):
                    raise reply
        finally:
            await link.close()

    async def _take(self, node: str, seen: Mapping[str, float]) -> Taken:
        link = self._link()
        found: list[Foreign] = []
        damaged = 0
        try:
            await link.open()
            rows = await link.one("ZREVRANGE", self._index, 0, MAX_NODES, "WITHSCORES")
            others = [row for row in _rows(rows) if row[0] != node][:MAX_NODES]
            for name, written_at_s in others:
                if seen.get(name) == written_at_s:
                    continue
                try:
                    packed = await self._fetched(link, name)
                    if packed:
                        found.append(Foreign(name, written_at_s, _unpacked(name, packed)))
                except (ValueError, RecursionError, zlib.error) as exc:
                    damaged += 1
                    logger.debug("what node %s left is damaged: %s", name, exc)
        finally:
            await link.close()
        return Taken(tuple(found), damaged)

    async def _fetched(self, link: RedisLink, node: str) -> bytes:
        """Return what is under a node's key, one byte more than allowed at most; nothing when there is no such key."""
        wait_s = MAX_PACKED_BYTES / _BYTES_PER_S
        try:
            packed = await link.one("GETRANGE", self._key(node), 0, MAX_PACKED_BYTES, extra_s=wait_s)
        except StoreFaultError as exc:
            if exc.kind != "reply":
                raise
            raise ValueError(str(exc)) from exc  # another type of key is there
        if not isinstance(packed, bytes):
            message = f"it came as {type(packed).__name__}"
            raise ValueError(message)  # noqa: TRY004  # the server's answer is wrong, not an argument's type
        return packed

    def _key(self, node: str) -> bytes:
        return b"%b:%b" % (self._index, _raw(node))

    def _link(self) -> RedisLink:
        return self._link_type(self._url, self._timeout_s)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _rows(reply: Any) -> list[tuple[str, float]]:
    """Return names and times from a flat list of both; whatever is none is left out."""
    rows: list[tuple[str, float]] = []
    if not isinstance(reply, list):
        raise StoreFaultError(f"Redis: the list of nodes came as {type(reply).__name__}", "protocol")
    for name, score in zip(reply[::2], reply[1::2], strict=False):
        try:
            row = name.decode("utf-8", "surrogatepass"), float(score)
        except (AttributeError, TypeError, ValueError):
            continue
        if math.isfinite(row[1]):
            rows.append(row)
    return rows


def _packed(node: str, plain: Mapping[str, Any]) -> bytes:
    whole = {"format": _FORMAT, "node": node, "knowledge": plain}
    body = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    packed = zlib.compress(body)
    if len(body) > MAX_PLAIN_BYTES or len(packed) > MAX_PACKED_BYTES:
        message = f"what was learnt is too large to be shared: {len(body)} bytes, packed {len(packed)}"
        raise ValueError(message)
    return packed


def _unpacked(node: str, packed: bytes) -> dict[str, Any]:
    if len(packed) > MAX_PACKED_BYTES:
        message = f"it is larger than {MAX_PACKED_BYTES} bytes"
        raise ValueError(message)
    unpacker = zlib.decompressobj()
    body = unpacker.decompress(packed, MAX_PLAIN_BYTES + 1)
    if not unpacker.eof or unpacker.unused_data or len(body) > MAX_PLAIN_BYTES:
        message = f"it is cut off, or larger than {MAX_PLAIN_BYTES} bytes when unpacked"
        raise ValueError(message)
    whole = json.loads(body.decode("utf-8", "surrogatepass"))
    if not isinstance(whole, dict) or whole.get("format") != _FORMAT or whole.get("node") != node:
        message = f"it is not of format {_FORMAT}, or another node's"
        raise ValueError(message)
    knowledge = whole.get("knowledge")
    if not isinstance(knowledge, dict):
        message = "it holds no knowledge"
        raise ValueError(message)  # noqa: TRY004  # what was stored is wrong, not an argument's type
    return knowledge
