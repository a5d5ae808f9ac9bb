"""service: measures how long functions, coroutines, generators and ``with`` blocks take.

A call that fails is counted as ``name.errors``, one that is cancelled as ``name.cancelled``; their times do not go
into the metric, so that a flood of quick failures does not make the answers look fast.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from types import CoroutineType, MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from ondol.errors import MonitorError
from ondol.monitor.names import check_time_unit, check_timed_name
from ondol.monitor.series import Series
from ondol.monitor.timing_code import Wrapper, compiled, parameters_of
from ondol.monitor.timing_generators import timed_async_generator, timed_generator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self


__all__ = ["Measurement", "Stopwatch", "Timekeeper", "make_timed"]

P = ParamSpec("P")
T = TypeVar("T")


class Timekeeper(Protocol):
    """What timing needs of a monitor."""

    settles_at_s: float
    """When it is time to count what waits, in any case."""

    @property
    def now(self) -> Callable[[], float]:
        """Gives monotonic seconds."""
        ...

    def series(self, name: str, unit: str = "", **labels: str) -> Series:
        """Return where values of that name, unit and labels go."""
        ...

    def settle(self, at_s: float) -> None:
        """Count what waits, if it is time to; never raises."""
        ...

    def note_trouble(self, what: str, message: str, *args: object) -> None:
        """Log and count the error being handled; never raises."""
        ...

    def count_failure(self, name: str, labels: Mapping[str, str]) -> None:
        """Count one under ``name``; never raises."""
        ...


@functools.lru_cache(maxsize=1024)
def _checked(name: str, unit: str) -> tuple[str, float]:
    check_timed_name(name)
    return check_time_unit(unit)


class Measurement:
    """A ``with`` block whose time is recorded when it ends.

    Each use of it is measured by itself, also nested and in several tasks or threads at once.
    """

    __slots__ = ("_labels", "_starts", "_stopwatch")

    def __init__(self, keeper: Timekeeper, name: str, unit: str, labels: dict[str, str]) -> None:
        """Look the series up, so that nothing of it can fail when the block has done its work.

        Raises:
            MonitorError: the name or a label is not valid, the unit is no unit of time, or the metric has another one.
        """
        word, per_s = _checked(name, unit)
        self._labels = labels
        self._stopwatch = Stopwatch(keeper, name, keeper.series(name, word, **labels), per_s, labels)
        self._starts: dict[object, list[float]] = {}

    def __enter__(self) -> Self:
        """Begin."""
        self._starts.setdefault(_who(), []).append(self._stopwatch.now())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record the time, or count the failure, which goes on its way."""
        end_s = self._stopwatch.now()
        who = _who()
        starts = self._starts[who]
        start_s = starts.pop()
        if not starts:
            del self._starts[who]
        if error is None:
            self._stopwatch.took(end_s - start_s, end_s)
        else:
            self._stopwatch.failed(error)


def _who() -> object:
    """Return what is running here: a task, or a thread without one."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.get_ident() if task is None else task


class Stopwatch:
    """Records the durations of one series of one monitor, with what can be looked up once looked up once."""

    __slots__ = ("_labels", "_name", "_per_s", "keeper", "now", "series")

    def __init__(
        self,
        keeper: Timekeeper,
        name: str,
        series: Series,
        per_s: float,
        labels: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Record into ``series``, in units of which ``per_s`` make a second."""
        self.keeper = keeper
        self.now = keeper.now
        self.series = series
        self._name = name
        self._per_s = per_s
        self._labels = labels

    def took(self, elapsed_s: float, end_s: float) -> None:
        """Record a duration that ended at ``end_s``."""
        if end_s >= self.keeper.settles_at_s:
            self.keeper.settle(end_s)
        self.series.at_s = end_s
        self.series.pending.append(elapsed_s * self._per_s)

    def failed(self, error: BaseException) -> None:
        """Count a call that raised ``error``."""
        if isinstance(error, asyncio.CancelledError):
            self.keeper.count_failure(f"{self._name}.cancelled", self._labels)
        elif isinstance(error, Exception):
            self.keeper.count_failure(f"{self._name}.errors", self._labels)


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

    resolve: Callable[[], Timekeeper] | None = monitor if callable(monitor) else None

    def watch() -> Stopwatch:
        keeper = monitor() if callable(monitor) else monitor
        try:
            series = keeper.series(name, word)
        except MonitorError:
            if resolve is None:
                raise  # where it is decorated
            # The function is called now, and what keeps it from being measured must not keep it from its work.
            keeper.note_trouble(f"timed {name}", "a function cannot be measured as %r", name)
            series = _series_nowhere()
        return Stopwatch(keeper, name, series, per_s)

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        if isinstance(function, (classmethod, staticmethod)):
            raise MonitorError(
                f"{function!r} cannot be measured: put @classmethod or @staticmethod above the decorator"
            )
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


def _series_nowhere() -> Series:
    series = Series()
    series.pending = _Nowhere()
    return series


class _Nowhere(list[float]):
    """Takes everything and keeps nothing."""

    def append(self, _value: float, /) -> None:
        """Keep nothing."""


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
