"""decision: the keyword arguments that say how results are kept, checked and made into terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ondol.cache.computed import Terms
from ondol.cache.lifetime import LifetimeOptions, checked_lifetime, checked_time_s
from ondol.cache.tags import checked_tags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ondol.cache.lifetime import Lifetime

__all__ = ["CacheOptions", "DecoratorOptions", "checked_terms"]


class _ResultOptions(LifetimeOptions, total=False):
    """What is said of computed results in both places."""

    negative_ttl_s: float | None
    """How long an error is kept and raised again without computing; ``None``: not at all."""
    negative_errors: type[Exception] | tuple[type[Exception], ...]
    """Which errors that concerns; default all of them."""
    is_local: bool
    """Whether it stays in the memory of this process, out of the tiers below."""


class CacheOptions(_ResultOptions, total=False):
    """How a computed result is kept. The first six, of how long, are described in :class:`ondol.cache.cache.Cache`."""

    tags: Iterable[str]
    """What ``invalidate_tags`` can drop it by."""


class DecoratorOptions(_ResultOptions, total=False):
    """How a function's results are kept; beside :class:`CacheOptions`, what concerns its arguments."""

    tags: Iterable[str] | Callable[..., Iterable[str]]
    """Also a function of the arguments that returns them."""
    ignore: str | Iterable[str]
    """Parameters that do not tell results apart, such as ``"self"`` or a connection."""


_LIFETIME: Final = frozenset(LifetimeOptions.__annotations__)
_OTHERS: Final = ("tags", "negative_ttl_s", "negative_errors", "is_local")


def checked_terms(options: Any, base: Lifetime) -> Terms:
    """Return the terms that the keyword arguments mean; lifetimes that are not given are as in ``base``.

    Raises:
        ValueError: a value that is not allowed.
        TypeError: an argument that does not exist, or of the wrong type.
    """
    unknown = options.keys() - _LIFETIME - set(_OTHERS)
    if unknown:
        allowed = ", ".join([*sorted(_LIFETIME), *_OTHERS])
        raise TypeError(f"unexpected argument {min(unknown)!r}; allowed are {allowed}")
    lifetime: Any = {name: value for name, value in options.items() if name in _LIFETIME}
    errors = options.get("negative_errors", (Exception,))
    errors = errors if isinstance(errors, tuple) else (errors,)
    if not errors or not all(isinstance(error, type) and issubclass(error, Exception) for error in errors):
        raise TypeError(f"negative_errors={options['negative_errors']!r} is not allowed: it must be classes of errors")
    negative_ttl_s = options.get("negative_ttl_s")
    return Terms(
        checked_lifetime(lifetime, base) if lifetime else base,
        checked_tags(options.get("tags", ())),
        None if negative_ttl_s is None else checked_time_s("negative_ttl_s", negative_ttl_s),
        errors,
        bool(options.get("is_local", False)),
    )
