"""service: actions on models that take their time: started at once, followed by their id, remembered for a while."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from typing import TYPE_CHECKING, Final

from ondol.errors import AlreadyClosedError, TooManyOperationsError, UnknownOperationError
from ondol.models.actions import Action, Operation
from ondol.models.spec import ModelState

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.clock import Clock
    from ondol.models.actions import Controllable

__all__ = ["Operations"]

logger = logging.getLogger("ondol.models")

_Task = asyncio.Task[Exception | None]
_BRINGS_UP: Final = frozenset({"load", "pin", "reload"})
_TAKE_TIME: Final = _BRINGS_UP | {"unload"}


class _Record:
    """One operation as it is kept. The error is kept as text: an exception would hold on to a loader's frames."""

    __slots__ = ("action", "created_at", "ended_at", "error", "error_type", "id", "is_after_others", "model", "task")

    def __init__(self, operation_id: str, action: Action, model: str, created_at: float) -> None:
        self.id = operation_id
        self.action: Action = action
        self.model = model
        self.created_at = created_at
        self.ended_at: float | None = None
        self.error: str | None = None
        self.error_type: str | None = None
        self.task: _Task | None = None
        """Set while it runs; its result is the error."""
        self.is_after_others = False
        """Whether it began, or begins, when others had ended."""


