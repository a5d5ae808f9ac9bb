"""service: measures how long functions, coroutines, generators and ``with`` blocks take.

A call that fails is counted as ``name.errors``, one that is cancelled as ``name.cancelled``; their times do not go
into the metric, so that a flood of quick failures does not make the answers look fast.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, cast

from ondol.monitor.names import check_name, check_time_unit
from ondol.monitor.timing_code import Wrapper, compiled, parameters_of
from ondol.monitor.timing_generators import timed_async_generator, timed_generator

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from ondol.monitor.series import Series
    from ondol.recorder import Recorder

__all__ = ["MAX_PENDING", "Measurement", "Stopwatch", "Timekeeper", "make_timed"]

MAX_PENDING: Final = 4096
"""So many values of a series wait at most before they are counted."""

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

    def series(self, name: str, unit: str = "", **labels: str) -> Series:
        """Return where values of that name, unit and labels go."""
        ...

    settles_at_s: float
    """When it is time to count what waits, in any case."""

    def settle(self, series: Series, at_s: float) -> None:
        """Count what waits, if it is time to."""
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


class Stopwatch:
    """Records the durations of one metric in one monitor, with what can be looked up once looked up once."""

    __slots__ = ("_name", "_per_s", "keeper", "now", "series")

    def __init__(self, keeper: Timekeeper, name: str, unit: str, per_s: float) -> None:
        """Look up the series.

        Raises:
            MonitorError: the metric has another unit.
        """
        self.keeper = keeper
        self.now = keeper.now
        self.series = keeper.series(name, unit)
        self._name = name
        self._per_s = per_s

    def took(self, elapsed_s: float, end_s: float) -> None:
        """Record a duration that ended at ``end_s``."""
        series = self.series
        if end_s >= self.keeper.settles_at_s or len(series.pending) >= MAX_PENDING:
            self.keeper.settle(series, end_s)
        series.at_s = end_s
        series.pending.append(elapsed_s * self._per_s)

    def failed(self, error: BaseException) -> None:
        """Count a call that raised ``error``."""
        _count_failure(self.keeper, self._name, error, {})


def make_timed(
    monitor: Timekeeper | Callable[[], Timekeeper], name: str, unit: str
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that measures each call of a plain function, or each await of a coroutine function.

    Of a generator or an asynchronous generator the time counts that its own code takes, from the first item to the
    last; not what whoever asks for the items does between. One that is not used up counts with what it took so far.

    Args:
        monitor: takes the times; or what gives the monitor, asked on each call, so that decorating builds nothing.
            With a monitor, decorating looks the series up.
        name: of the metric.
        unit: of time.

    Raises:
        MonitorError: the name is not valid, or the unit is no unit of time.
    """
    word, per_s = _checked(name, unit)

    resolve = monitor if callable(monitor) else None

    def watch() -> Stopwatch:
        return Stopwatch(monitor() if callable(monitor) else monitor, name, word, per_s)

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        target = function.func if isinstance(function, functools.partial) else function
        if inspect.isasyncgenfunction(target):
            return cast("Callable[P, T]", timed_async_generator(watch, function))
        if inspect.isgeneratorfunction(target):
            return cast("Callable[P, T]", timed_generator(watch, function))
        return cast("Callable[P, T]", _timed(resolve, watch, per_s, function))

    return decorate


def _is_coroutine_function(function: Callable[..., object]) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004  # for objects whose __call__ is a coroutine function
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _timed(
    resolve: Callable[[], Timekeeper] | None,
    watch: Callable[[], Stopwatch],
    per_s: float,
    function: Callable[..., Any],
) -> Callable[..., Any]:
    def look_up() -> tuple[Any, ...]:
        # A plain tuple: taking any other kind apart takes longer. It is replaced as a whole, for threads.
        stopwatch = watch()
        series = stopwatch.series
        return stopwatch.keeper, stopwatch.now, series.pending.append, series, stopwatch

    parameters = parameters_of(function)
    wrapper = Wrapper(_is_coroutine_function(function), is_fixed=resolve is None, is_in_seconds=per_s == 1.0)
    code = compiled(parameters.declared, parameters.passed, wrapper)
    space: dict[str, Any] = {}
    exec(code, space)  # noqa: S102  # our own few lines, with nothing in them but the names of parameters
    awaited = (CoroutineType, _finish)
    timed = space["make"](function, look_up, resolve, per_s, awaited, parameters.defaults)
    return cast("Callable[..., Any]", functools.wraps(function)(timed))


async def _finish(stopwatch: Stopwatch, start_s: float, coroutine: CoroutineType[Any, Any, Any]) -> Any:
    """Measure on what a plain function has handed on: the work is the await, not the call."""
    try:
        result = await coroutine
    except BaseException as exc:
        stopwatch.failed(exc)
        raise
    end_s = stopwatch.now()
    stopwatch.took(end_s - start_s, end_s)
    return result
