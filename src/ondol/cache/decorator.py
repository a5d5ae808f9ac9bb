"""service: the decorators that cache a function's results, for coroutine functions and plain ones alike."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Protocol, Self, TypeVar, cast, overload

from ondol.cache.arguments import ArgumentForm
from ondol.cache.entry import FOREVER
from ondol.cache.keys import canonical_key, shelf_key
from ondol.cache.lifetime import Lifetime
from ondol.cache.options import checked_terms
from ondol.cache.tags import checked_tags

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable
    from typing import Unpack

    from ondol.cache.cache import Cache
    from ondol.cache.computed import Terms
    from ondol.cache.core import CacheCore
    from ondol.cache.options import DecoratorOptions

__all__ = ["AsyncCachedFunction", "CacheDecorator", "CacheResult", "CachedFunction", "make_cache_result"]

_SOME_LIFETIME: Final = Lifetime(1.0)
"""Stands for the cache's default while decorating, when there is no cache to ask yet."""

_ABSENT: Final[Any] = object()
_CONTROLS: Final = frozenset({"invalidate", "refresh", "key"})

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


class CachedFunction(Protocol[P, R_co]):
    """A plain function with its cache in front."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the cached result, or compute it; threads that ask at the same time share one computation."""
        ...

    @property
    def __name__(self) -> str:
        """The function's."""
        ...

    @overload
    def __get__(self, instance: None, owner: type, /) -> CachedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], R_co], instance: S, owner: type[S] | None = None, /
    ) -> CachedFunction[Q, R_co]: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result for these arguments; return whether memory had one."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Compute the result for these arguments anew and keep it; the old one serves others until then."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the canonical key of the result for these arguments."""
        ...


class AsyncCachedFunction(Protocol[P, T_co]):
    """A coroutine function with its cache in front."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]:
        """Return the cached result, or compute it; all who ask at the same time share one computation."""
        ...

    @property
    def __name__(self) -> str:
        """The function's."""
        ...

    @overload
    def __get__(self, instance: None, owner: type, /) -> AsyncCachedFunction[P, T_co]: ...
    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[S, Q], T_co], instance: S, owner: type[S] | None = None, /
    ) -> AsyncCachedFunction[Q, T_co]: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, bool]:
        """Forget the result for these arguments; return whether memory had one."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]:
        """Compute the result for these arguments anew and keep it; the old one serves others until then."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the canonical key of the result for these arguments."""
        ...


class CacheDecorator(Protocol):
    """Puts a cache in front of a function and keeps its signature."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # coroutine functions are callables too; the first that fits is meant
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> AsyncCachedFunction[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...


class CacheResult(Protocol):
    """Makes such a decorator for entries of one name."""

    def __call__(self, name: str, **options: Unpack[DecoratorOptions]) -> CacheDecorator:
        """Return a decorator whose results are kept under ``name`` and the arguments of each call.

        Raises:
            ValueError: an option that is not allowed.
            TypeError: ``name`` is not a string, as when the parentheses are left out.
        """
        ...


def make_cache_result(resolve: Callable[[], Cache]) -> CacheResult:
    """Return the decorator maker ``cache_result(name, ttl_hours=...)`` for the cache that ``resolve`` returns.

    ``resolve`` is called at each call of a decorated function, never while decorating.
    """

    def cache_result(name: str, **options: Unpack[DecoratorOptions]) -> CacheDecorator:
        if not isinstance(name, str):
            raise TypeError(f"the cache decorator needs a name: @cache_result('my_function'), not {name!r}")
        _checked(options, _SOME_LIFETIME)

        def decorate(function: Callable[..., Any]) -> Any:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(
                    f"{function!r} is a generator function: what it yields can be taken once and not be kept"
                )
            binding = _Binding(lambda: resolve().core, str(name), options, function)
            wrapper = _async_wrapper(binding) if inspect.iscoroutinefunction(function) else _plain_wrapper(binding)
            return _Method(wrapper) if binding.form.has_receiver else wrapper

        return cast("CacheDecorator", decorate)

    return cache_result


def _checked(options: DecoratorOptions, base: Lifetime) -> Terms:
    """Return the terms but for the tags of a call, where a function gives these."""
    rest: dict[str, Any] = {name: value for name, value in options.items() if name != "ignore"}
    if callable(rest.get("tags")):
        del rest["tags"]
    return checked_terms(rest, base)


class _Binding:
    """What both kinds of wrapper need: the function, its entries' name, and how to reach the cache."""

    __slots__ = ("_known_terms", "_options", "_tags_of", "core", "form", "function", "name")

    def __init__(
        self, core: Callable[[], CacheCore], name: str, options: DecoratorOptions, function: Callable[..., Any]
    ) -> None:
        self.core = core
        self.name = name
        self._options = options
        tags: Any = options.get("tags")
        self._tags_of = tags if callable(tags) else None
        self._known_terms: tuple[Lifetime, Terms] | None = None
        self.function = function
        self.form = ArgumentForm(function, options.get("ignore", ()))

    def shelf_key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call with these arguments.

        Raises:
            UnstableKeyError: an argument has no stable form; the message names it.
        """
        return shelf_key(self.name, self.form.parts(args, kwargs), self.form.labels)

    def canonical(self, *args: Any, **kwargs: Any) -> str:
        """Return the canonical key of a call with these arguments."""
        return canonical_key(self.name, self.shelf_key(args, kwargs))

    def terms(self, core: CacheCore, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Terms:
        """Return how the result of this call is kept; what the options do not say is as the cache has it."""
        known = self._known_terms
        if known is None or known[0] is not core.lifetime:
            known = self._known_terms = (core.lifetime, _checked(self._options, core.lifetime))
        terms = known[1]
        if self._tags_of is not None:
            terms = terms._replace(tags=checked_tags(self._tags_of(*args, **kwargs)))
        return terms


class _Method:
    """A cached function that takes ``self``: looked up on an object, it and what belongs to it are bound to that."""

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper
        functools.update_wrapper(self, wrapper)
        _with_controls(self, wrapper.invalidate, wrapper.refresh, wrapper.key)
        signature = inspect.signature(wrapper)
        self._signature = signature.replace(parameters=list(signature.parameters.values())[1:])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._wrapper(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self._wrapper
        return _BoundMethod(self, self._wrapper, instance)


class _BoundMethod(functools.partial):  # type: ignore[type-arg]  # its result is whatever the function's is
    """A method of one object. A partial, since inspect and asyncio see through these."""

    __slots__ = ()

    def __new__(cls, method: _Method, wrapper: Any, instance: object) -> Self:
        bound = super().__new__(cls, wrapper, instance)
        bound.__dict__["_method"] = method
        return bound

    def __getattr__(self, name: str) -> Any:
        method = self.__dict__["_method"]
        if name == "__signature__":
            return method._signature  # noqa: SLF001  # the two belong together
        value = getattr(method._wrapper, name)  # noqa: SLF001
        return functools.partial(value, self.args[0]) if name in _CONTROLS else value

    @property
    def __name__(self) -> str:
        """The function's."""
        name: str = self.__dict__["_method"].__name__
        return name


