"""service: measures how long functions, coroutines and ``with`` blocks take.

A call that fails is counted as ``name.errors``, one that is cancelled as ``name.cancelled``; their times do not go
into the metric, so that a flood of quick failures does not make the answers look fast.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from ondol.errors import MonitorError
from ondol.monitor.names import check_name, check_time_unit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from ondol.recorder import Recorder

__all__ = ["Measurement", "Timekeeper", "make_timed"]

P = ParamSpec("P")
T = TypeVar("T")


class Timekeeper(Protocol):
    """What timing needs of a monitor."""

    @property
    def now(self) -> Callable[[], float]:
        """Gives monotonic seconds."""
        ...

    @property
    def add_metric(self) -> Recorder:
        """Takes what was measured."""
        ...


@functools.lru_cache(maxsize=1024)
def _checked(name: str, unit: str) -> tuple[str, float]:
    check_name(name)
    return check_time_unit(unit)


class Measurement:
    """A ``with`` block whose time is recorded when it ends. Each use of it is measured by itself, also nested."""

    __slots__ = ("_keeper", "_labels", "_name", "_per_s", "_starts", "_unit")

    def __init__(self, keeper: Timekeeper, name: str, unit: str, labels: dict[str, str]) -> None:
        """Check name and unit.

        Raises:
            MonitorError: the name is not valid, or the unit is no unit of time.
        """
        self._keeper = keeper
        self._name = name
        self._unit, self._per_s = _checked(name, unit)
        self._labels = labels
        self._starts: list[float] = []

    def __enter__(self) -> Self:
        """Begin."""
        self._starts.append(self._keeper.now())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record the time, or count the failure, which goes on its way."""
        elapsed_s = self._keeper.now() - self._starts.pop()
        if error is None:
            self._keeper.add_metric(self._name, elapsed_s * self._per_s, self._unit, **self._labels)
        else:
            _count_failure(self._keeper, self._name, error, self._labels)


def _count_failure(keeper: Timekeeper, name: str, error: BaseException, labels: dict[str, str]) -> None:
    if isinstance(error, asyncio.CancelledError):
        keeper.add_metric(f"{name}.cancelled", 1, "count", **labels)
    elif isinstance(error, Exception):
        keeper.add_metric(f"{name}.errors", 1, "count", **labels)


def make_timed(resolve: Callable[[], Timekeeper], name: str, unit: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that measures each call of a plain function, or each await of a coroutine function.

    Args:
        resolve: gives the monitor; asked on each call, so that decorating builds nothing.
        name: of the metric.
        unit: of time.

    Raises:
        MonitorError: the name is not valid, the unit is no unit of time, or (when decorating) the function is a
            generator: a call of it takes no time, its work is done elsewhere.
    """
    word, per_s = _checked(name, unit)

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        target = function.func if isinstance(function, functools.partial) else function
        if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
            message = (
                f"{target.__qualname__} is a generator: measure its work with `with monitor.measure({name!r})` inside"
            )
            raise MonitorError(message)
        if _is_coroutine_function(function):
            return cast("Callable[P, T]", _timed_coroutine(resolve, name, word, per_s, function))
        return _timed_plain(resolve, name, word, per_s, function)

    return decorate


def _is_coroutine_function(function: Callable[..., object]) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004  # for objects whose __call__ is a coroutine function
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _timed_coroutine(
    resolve: Callable[[], Timekeeper], name: str, unit: str, per_s: float, function: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(function)
    async def timed(*args: Any, **kwargs: Any) -> Any:
        keeper = resolve()
        now = keeper.now
        start_s = now()
        try:
            result = await function(*args, **kwargs)
        except BaseException as exc:
            _count_failure(keeper, name, exc, {})
            raise
        keeper.add_metric(name, (now() - start_s) * per_s, unit)
        return result

    return timed


def _timed_plain(
    resolve: Callable[[], Timekeeper], name: str, unit: str, per_s: float, function: Callable[P, T]
) -> Callable[P, T]:
    async def finish(keeper: Timekeeper, start_s: float, coroutine: CoroutineType[Any, Any, Any]) -> Any:
        try:
            result = await coroutine
        except BaseException as exc:
            _count_failure(keeper, name, exc, {})
            raise
        keeper.add_metric(name, (keeper.now() - start_s) * per_s, unit)
        return result

    @functools.wraps(function)
    def timed(*args: P.args, **kwargs: P.kwargs) -> T:
        keeper = resolve()
        now = keeper.now
        start_s = now()
        try:
            result = function(*args, **kwargs)
        except BaseException as exc:
            _count_failure(keeper, name, exc, {})
            raise
        if isinstance(result, CoroutineType):
            # A plain function that hands on a coroutine: the work is the await, not the call.
            return cast("T", finish(keeper, start_s, result))
        keeper.add_metric(name, (now() - start_s) * per_s, unit)
        return result

    return timed