class Operations:
    """Starts actions on the models of one pool and remembers how they ended.

    ``pin`` pins a model and loads it; ``unpin`` and ``release`` end at once. The loads belong to the pool: whoever
    stops watching cancels nothing.

    Thread-safety: belongs to the event loop of the pool.
    """

    def __init__(
        self,
        pool: Controllable,
        clock: Clock,
        *,
        max_kept: int = 256,
        new_id: Callable[[], str] = lambda: os.urandom(8).hex(),
    ) -> None:
        """Act on ``pool``; nothing runs yet.

        Args:
            pool: whose models.
            clock: where the time of day is read.
            max_kept: operations remembered; the oldest that ended goes first, a running one never.
            new_id: makes ids; whoever knows one may look at that operation.
        """
        self._pool = pool
        self._clock = clock
        self._max_kept = max_kept
        self._new_id = new_id
        self._records: dict[str, _Record] = {}
        self._latest: dict[str, _Record] = {}
        """By model the last operation that takes its time, while it runs."""
        self._is_closed = False

    def start(self, action: Action, model: str) -> Operation:
        """Begin ``action`` and return at once.

        When the last operation on the model runs still and is the same action, it is that one; but a reload is always
        one of its own, for the one under way may be of yesterday's weights.

        Raises:
            UnknownModelError: no such model.
            TooManyOperationsError: too many run already.
            AlreadyClosedError: it was closed.
        """
        return self._shown(self._begin(action, model))

    async def run(self, action: Action, model: str) -> Operation:
        """Begin ``action`` as ``start`` does and return when it has ended well.

        Cancellation: cancels nothing, the action goes on.

        Raises:
            OndolError: as ``start`` does, and whatever the action ended with.
        """
        record = self._begin(action, model)
        if (task := record.task) is not None:
            await asyncio.wait([task])
            if task.cancelled():
                raise self._closed_error()
            if (error := task.result()) is not None:
                raise error
        return self._shown(record)

    def get(self, operation_id: str) -> Operation:
        """Return one operation.

        Raises:
            UnknownOperationError: none of that id is known (any more).
        """
        record = self._records.get(operation_id)
        if record is None:
            message = f"no operation has the id {operation_id!r}; the last {self._max_kept} are remembered"
            raise UnknownOperationError(message)
        return self._shown(record)

    def all(self) -> list[Operation]:
        """Return every operation that is remembered, the newest first."""
        return [self._shown(record) for record in reversed(self._records.values())]

    async def close(self) -> None:
        """Stop watching and take no more; what the pool loads or unloads goes on."""
        self._is_closed = True
        tasks = [record.task for record in self._records.values() if record.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _begin(self, action: Action, model: str) -> _Record:
        if self._is_closed:
            raise self._closed_error()
        self._pool.status(model)
        latest = self._latest.get(model)
        is_joining = latest is not None and latest.action == action != "reload"
        if not is_joining:
            self._make_room()
        self._do_at_once(action, model)  # also when joining: it may have been undone since
        if latest is not None and is_joining:
            return latest
        record = _Record(self._new_id(), action, model, self._clock.wall())
        self._records[record.id] = record
        if action in _TAKE_TIME:
            self._latest[model] = record
            predecessors = self._predecessors(action, model)
            record.is_after_others = bool(predecessors)
            watch = self._watch(action, model, predecessors)
            record.task = asyncio.create_task(watch, name=f"ondol-{action}-{model}")
            record.task.add_done_callback(functools.partial(self._ended, record))
        else:
            record.ended_at = record.created_at
        fields = {"model": model, "action": action, "operation": record.id}
        logger.info("%s of model %s was asked for", action, model, extra={"fields": fields})
        return record

    def _make_room(self) -> None:
        if len(self._records) < self._max_kept:
            return
        oldest = next((record.id for record in self._records.values() if record.ended_at is not None), None)
        if oldest is None:
            message = f"{self._max_kept} operations run already; wait until one has ended"
            raise TooManyOperationsError(message)
        del self._records[oldest]

    def _do_at_once(self, action: Action, model: str) -> None:
        if action == "pin":
            self._pool.pin(model)
        elif action == "unpin":
            self._pool.unpin(model)
        elif action == "release":
            self._pool.release(model)

    def _predecessors(self, action: Action, model: str) -> list[_Task]:
        """Return what has to end first: unloads before a load, and before an unload the loads that wait for one."""
        return [
            record.task
            for record in self._records.values()
            if record.task is not None
            and record.model == model
            and (record.action == "unload" if action in _BRINGS_UP else record.is_after_others)
        ]

    async def _watch(self, action: Action, model: str, predecessors: list[_Task]) -> Exception | None:
        if predecessors:
            await asyncio.wait(predecessors)  # a load would be given the copy that is unloaded as soon as it is there
        try:
            if action == "unload":
                await self._pool.unload(model)
            elif action == "reload":
                await self._pool.reload(model)
            else:
                await self._pool.load(model)
        except Exception as exc:  # noqa: BLE001  # kept, and raised to those who wait for it
            return exc
        return None

    def _ended(self, record: _Record, task: _Task) -> None:
        error = self._closed_error() if task.cancelled() else task.result()
        if error is not None:
            record.error, record.error_type = str(error), type(error).__name__
        record.ended_at = self._clock.wall()
        record.task = None
        if self._latest.get(record.model) is record:
            del self._latest[record.model]

    def _shown(self, record: _Record) -> Operation:
        is_running = record.ended_at is None
        progress, eta_s, detail = self._under_way(record) if is_running else (None, None, "")
        has_succeeded = not is_running and record.error is None
        return Operation(
            id=record.id,
            model=record.model,
            action=record.action,
            status="running" if is_running else "succeeded" if has_succeeded else "failed",
            progress=1.0 if has_succeeded else progress,
            eta_s=eta_s,
            detail=detail,
            error=record.error,
            error_type=record.error_type,
            created_at=record.created_at,
            ended_at=record.ended_at,
        )

    def _under_way(self, record: _Record) -> tuple[float | None, float | None, str]:
        status = self._pool.status(record.model)
        detail = f"{status.state}: {status.reason}"
        if record.action not in _BRINGS_UP:
            return None, None, detail
        # A ready model whose reload has not begun yet is complete; its operation is not.
        is_complete = status.state is ModelState.READY and status.progress == 1
        return None if is_complete else status.progress, status.eta_s, detail

    @staticmethod
    def _closed_error() -> AlreadyClosedError:
        return AlreadyClosedError("the server is shutting down; what was asked of the model is not watched any more")