def _hit(core: CacheCore, name: str, key: Hashable) -> Any:
    """Return the value of an entry with nothing to do but to count the hit, else ``_ABSENT``."""
    try:
        shelf = core.memory.shelves.by_name[name]
        entry = shelf.entries[key]
    except KeyError:
        return _ABSENT
    until_s = entry.calm_until_s
    if until_s is FOREVER or core.now_s() < until_s:
        entry.uses += 1
        shelf.hits += 1
        shelf.saved_s += entry.cost_s
        return entry.value
    return _ABSENT


def _async_wrapper(binding: _Binding) -> Any:
    function, name, resolve = binding.function, binding.name, binding.core

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        core = resolve()
        if not core.is_enabled:
            core.memory.count_miss(name)
            return await function(*args, **kwargs)
        key = binding.shelf_key(args, kwargs)
        value = _hit(core, name, key)
        if value is not _ABSENT:
            return value
        compute = functools.partial(function, *args, **kwargs)
        return await core.computing.run(name, key, compute, binding.terms(core, args, kwargs))

    async def refresh(*args: Any, **kwargs: Any) -> Any:
        core = resolve()
        compute = functools.partial(function, *args, **kwargs)
        key = binding.shelf_key(args, kwargs)
        return await core.computing.renew(name, key, compute, binding.terms(core, args, kwargs))

    async def invalidate(*args: Any, **kwargs: Any) -> bool:
        return resolve().discard(name, binding.shelf_key(args, kwargs))

    return _with_controls(wrapper, invalidate, refresh, binding.canonical)


def _plain_wrapper(binding: _Binding) -> Any:
    function, name, resolve = binding.function, binding.name, binding.core

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        core = resolve()
        if not core.is_enabled:
            core.memory.count_miss(name)
            return function(*args, **kwargs)
        key = binding.shelf_key(args, kwargs)
        value = _hit(core, name, key)
        if value is not _ABSENT:
            return value
        compute = functools.partial(function, *args, **kwargs)
        return core.computing.run_blocking(name, key, compute, binding.terms(core, args, kwargs))

    def refresh(*args: Any, **kwargs: Any) -> Any:
        core = resolve()
        compute = functools.partial(function, *args, **kwargs)
        key = binding.shelf_key(args, kwargs)
        return core.computing.renew_blocking(name, key, compute, binding.terms(core, args, kwargs))

    def invalidate(*args: Any, **kwargs: Any) -> bool:
        return resolve().discard(name, binding.shelf_key(args, kwargs))

    return _with_controls(wrapper, invalidate, refresh, binding.canonical)


def _with_controls(wrapper: Any, invalidate: Any, refresh: Any, key: Any) -> Any:
    wrapper.invalidate = invalidate
    wrapper.refresh = refresh
    wrapper.key = key
    return wrapper
