"""decision: the code of a measured function, written for the parameters of the function that it measures.

A wrapper that takes ``*args, **kwargs`` makes a tuple and a dictionary on each call and takes them apart again: most of
what measuring costs. One that has the parameters themselves does not. So the few lines of the wrapper are compiled for
each kind of parameter list, as ``dataclasses`` compiles ``__init__``.
"""

from __future__ import annotations

import functools
import inspect
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

__all__ = ["Parameters", "Wrapper", "compiled", "parameters_of"]

_OURS: Final = "_ondol_"

_CODE: Final = """
def make(_ondol_function, _ondol_look_up, _ondol_resolve, _ondol_per_s, _ondol_awaited, _ondol_defaults):
    # A parameter may be called as a builtin is.
    _ondol_type, _ondol_any_error = type, BaseException
    {once}
    {is_async}def timed({declared}):
        {each_time}
        _ondol_start_s = _ondol_now()
        try:
            _ondol_result = {is_awaited}_ondol_function({passed})
        except _ondol_any_error as _ondol_error:
            _ondol_stopwatch.failed(_ondol_error)
            raise
        {plain}
        _ondol_end_s = _ondol_now()
        if _ondol_end_s >= _ondol_keeper.settles_at_s:
            _ondol_keeper.settle(_ondol_end_s)
        _ondol_series.at_s = _ondol_end_s
        _ondol_append({elapsed})
        return _ondol_result
    return timed
"""

_NAMES: Final = "_ondol_keeper, _ondol_now, _ondol_append, _ondol_series, _ondol_stopwatch"

_EACH_TIME: Final = f"""nonlocal _ondol_known
        if _ondol_known is None or _ondol_resolve() is not _ondol_known[0]:
            _ondol_known = _ondol_look_up()
        {_NAMES} = _ondol_known"""

_PLAIN: Final = """if _ondol_type(_ondol_result) is _ondol_awaited[0]:
            return _ondol_awaited[1](_ondol_stopwatch, _ondol_start_s, _ondol_result)"""


class Parameters(NamedTuple):
    """How a function's parameters are declared in the wrapper, and handed on."""

    declared: str
    passed: str
    defaults: tuple[Any, ...]


_ANY: Final = Parameters("*args, **kwargs", "*args, **kwargs", ())


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Return the parameters of a function written in Python; of anything else that it takes any.

    >>> def f(a, /, b, *rest, c=3, **more): ...
    >>> parameters_of(f)[:2]
    ('a, /, b, *rest, c=_ondol_defaults[0], **more', 'a, b, *rest, c=c, **more')
    """
    if type(function) is not FunctionType:
        return _ANY
    parameters = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    if any(parameter.name.startswith(_OURS) for parameter in parameters):
        return _ANY
    declared: list[str] = []
    passed: list[str] = []
    defaults: list[Any] = []
    kinds = [parameter.kind for parameter in parameters]
    has_star = inspect.Parameter.VAR_POSITIONAL in kinds
    for number, parameter in enumerate(parameters):
        if parameter.kind is parameter.KEYWORD_ONLY and not has_star:
            declared.append("*")
            has_star = True
        text = f"{_stars(parameter)}{parameter.name}"
        passed.append(f"{text}={text}" if parameter.kind is parameter.KEYWORD_ONLY else text)
        if parameter.default is not parameter.empty:
            text = f"{text}={_OURS}defaults[{len(defaults)}]"
            defaults.append(parameter.default)
        declared.append(text)
        if parameter.kind is parameter.POSITIONAL_ONLY and kinds[number + 1 : number + 2] != [parameter.kind]:
            declared.append("/")
    return Parameters(", ".join(declared), ", ".join(passed), tuple(defaults))


def _stars(parameter: inspect.Parameter) -> str:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return "*"
    return "**" if parameter.kind is parameter.VAR_KEYWORD else ""


class Wrapper(NamedTuple):
    """What kind of wrapper is wanted."""

    is_coroutine: bool
    is_fixed: bool
    """Whether it measures in one monitor for good, or asks for it on each call."""
    is_in_seconds: bool


@functools.lru_cache(maxsize=256)
def compiled(declared: str, passed: str, wrapper: Wrapper) -> CodeType:
    """Return the code that makes a wrapper with these parameters."""
    elapsed = "_ondol_end_s - _ondol_start_s"
    text = _CODE.format(
        declared=declared,
        passed=passed,
        is_async="async " if wrapper.is_coroutine else "",
        is_awaited="await " if wrapper.is_coroutine else "",
        plain="" if wrapper.is_coroutine else _PLAIN,
        once=f"{_NAMES} = _ondol_look_up()" if wrapper.is_fixed else "_ondol_known = None",
        each_time="" if wrapper.is_fixed else _EACH_TIME,
        elapsed=elapsed if wrapper.is_in_seconds else f"({elapsed}) * _ondol_per_s",
    )
    return compile(text, "<ondol.monitor: a measured function>", "exec", dont_inherit=True)
