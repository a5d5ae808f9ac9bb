"""Those who ask something of a pool in a random history: what each may get, how long it may take, what it may hold."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ondol.errors import AlreadyClosedError, ModelError, NotStartedError
from tests.property.pool_audit import SLACK_S
from tests.property.pool_fakes import Copy, copy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ondol.models import ModelPool
    from tests.property.pool_workshop import Workshop

__all__ = ["EXPECTED_ERRORS", "Caller", "Callers"]


class _BlockError(Exception):
    """Raised by a caller within its lease."""


EXPECTED_ERRORS: Final = (ModelError, NotStartedError, AlreadyClosedError, _BlockError)


@dataclass(eq=False)
class Caller:
    """One task that asks something of the pool."""

    label: str
    task: asyncio.Task[None] | None = None
    is_cancelled: bool = False


class Callers:
    """The tasks that ask, each until it has its answer."""

    def __init__(
        self, pool: ModelPool, workshop: Workshop, note: Callable[[str], None], fault: Callable[[str], None]
    ) -> None:
        """Begin with nobody asking."""
        self.waiting: list[Caller] = []
        self._pool = pool
        self._workshop = workshop
        self._note = note
        self._fault = fault
        self._numbers = 0

    def cancel(self, number: int) -> None:
        """Cancel one of those that wait, if there are any."""
        if self.waiting:
            caller = self.waiting[number % len(self.waiting)]
            caller.is_cancelled = True
            self._note(f"  cancels {caller.label}")
            if caller.task is not None:
                caller.task.cancel()

    def cancel_one_of(self, name: str) -> None:
        """Cancel the first that asked for a model."""
        number = next((n for n, caller in enumerate(self.waiting) if caller.label.split()[1] == name), None)
        if number is not None:
            self.cancel(number)

    def cancel_all(self) -> None:
        """Expect all to be cancelled."""
        for caller in self.waiting:
            caller.is_cancelled = True

    def call(self, label: str, work: Coroutine[Any, Any, None]) -> None:
        self._numbers += 1
        caller = Caller(f"{label} (caller {self._numbers})")
        caller.task = self._workshop.loop.create_task(self._answer(caller, work))
        self.waiting.append(caller)
        caller.task.add_done_callback(lambda task: self._called(caller, task))

    async def _answer(self, caller: Caller, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except EXPECTED_ERRORS as exc:
            self._note(f"  {caller.label} gets {type(exc).__name__}: {exc}")

    def _called(self, caller: Caller, task: asyncio.Task[None]) -> None:
        self.waiting.remove(caller)
        if task.cancelled():
            self._expect(caller.is_cancelled, f"{caller.label} was cancelled by nobody")
        elif (error := task.exception()) is not None:
            self._fault(f"{caller.label} got what no caller should get: {error!r}")

    async def lease(self, name: str, seconds: float, nested: str | None, *, is_failing: bool) -> None:
        asked_at_s, timeout_s = self._workshop.loop.time(), self._pool._registry.options.lease_timeout_s
        try:
            lease = self._pool.lease(name)
            model = await lease.__aenter__()
        finally:
            waited_s = self._workshop.loop.time() - asked_at_s
            self._expect(waited_s <= timeout_s + SLACK_S, f"a lease of {name} waited {waited_s} s, not {timeout_s} s")
        error: BaseException | None = None
        copy = model.copy
        self._workshop.hold(copy, name)
        try:
            if nested is not None:
                with contextlib.suppress(ModelError, NotStartedError, AlreadyClosedError):
                    await self.lease(nested, seconds, None, is_failing=False)
            await asyncio.sleep(seconds)
            if is_failing:
                raise _BlockError(name)
        except BaseException as exc:
            error = exc
            raise
        finally:
            self._workshop.let_go(copy)
            del model
            await lease.__aexit__(None if error is None else type(error), error, None)
            del error

    async def unload(self, name: str) -> None:
        run = self._pool._run
        ready = None if run is None else run.ready.get(name)
        copy = None if ready is None else copy_of(ready)
        kept = [copy for copy in self._workshop.copies if copy.plan.name == name and self._workshop.is_kept(copy)]
        was_loaded = await self._pool.unload(name)
        self._expect(was_loaded or copy is None or copy.phase == "gone", f"unload of {name} found nothing")
        for copy in kept:
            is_gone = copy.phase == "gone" or copy.is_excused or not self._workshop.is_kept(copy)
            self._expect(is_gone, f"unload of {name} came back before {copy} was gone")

    async def reload(self, name: str) -> None:
        asked_at = self._workshop.next_event()
        await self._pool.reload(name)
        run = self._pool._run
        ready = None if run is None else run.ready.get(name)
        if ready is not None:
            copy: Copy = ready.model.copy
            self._expect(copy.began_at > asked_at, f"reload of {name} came back, but {copy} is of before")

    def _expect(self, is_true: object, text: str) -> None:
        if not is_true:
            self._fault(text)
