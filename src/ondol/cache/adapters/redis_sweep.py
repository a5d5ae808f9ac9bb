"""adapter: drops what an invalidation means: by key, by tag, by what readable keys match, or everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ondol.cache.adapters import redis_scripts as scripts
from ondol.cache.glob import Glob
from ondol.cache.keys import key_text
from ondol.cache.ports import StoreFaultError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.cache.adapters.redis_link import RedisLink
    from ondol.cache.ports import Invalidation
    from ondol.cache.shared.names import Naming

__all__ = ["RedisSweep"]

_KEYS_A_TRIP: Final = 500
_STAMP_KEPT_S: Final = 86_400
"""A tag's stamp is kept for a day: no computation that began before it still runs then."""
_HEADER_BYTES: Final = 8_192


class RedisSweep:
    """Drops values and leases in one namespace."""

    def __init__(self, link: RedisLink, naming: Naming) -> None:
        self._link = link
        self._naming = naming

    async def drop(self, invalidation: Invalidation) -> int:
        """Return how many values went; whatever was computed from before the call is not stored any more."""
        values = invalidation.values
        if invalidation.kind == "keys":
            return await self._drop_keys(values)
        if invalidation.kind == "tag":
            return sum([await self._drop_tag(tag) for tag in values])
        globs = [Glob(pattern) for pattern in values] if invalidation.kind == "pattern" else [None]
        return sum([await self._drop_matching(glob) for glob in globs])

    async def _drop_keys(self, keys: Sequence[str]) -> int:
        count = 0
        for begin in range(0, len(keys), _KEYS_A_TRIP):
            names = [self._naming.of_key(key) for key in keys[begin : begin + _KEYS_A_TRIP]]
            count += await self._count([("EVAL", scripts.DROP, 2, name.value, name.lease) for name in names])
        return count

    async def _drop_tag(self, tag: str) -> int:
        members_name, stamp_name = self._naming.of_tag(tag)
        stamp = await self._link.one("EVAL", scripts.NEXT, 1, self._naming.sequence)
        await self._link.one("SET", stamp_name, stamp, "EX", _STAMP_KEPT_S)
        count, cursor = 0, 0
        while True:
            cursor, members = await self._link.one("SSCAN", members_name, cursor, "COUNT", _KEYS_A_TRIP)
            count += await self._drop_members(members_name, members)
            if not int(cursor):
                return count

    async def _drop_members(self, members_name: bytes, members: Sequence[bytes]) -> int:
        keys = [member.decode("utf-8", "surrogatepass") for member in members]
        if self._link.is_cluster:
            # Not in one step, and so the keys stay in the set: one that is stored again this moment must be found.
            return await self._drop_keys(keys)
        count = 0
        for begin in range(0, len(keys), _KEYS_A_TRIP):
            names = [self._naming.of_key(key) for key in keys[begin : begin + _KEYS_A_TRIP]]
            flat = [part for name in names for part in (name.value, name.lease)]
            untagged = members[begin : begin + _KEYS_A_TRIP]
            count += await self._count([("EVAL", scripts.UNTAG, 1 + len(flat), members_name, *flat, *untagged)])
        return count

    async def _drop_matching(self, glob: Glob | None) -> int:
        """Drop all that match, twice over: what a lease led to during the first scan is found by the second.

        A scan finds what is there from its beginning to its end. A lease held when the first one begins is found by it,
        or has ended in a value that is there before the second begins.
        """
        pattern = "*" if glob is None else glob.pattern
        return await self._scanned("vl", glob, pattern) + await self._scanned("v", glob, pattern)

    async def _scanned(self, kinds: str, glob: Glob | None, pattern: str) -> int:
        count = 0
        async for found in self._link.scan(self._naming.scan_glob(kinds, pattern)):
            names = found if glob is None else await self._matching(found, glob)
            values = [name for name in names if self._naming.is_value(name)]
            leases = [name for name in names if not self._naming.is_value(name)]
            await self._count([("UNLINK", name) for name in leases])
            count += await self._count([("UNLINK", name) for name in values])
        return count

    async def _matching(self, names: Sequence[bytes], glob: Glob) -> list[bytes]:
        matching: list[bytes] = []
        hashed: list[bytes] = []
        for name in names:
            key = self._naming.key_in(name)
            if self._naming.is_hashed(key):
                (hashed if self._naming.is_value(name) else matching).append(name)
            elif glob.matches(key_text(key.decode("utf-8", "surrogatepass"))):
                matching.append(name)
        headers = await self._link.run([("GETRANGE", name, 0, _HEADER_BYTES - 1) for name in hashed])
        for name, header in zip(hashed, headers, strict=True):
            full_key = self._naming.key_in_header(header) if isinstance(header, bytes) else None
            if full_key is None or glob.matches(key_text(full_key)):
                matching.append(name)  # when in doubt it goes: it is only a cache
        return matching

    async def _count(self, commands: list[tuple[Any, ...]]) -> int:
        replies = await self._link.run(commands)
        for reply in replies:
            if isinstance(reply, StoreFaultError):
                raise reply
        return sum(replies)
