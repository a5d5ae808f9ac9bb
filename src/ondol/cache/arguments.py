"""decision: the arguments of a call as key parts: the same for ``f(1, 2)``, ``f(1, b=2)`` and ``f(b=2, a=1)``."""

from __future__ import annotations

from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["ArgumentForm"]

_SPREAD: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD, Parameter.POSITIONAL_ONLY)
_RECEIVERS: Final = ("self", "cls")


class ArgumentForm:
    """The parameters of one function, read once; brings the arguments of each call into one form.

    Every parameter gives one part, defaults filled in; ``*args`` together give one part, and so do ``**kwargs``.
    Those that are to be ignored give none.
    """

    __slots__ = (
        "_defaults",
        "_is_plain",
        "_kept",
        "_names",
        "_positional_count",
        "_signature",
        "has_receiver",
        "labels",
    )

    def __init__(self, function: Callable[..., Any], ignore: Iterable[str] = ()) -> None:
        """Read the signature of ``function``.

        Raises:
            ValueError: a parameter to ignore that ``function`` does not have.
        """
        ignored = {ignore} if isinstance(ignore, str) else set(ignore)
        self._signature: Signature = signature(function)
        parameters = list(self._signature.parameters.values())
        self._names = tuple(parameter.name for parameter in parameters)
        unknown = ignored - set(self._names)
        if unknown:
            has = ", ".join(self._names) or "none"
            raise ValueError(f"ignore={min(unknown)!r} is not allowed: the function's parameters are: {has}")
        self._defaults = tuple(parameter.default for parameter in parameters)
        self._positional_count = sum(p.kind is not Parameter.KEYWORD_ONLY for p in parameters)
        self._is_plain = not any(p.kind in _SPREAD for p in parameters)
        kept = tuple(position for position, name in enumerate(self._names) if name not in ignored)
        self._kept = None if len(kept) == len(parameters) else kept
        self.has_receiver = bool(self._names) and self._names[0] in _RECEIVERS
        """Whether it looks like a method."""
        self.labels = tuple(f"argument {self._names[position]!r}" for position in kept)

    def parts(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return one part for each parameter that is not ignored, in the order of the signature.

        Raises:
            TypeError: the arguments do not fit the function.

        Cost: nothing when all arguments are given by position; well under a microsecond each otherwise.
        """
        everything = self._all_parts(args, kwargs)
        if self._kept is None:
            return everything
        return tuple(everything[position] for position in self._kept)

    def _all_parts(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        if self._is_plain:
            count = len(args)
            if not kwargs and count == len(self._names) == self._positional_count:
                return args
            if count <= self._positional_count:
                filled = self._filled(args, kwargs, count)
                if filled is not None:
                    return filled
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return tuple(bound.arguments[name] for name in self._names)

    def _filled(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], count: int) -> tuple[Any, ...] | None:
        """Return the parts of a call without ``*`` parameters, or ``None`` when it does not fit."""
        parts = list(args)
        used = 0
        for name, default in zip(self._names[count:], self._defaults[count:], strict=True):
            if name in kwargs:
                parts.append(kwargs[name])
                used += 1
            elif default is not Parameter.empty:
                parts.append(default)
            else:
                return None
        return tuple(parts) if used == len(kwargs) else None
