"""service: the callers that wait for a model, and how each wait ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.models.entry import Resident

__all__ = ["Waiter", "Waiters"]


class Waiter:
    """One caller. ``is_lease``: it takes a lease (counted when it is handed over), else it only wants it ready."""

    __slots__ = ("future", "is_demand", "is_lease", "name")

    def __init__(self, name: str, *, is_lease: bool, is_demand: bool) -> None:
        """Prepare the wait for the model ``name`` in the running loop."""
        self.name = name
        self.is_lease = is_lease
        self.is_demand = is_demand
        self.future: asyncio.Future[Resident] = asyncio.get_running_loop().create_future()


class Waiters:
    """All callers of one run of the pool, by model. Use it in the loop's thread only."""

    def __init__(self, give_back: Callable[[Resident], None]) -> None:
        """Return a lease that its caller never saw through ``give_back``."""
        self._by_name: dict[str, dict[Waiter, None]] = {}
        self._demands: dict[str, int] = {}
        self._give_back = give_back

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def names(self) -> list[str]:
        """Return the models somebody waits for."""
        return list(self._by_name)

    def has_demand(self, name: str) -> bool:
        """Tell whether a request (and not only a preload) waits for the model."""
        return name in self._demands

    def count_demand(self, name: str) -> int:
        """Return how many requests (and not only preloads) wait for the model. Cost: constant."""
        return self._demands.get(name, 0)

    def demanded(self) -> tuple[str, ...]:
        """Return the models that requests wait for."""
        return tuple(self._demands)

    def add(self, waiter: Waiter) -> None:
        """Count a caller in before it waits."""
        self._by_name.setdefault(waiter.name, {})[waiter] = None
        if waiter.is_demand:
            self._demands[waiter.name] = self._demands.get(waiter.name, 0) + 1

    async def wait(
        self, waiter: Waiter, timeout_s: float | None, make_timeout: Callable[[], BaseException]
    ) -> Resident:
        """Wait until the model is handed over.

        Cancellation: ends this wait only; a lease handed over in the same instant is given back.

        Raises:
            BaseException: what the waiter was failed with, or what ``make_timeout`` returns after ``timeout_s``.
        """
        timer = None
        if timeout_s is not None:
            timer = asyncio.get_running_loop().call_later(timeout_s, self._expire, waiter, make_timeout)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            future = waiter.future
            was_handed_over = future.done() and not future.cancelled() and future.exception() is None
            if was_handed_over and waiter.is_lease:
                self._give_back(future.result())
            raise
        finally:
            if timer is not None:
                timer.cancel()
            self._remove(waiter)

    def hand_over(self, name: str, resident: Resident) -> None:
        """End all waits for a model that is ready; leases count from now, so that nothing evicts it in between."""
        for waiter in self._remove_all(name):
            if not waiter.future.done():
                resident.leases += waiter.is_lease
                waiter.future.set_result(resident)

    def fail(self, name: str, make_error: Callable[[], BaseException]) -> None:
        """End all waits for a model with an error of its own each (a shared one would mix their tracebacks)."""
        for waiter in self._remove_all(name):
            if not waiter.future.done():
                waiter.future.set_exception(make_error())

    def _expire(self, waiter: Waiter, make_timeout: Callable[[], BaseException]) -> None:
        if not waiter.future.done():
            waiter.future.set_exception(make_timeout())
            self._remove(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Forget a caller that does not wait after all."""
        self._remove(waiter)

    def _remove(self, waiter: Waiter) -> None:
        name = waiter.name
        waiters = self._by_name.get(name)
        if waiters is None or waiter not in waiters:
            return
        del waiters[waiter]
        if not waiters:
            self._remove_all(name)
        elif waiter.is_demand:
            self._demands[name] -= 1
            if not self._demands[name]:
                del self._demands[name]

    def _remove_all(self, name: str) -> dict[Waiter, None]:
        self._demands.pop(name, None)
        return self._by_name.pop(name, {})
