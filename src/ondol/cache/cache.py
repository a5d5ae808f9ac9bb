"""service: ``Cache``: a byte-bounded cache by name and parts, for coroutines and threads, never computing twice."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.computed import DEFAULT_TERMS
from ondol.cache.core import MISSING
from ondol.cache.decorator import make_cache_result
from ondol.cache.entry import FOREVER
from ondol.cache.glob import Glob
from ondol.cache.keys import MAX_PART_CHARS, plain_name, shelf_key
from ondol.cache.lifetime import LifetimeOptions, checked_lifetime
from ondol.cache.managed import ManagedCache
from ondol.cache.options import checked_terms
from ondol.cache.tags import checked_tags

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping
    from typing import Unpack

    from ondol.cache.computed import Terms
    from ondol.cache.decorator import CacheDecorator
    from ondol.cache.options import CacheOptions, DecoratorOptions

__all__ = ["Cache"]

logger = logging.getLogger("ondol.cache")

_KEYS_PER_STEP: Final = 1000
_NO_PART: Final[Any] = object()
_MAX_COST_S: Final = 1e9


class Cache(ManagedCache):
    """Values by name and key parts, bounded in bytes; what is least worth keeping leaves first.

    Parts tell entries of one name apart and keep their type: ``1``, ``"1"`` and ``True`` are three entries. ``None``
    is a value like any other. Values are kept as the objects they are: who changes one, changes what is cached.

    It works at once. ``start`` adds the periodic removal of expired entries, which otherwise leave when they are asked
    for or when room is needed. It belongs to no event loop and can be used in several, one after the other or at once.

    How long an entry lives is said with ``ttl_hours`` or ``ttl_s``, ``idle_ttl_s`` (since its last use),
    ``stale_ttl_s`` (how long after that it is still given while it is computed anew), ``refresh_ahead`` (share of the
    time to live after which a use has it computed anew), and ``ttl_jitter`` (largest random share by which lives are
    shortened, so that entries stored together do not end together).

    Thread-safety: every method may be called from any thread; the asynchronous ones in any event loop.

    Example:
        >>> import asyncio
        >>> cache = Cache()
        >>> async def example():
        ...     await cache.set("user", {"name": "Mina"}, 7)
        ...     return await cache.get("user", 7), await cache.get("user", 8)
        >>> asyncio.run(example())
        ({'name': 'Mina'}, None)
    """

    async def get(self, name: str, part: object = _NO_PART, /, *parts: object, default: Any = None) -> Any:
        """Return the value of ``name`` and its parts, or ``default`` when there is none.

        With tiers below, they are asked for what is not in memory.

        Raises:
            UnstableKeyError: a part has no stable form; the message names it.

        Cost: half a microsecond for a hit on one short string; never waits unless there are tiers below.
        """
        # Spelt out for what is asked most: one string, found, with nothing to do but to count it.
        if type(part) is str and not parts:
            try:
                shelf = self._shelves[name]
                entry = shelf.entries[part]
            except (KeyError, TypeError):
                pass
            else:
                until_s = entry.calm_until_s
                if until_s is FOREVER or self._now_s() < until_s:
                    entry.uses += 1
                    shelf.hits += 1
                    shelf.saved_s += entry.cost_s
                    return entry.value
        key = shelf_key(name, (part, *parts) if part is not _NO_PART else ())
        if self._core.lower is None:
            return self._core.find(plain_name(name), key, default)
        return await self._core.find_below(plain_name(name), key, default)

    def get_nowait(self, name: str, *parts: object, default: Any = None) -> Any:
        """Do what ``get`` does, outside of coroutines; looks into the memory only."""
        return self._core.find(plain_name(name), shelf_key(name, parts), default)

    async def get_many(self, name: str, parts: Iterable[Any]) -> dict[Any, Any]:
        """Return those values of ``name`` that there are, by part; a tuple stands for several parts.

        Tiers below are asked once for all that is not in memory.

        Raises:
            UnstableKeyError: a part has no stable form; the message names it.
            ValueError: two of the parts are equal and yet two keys, as ``1`` and ``True`` are.
        """
        name = plain_name(name)
        keys: dict[Any, Hashable] = {}
        for item in parts:
            key = shelf_key(name, _as_parts(item))
            if keys.setdefault(item, key) != key or type(keys[item]) is not type(key):
                raise ValueError(f"{item!r} cannot be told from another part that equals it; ask for it by itself")
        if self._core.lower is None:
            found = {item: self._core.find(name, key, MISSING) for item, key in keys.items()}
        else:
            values = await self._core.find_many_below(name, list(keys.values()))
            found = dict(zip(keys, values, strict=True))
        return {item: value for item, value in found.items() if value is not MISSING}

    async def set(
        self,
        name: str,
        value: Any,
        *parts: object,
        tags: Iterable[str] = (),
        cost_seconds: float = 0.0,
        is_announced: bool = True,
        **lifetime: Unpack[LifetimeOptions],
    ) -> None:
        """Keep ``value`` for ``name`` and ``parts``, in place of what was there.

        A value larger than the whole cache is not kept in memory; that is counted and logged once per name, not raised.

        Args:
            name: what the entry is.
            value: what is kept; ``None`` is a value.
            parts: what tells this entry from the others of its name.
            tags: what ``invalidate_tags`` can drop it by, however it is called.
            cost_seconds: what it took to compute: what was costly stays longer.
            is_announced: whether other processes on the same shared tier drop what they hold in memory under this key;
                ``False`` saves a message where the value of a key never changes.
            lifetime: how long it may be used, see the class; ``ttl_s=math.inf`` for ever, whatever the default.

        Raises:
            UnstableKeyError: a part has no stable form; the message names it.
            ValueError: a time, a cost or a tag that is not allowed.
        """
        self.set_nowait(
            name, value, *parts, tags=tags, cost_seconds=cost_seconds, is_announced=is_announced, **lifetime
        )

    def set_nowait(
        self,
        name: str,
        value: Any,
        part: object = _NO_PART,
        /,
        *parts: object,
        tags: Iterable[str] = (),
        cost_seconds: float = 0.0,
        is_announced: bool = True,
        **lifetime: Unpack[LifetimeOptions],
    ) -> None:
        """Do what ``set`` does, outside of coroutines."""
        core = self._core
        if cost_seconds:
            cost_seconds = _checked_cost(cost_seconds)
        # Spelt out, as in ``get``.
        if (
            type(part) is str
            and len(part) <= MAX_PART_CHARS
            and core.is_plain
            and not (parts or lifetime or tags or self._flying)
            and self._put(plain_name(name), part, value, cost_seconds)
        ):
            if self._flying:  # something began to compute meanwhile; it is older
                core.computing.detach(plain_name(name), part)
            return
        parts = (part, *parts) if part is not _NO_PART else ()
        life = checked_lifetime(lifetime, core.lifetime) if lifetime else core.lifetime
        key = shelf_key(name, parts)
        checked = checked_tags(tags) if tags else ()
        core.store(plain_name(name), key, value, life, cost_seconds, checked, is_announced=is_announced)

    async def set_many(
        self,
        name: str,
        values: Mapping[Any, Any],
        *,
        tags: Iterable[str] = (),
        cost_seconds: float = 0.0,
        is_announced: bool = True,
        **lifetime: Unpack[LifetimeOptions],
    ) -> None:
        """Keep several values of ``name`` by part (a tuple stands for several parts); ``cost_seconds`` is of each.

        Raises:
            UnstableKeyError: a part has no stable form; nothing was kept.
            ValueError: a time, a cost or a tag that is not allowed; nothing was kept.
        """
        tags = checked_tags(tags)
        for item in values:
            shelf_key(name, _as_parts(item))
        for item, value in values.items():
            parts = _as_parts(item)
            self.set_nowait(
                name, value, *parts, tags=tags, cost_seconds=cost_seconds, is_announced=is_announced, **lifetime
            )

    async def delete(self, name: str, *parts: object) -> bool:
        """Drop one entry; return whether memory had one. A computation under way for it will not be stored.

        Raises:
            UnstableKeyError: a part has no stable form; the message names it.
        """
        return self.delete_nowait(name, *parts)

    def delete_nowait(self, name: str, *parts: object) -> bool:
        """Do what ``delete`` does, outside of coroutines."""
        return self._core.discard(plain_name(name), shelf_key(name, parts))

    async def invalidate_tags(self, *tags: str) -> int:
        """Drop every entry that carries any of ``tags``; return how many went from memory.

        Cost: O(entries that go), in steps between which other coroutines run.

        Raises:
            ValueError: a tag that is not allowed.
        """
        return await _stepwise(self._core.discard_tagged(checked_tags(tags)))

    async def invalidate_pattern(self, pattern: str) -> int:
        """Drop every entry whose ``name:part:part`` matches a glob; return how many went from memory.

        ``*`` stands for any text (colons too), ``?`` for one character, ``[ab]`` for one of these. Computations under
        way for matching keys will not be stored. Long parts can be matched by their first characters.

        Cost: O(entries of the names that the pattern can reach), and of a pattern that begins with a name and a whole
        part, from its second use on, O(entries of that name and part); in steps between which other coroutines run.
        Entries set meanwhile may stay.
        """
        count = await _stepwise(self._core.discard_matching(Glob(pattern)))
        logger.debug("cache: %d entries matched %r and went", count, pattern)
        return count

    async def get_or_compute(
        self,
        name: str,
        *parts: object,
        compute: Callable[[], Any | Awaitable[Any]],
        **options: Unpack[CacheOptions],
    ) -> Any:
        """Return the value of ``name`` and ``parts``, computing and keeping it when there is none.

        All who ask for it meanwhile, in any thread, event loop, or process with the same shared tier, wait for the one
        computation.

        Args:
            name: what the entry is.
            parts: what tells this entry from the others of its name.
            compute: gives the value, or an awaitable of it.
            options: as for :meth:`cached`, without those that concern arguments.

        Raises:
            UnstableKeyError: a part has no stable form; the message names it.
            ValueError: an option that is not allowed.
            Exception: what the computation raised; every waiter gets it, nothing is kept.

        Cancellation: leaves the computation to the others who wait for it; the last one to leave cancels it.
        """
        terms = self._terms(options)
        return await self._core.computing.run(plain_name(name), shelf_key(name, parts), compute, terms)

    def get_or_compute_blocking(
        self, name: str, *parts: object, compute: Callable[[], Any], **options: Unpack[CacheOptions]
    ) -> Any:
        """Do what ``get_or_compute`` does in the calling thread, with a plain ``compute``.

        Raises:
            TypeError: ``compute`` returned an awaitable.
        """
        terms = self._terms(options)
        return self._core.computing.run_blocking(plain_name(name), shelf_key(name, parts), compute, terms)

    def cached(self, name: str, **options: Unpack[DecoratorOptions]) -> CacheDecorator:
        """Return a decorator that keeps a function's results here, by its arguments.

        The decorated function has ``key(...)``, ``invalidate(...)`` and ``refresh(...)``, which take the function's
        arguments. The options are those of :class:`ondol.cache.options.DecoratorOptions`.

        Raises:
            ValueError: an option that is not allowed.
        """
        return make_cache_result(lambda: self)(name, **options)

    def clear(self) -> int:
        """Drop everything; return how many entries went from memory."""
        count = self._core.clear()
        logger.info("cache: cleared, %d entries went", count)
        return count

    def _terms(self, options: CacheOptions) -> Terms:
        core = self._core
        if not options:
            return DEFAULT_TERMS._replace(lifetime=core.lifetime)
        return checked_terms(options, core.lifetime)


def _checked_cost(cost_seconds: Any) -> float:
    if type(cost_seconds) not in {int, float} or not 0 <= cost_seconds <= _MAX_COST_S:
        raise ValueError(f"cost_seconds={cost_seconds!r} is not allowed: it must be a number of seconds ≥ 0")
    return float(cost_seconds)


async def _stepwise(steps: Iterator[int]) -> int:
    """Return the sum of ``steps``, letting other coroutines run now and then."""
    count = 0
    for position, gone in enumerate(steps, start=1):
        count += gone
        if position % _KEYS_PER_STEP == 0:
            await asyncio.sleep(0)
    return count


def _as_parts(item: Any) -> tuple[Any, ...]:
    return item if type(item) is tuple else (item,)
