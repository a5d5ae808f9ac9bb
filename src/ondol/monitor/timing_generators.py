"""service: measures how long generators, plain and asynchronous, work on their items."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

__all__ = ["Watch", "timed_async_generator", "timed_generator"]


class Watch(Protocol):
    """What measuring needs of a stopwatch."""

    @property
    def now(self) -> Callable[[], float]:
        """Gives monotonic seconds."""
        ...

    def took(self, elapsed_s: float, end_s: float) -> None:
        """Record a duration."""
        ...

    def failed(self, error: BaseException) -> None:
        """Count a failure."""
        ...


class _Turns:
    """Adds up the turns in which a generator worked, and records them once."""

    __slots__ = ("_elapsed_s", "_start_s", "_watch")

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._elapsed_s = 0.0
        self._start_s = 0.0

    def begin(self) -> None:
        self._start_s = self._watch.now()

    def end(self) -> None:
        self._elapsed_s += self._watch.now() - self._start_s

    def is_over(self) -> None:
        self._watch.took(self._elapsed_s, self._watch.now())

    def failed(self, error: BaseException) -> None:
        self._watch.failed(error)


def timed_generator(watch: Callable[[], Watch], function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function``, a generator function, so that each generator's own work is measured."""

    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from _driven(_Turns(watch()), function(*args, **kwargs)))

    return timed


def _driven(turns: _Turns, generator: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    resume: Callable[[], Any] = functools.partial(next, generator)
    while True:
        turns.begin()
        try:
            item = resume()
        except StopIteration as stop:
            turns.end()
            turns.is_over()
            return stop.value
        except BaseException as exc:
            turns.failed(exc)
            raise
        turns.end()
        try:
            sent = yield item
        except GeneratorExit:
            turns.begin()
            try:
                generator.close()
            except BaseException as exc:
                turns.failed(exc)
                raise
            turns.end()
            turns.is_over()
            raise
        except BaseException as exc:  # noqa: BLE001  # handed to the generator, which has the say
            resume = functools.partial(generator.throw, exc)
        else:
            resume = functools.partial(generator.send, sent)


def timed_async_generator(watch: Callable[[], Watch], function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function``, an asynchronous generator function, so that each generator's own work is measured."""

    @functools.wraps(function)
    async def timed(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        turns = _Turns(watch())
        generator = function(*args, **kwargs)
        resume: Callable[[], Any] = generator.__anext__
        while True:
            turns.begin()
            try:
                item = await resume()
            except StopAsyncIteration:
                turns.end()
                turns.is_over()
                return
            except BaseException as exc:
                turns.failed(exc)
                raise
            turns.end()
            try:
                sent = yield item
            except GeneratorExit:
                turns.begin()
                try:
                    await generator.aclose()
                except BaseException as exc:
                    turns.failed(exc)
                    raise
                turns.end()
                turns.is_over()
                raise
            except BaseException as exc:  # noqa: BLE001  # handed to the generator, which has the say
                resume = functools.partial(generator.athrow, exc)
            else:
                resume = functools.partial(generator.asend, sent)

    return timed
