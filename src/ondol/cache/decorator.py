"""service: the decorators that cache a function's results, for coroutine functions and plain ones alike."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

from ondol.cache.arguments import ArgumentForm
from ondol.cache.core import MISSING, checked_ttl_s
from ondol.cache.keys import make_key

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ondol.cache.cache import Cache
    from ondol.cache.core import CacheCore

__all__ = ["AsyncCachedFunction", "CacheDecorator", "CacheResult", "CachedFunction", "make_cache_result"]

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")
T = TypeVar("T")


class CachedFunction(Protocol[P, R_co]):
    """A plain function with its cache in front."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the cached result, or compute it; threads that ask at the same time share one computation."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result for these arguments; return whether there was one."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the canonical key of the result for these arguments."""
        ...


class AsyncCachedFunction(Protocol[P, T_co]):
    """A coroutine function with its cache in front."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]:
        """Return the cached result, or compute it; all who ask at the same time share one computation."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, bool]:
        """Forget the result for these arguments; return whether there was one."""
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

    def __call__(self, name: str, *, ttl_hours: float | None = None, ttl_s: float | None = None) -> CacheDecorator:
        """Return a decorator whose results are kept under ``name`` and the arguments of each call.

        Raises:
            ValueError: a time to live that is not above 0, or given twice.
            TypeError: ``name`` is not a string, as when the parentheses are left out.
        """
        ...


def make_cache_result(resolve: Callable[[], Cache]) -> CacheResult:
    """Return the decorator maker ``cache_result(name, ttl_hours=...)`` for the cache that ``resolve`` returns.

    ``resolve`` is called at each call of a decorated function, never while decorating.
    """

    def cache_result(name: str, *, ttl_hours: float | None = None, ttl_s: float | None = None) -> CacheDecorator:
        if not isinstance(name, str):
            raise TypeError(f"the cache decorator needs a name: @cache_result('my_function'), not {name!r}")
        effective_ttl_s = checked_ttl_s(ttl_hours, ttl_s)

        def decorate(function: Callable[..., Any]) -> Any:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(
                    f"{function!r} is a generator function: what it yields can be taken once and not be kept"
                )
            binding = _Binding(lambda: resolve().core, name, effective_ttl_s, function)
            is_async = inspect.iscoroutinefunction(function)
            return _async_wrapper(binding) if is_async else _plain_wrapper(binding)

        return cast("CacheDecorator", decorate)

    return cache_result


class _Binding:
    """What both kinds of wrapper need: the function, its entries' name, and how to reach the cache."""

    __slots__ = ("core", "form", "function", "name", "ttl_s")

    def __init__(
        self, core: Callable[[], CacheCore], name: str, ttl_s: float | None, function: Callable[..., Any]
    ) -> None:
        self.core = core
        self.name = name
        self.ttl_s = ttl_s
        self.function = function
        self.form = ArgumentForm(function)

    def key(self, *args: Any, **kwargs: Any) -> str:
        """Return the key of a call with these arguments.

        Raises:
            UnstableKeyError: an argument has no stable form; the message names it.
        """
        return make_key(self.name, self.form.parts(args, kwargs), self.form.labels)


def _async_wrapper(binding: _Binding) -> Any:
    function, name, ttl_s, resolve = binding.function, binding.name, binding.ttl_s, binding.core

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        core = resolve()
        if not core.is_enabled:
            core.memory.count_miss(name)
            return await function(*args, **kwargs)
        key = binding.key(*args, **kwargs)
        value = core.find(key, name, MISSING)
        if value is not MISSING:
            return value
        return await core.compute(key, name, functools.partial(function, *args, **kwargs), ttl_s)

    async def invalidate(*args: Any, **kwargs: Any) -> bool:
        return resolve().discard(binding.key(*args, **kwargs))

    return _with_controls(wrapper, invalidate, binding.key)


def _plain_wrapper(binding: _Binding) -> Any:
    function, name, ttl_s, resolve = binding.function, binding.name, binding.ttl_s, binding.core

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        core = resolve()
        if not core.is_enabled:
            core.memory.count_miss(name)
            return function(*args, **kwargs)
        key = binding.key(*args, **kwargs)
        value = core.find(key, name, MISSING)
        if value is not MISSING:
            return value
        return core.compute_blocking(key, name, functools.partial(function, *args, **kwargs), ttl_s)

    def invalidate(*args: Any, **kwargs: Any) -> bool:
        return resolve().discard(binding.key(*args, **kwargs))

    return _with_controls(wrapper, invalidate, binding.key)


def _with_controls(wrapper: Any, invalidate: Any, key: Any) -> Any:
    wrapper.invalidate = invalidate
    wrapper.key = key
    return wrapper
