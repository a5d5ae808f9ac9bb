"""adapter: the shared store on Redis or Valkey: one node, over TLS or a Unix socket, or a cluster."""

from __future__ import annotations

import contextlib
import logging
import secrets
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.adapters import redis_scripts as scripts
from ondol.cache.adapters.redis_url import read_url
from ondol.cache.ports import Claim, Invalidation, StoreFaultError
from ondol.cache.shared.names import MAX_NAMESPACE_BYTES, Naming
from ondol.errors import InvalidSettingError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.cache.adapters.redis_link import Command
    from ondol.cache.ports import ClaimRequest, LogPage, LogPosition, Put

__all__ = ["TIMEOUT_S", "RedisStore"]

logger = logging.getLogger("ondol.cache")

TIMEOUT_S: Final = 0.2
_BYTES_PER_S: Final = 20_000_000.0
"""Large values are given as much more time as this slow a network needs."""
_PUT_LEASE_S: Final = 5.0
_TAG_SLACK_S: Final = 60.0


class RedisStore:
    """A :class:`ondol.cache.ports.SharedStore`.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, ``valkey://``, ``valkeys://``, ``redis+cluster://`` or
            ``rediss+cluster://``; options such as ``?ssl_ca_certs=`` go to the client.
        namespace: what every key begins with; programs with another one do not meet.
        timeout_s: how long one round trip may take.

    Raises:
        InvalidSettingError: the address or the namespace cannot work.
        MissingExtraError: the client is not installed.
    """

    def __init__(self, url: str, *, namespace: str, timeout_s: float = TIMEOUT_S) -> None:
        address = read_url(url)
        try:
            from ondol.cache.adapters.redis_link import RedisLink  # noqa: PLC0415  # imports the optional client
            from ondol.cache.adapters.redis_log import RedisLog  # noqa: PLC0415  # as above
        except ImportError as exc:
            raise MissingExtraError("redis", "redis", "the shared cache tier") from exc
        self.address = address.shown
        self._link = RedisLink(address, timeout_s)
        self._naming = Naming(_checked_namespace(namespace))
        self._log = RedisLog(self._link, self._naming)

    async def open(self) -> None:
        """Connect anew."""
        await self._link.open()

    async def close(self) -> None:
        """Let go of all connections."""
        await self._link.close()

    async def ping(self) -> None:
        """Find out whether the server answers and takes writes, or is merely full."""
        await self._link.reach_all()
        try:
            await self._link.one("SET", self._naming.probe, b"1", "PX", 1000)
        except StoreFaultError as exc:
            if exc.kind != "memory":
                raise

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return one frame or ``None`` for each key."""
        names = [self._naming.of_key(key) for key in keys]
        if self._link.is_cluster:
            stored = await self._link.run([("GET", name.value) for name in names])
        else:
            stored = await self._link.one("MGET", *(name.value for name in names))
            if not isinstance(stored, list) or len(stored) != len(names):
                raise StoreFaultError(f"Redis: {len(names)} keys got another number of values", "protocol")
        return [
            name.frame_of(value) if isinstance(value, bytes) else None
            for name, value in zip(names, stored, strict=True)
        ]

    async def claim_many(self, requests: Sequence[ClaimRequest], lease_s: float) -> list[Claim | StoreFaultError]:
        """Return for each the value, the lease, or how long somebody else holds it."""
        names = [self._naming.of_key(request.key) for request in requests]
        commands: list[Command] = [("EVAL", scripts.CURRENT, 1, self._naming.sequence)]
        for name, request in zip(names, requests, strict=True):
            commands.append(("EVAL", scripts.CLAIM, 2, name.value, name.lease, request.token, _ms(lease_s)))
        stamp, *replies = await self._link.run(commands)
        if isinstance(stamp, StoreFaultError):
            raise stamp
        return [_claim(name.frame_of, reply, int(stamp)) for name, reply in zip(names, replies, strict=True)]

    async def put_many(self, puts: Sequence[Put]) -> list[bool | StoreFaultError]:
        """Keep values; those with tags take two round trips: first they are made findable, then stored.

        A tag's invalidation takes a new stamp, then drops the keys that the tag's set names, with their leases. So one
        that comes before the first round trip is seen by its stamp, and one that comes later takes the lease away.
        """
        extra_s = sum(len(put.frame) for put in puts) / _BYTES_PER_S
        tokens = [put.token or (secrets.token_hex(16) if put.tags else "") for put in puts]
        refused = await self._tagged(puts, tokens)
        going = [index for index in range(len(puts)) if index not in refused]
        replies = await self._link.run([self._store_command(puts[index], tokens[index]) for index in going], extra_s)
        results: list[bool | StoreFaultError] = [refused.get(index, False) for index in range(len(puts))]
        woken = []
        for index, reply in zip(going, replies, strict=True):
            results[index] = reply if isinstance(reply, StoreFaultError) else reply in {1, 2}
            if reply == 2:
                woken.append(puts[index].key)
        await self._wake(woken)
        return results

    async def extend_many(self, requests: Sequence[ClaimRequest], lease_s: float) -> list[bool | StoreFaultError]:
        """Hold leases for ``lease_s`` from now."""
        replies = await self._link.run(
            [
                ("EVAL", scripts.EXTEND, 1, self._naming.of_key(request.key).lease, request.token, _ms(lease_s))
                for request in requests
            ]
        )
        return [reply if isinstance(reply, StoreFaultError) else reply == 1 for reply in replies]

    async def release(self, key: str, token: str) -> None:
        """End the lease without a value."""
        if await self._link.one("EVAL", scripts.RELEASE, 1, self._naming.of_key(key).lease, token) == 2:
            await self._wake([key])

    async def invalidate(self, invalidation: Invalidation, sender: str) -> int:
        """Drop what is meant and the leases that may lead to it, then announce it."""
        from ondol.cache.adapters.redis_sweep import RedisSweep  # noqa: PLC0415  # as the link

        count = await RedisSweep(self._link, self._naming).drop(invalidation)
        await self._log.append(invalidation, sender)
        return count

    async def announce(self, keys: Sequence[str], sender: str) -> int:
        """Tell the others."""
        await self._log.append(Invalidation("keys", tuple(keys)), sender)
        return len(keys)

    async def position(self) -> LogPosition:
        """Return where the log ends."""
        return await self._log.position()

    async def read_log(self, position: LogPosition, wait_s: float) -> LogPage:
        """Return what came after ``position``."""
        return await self._log.read(position, wait_s)

    async def _tagged(self, puts: Sequence[Put], tokens: Sequence[str]) -> dict[int, bool | StoreFaultError]:
        """Make the values with tags findable by them; return those that must not be stored, by their index."""
        commands: list[Command] = []
        owners: list[tuple[int, bool]] = []
        for index, put in enumerate(puts):
            if not put.tags:
                continue
            name = self._naming.of_key(put.key)
            if put.token is None:
                commands.append(("EVAL", scripts.PREPARE, 2, name.value, name.lease, tokens[index], _ms(_PUT_LEASE_S)))
                owners.append((index, False))
            ttl_ms = 0 if put.ttl_s is None else _ms(put.ttl_s + _TAG_SLACK_S)
            for tag in put.tags:
                raw = put.key.encode("utf-8", "surrogatepass")
                commands.append(("EVAL", scripts.TAG, 2, *self._naming.of_tag(tag), raw, ttl_ms))
                owners.append((index, put.token is not None))
        refused: dict[int, bool | StoreFaultError] = {}
        for (index, is_fenced), reply in zip(owners, await self._link.run(commands), strict=True):
            if isinstance(reply, StoreFaultError):
                refused[index] = reply
            elif is_fenced and int(reply) > puts[index].stamp:
                refused.setdefault(index, False)
        for index, reason in refused.items():
            if reason is False:
                await self.release(puts[index].key, tokens[index])
        return refused

    def _store_command(self, put: Put, token: str) -> Command:
        name = self._naming.of_key(put.key)
        ttl_ms = 0 if put.ttl_s is None else _ms(put.ttl_s)
        return ("EVAL", scripts.STORE, 2, name.value, name.lease, token, name.header + put.frame, ttl_ms)

    async def _wake(self, keys: Sequence[str]) -> None:
        with contextlib.suppress(StoreFaultError):  # who waits looks by itself after a while
            await self._log.wake(keys)


def _claim(frame_of: Any, reply: Any, stamp: int) -> Claim | StoreFaultError:
    if isinstance(reply, StoreFaultError):
        return reply
    if isinstance(reply, bytes):
        frame = frame_of(reply)
        if frame is None:
            return StoreFaultError("Redis: two keys have the same digest", "reply")
        return Claim(frame, is_granted=False, wait_s=0.0)
    if reply == 1:
        return Claim(None, is_granted=True, wait_s=0.0, stamp=stamp)
    if isinstance(reply, list) and len(reply) == 1 and isinstance(reply[0], int):
        return Claim(None, is_granted=False, wait_s=max(0, reply[0]) / 1000)
    raise StoreFaultError(f"Redis: a claim was answered with {type(reply).__name__}", "protocol")


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _checked_namespace(namespace: str) -> str:
    size_bytes = len(namespace.encode("utf-8", "surrogatepass"))
    if not 0 < size_bytes <= MAX_NAMESPACE_BYTES or "{" in namespace or "}" in namespace:
        raise InvalidSettingError(
            [f"the namespace {namespace!r} is not allowed: 1 to {MAX_NAMESPACE_BYTES} bytes without braces"]
        )
    return namespace
