"""service: how a model goes: its own ``unload``, its process, and its memory, which goes back to the system."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from ondol.models.loader import call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ondol.models.entry import Resident
    from ondol.models.meter import MemoryMeter
    from ondol.models.spec import ModelSpec

__all__ = ["Parting"]

logger = logging.getLogger("ondol.models")


class _Owner(Protocol):
    model: Any


class Parting:
    """Says farewell to models."""

    def __init__(self, meter: MemoryMeter, release_memory: Callable[[], object] | None) -> None:
        """Use ``release_memory`` (which may block) to hand free memory back to the system."""
        self._meter = meter
        self._release_memory = release_memory

    async def part_with(self, spec: ModelSpec, owner: _Owner, *, has_crashed: bool = False) -> bool:
        """Unload ``owner.model`` and let go of it; return whether all went well (a failure is logged).

        The owner must be the last that refers to the model, or its memory stays.

        Cancellation: the model is let go of all the same; what runs in a thread is left behind.
        """
        reading = self._meter.begin(is_unload=True)
        trace: weakref.ref[Any] | None = None
        try:
            went_well = has_crashed or await _unload(spec, owner.model)
            if spec.isolation == "process":
                await owner.model.close()
            else:
                with contextlib.suppress(TypeError):  # numbers, texts and containers cannot be traced
                    trace = weakref.ref(owner.model)
        except Exception:
            logger.exception(
                "closing the process of model %s failed", spec.name, extra={"fields": {"model": spec.name}}
            )
            went_well = False
        finally:
            owner.model = None
            self._meter.end(reading)
        if self._release_memory is not None and spec.isolation == "thread":
            try:
                await call(_give_back, trace, self._release_memory, name=f"{spec.name}-memory")
            except Exception:
                logger.exception("handing free memory back to the system failed")
        return went_well

    async def part_with_all(self, residents: Iterable[Resident]) -> None:
        """Unload one after the other."""
        for resident in residents:
            await self.part_with(resident.spec, resident)


async def _unload(spec: ModelSpec, model: Any) -> bool:
    if spec.unload is None:
        return True
    try:
        await call(spec.unload, model, name=spec.name)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as exc:
        task = asyncio.current_task()
        if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # else its own: it waited for something that it had cancelled itself
        logger.exception("unloading model %s failed", spec.name, extra={"fields": {"model": spec.name}})
        return False
    return True


def _give_back(trace: weakref.ref[Any] | None, release_memory: Callable[[], object]) -> None:
    if trace is not None and trace() is not None:
        gc.collect()  # it refers to itself in a circle, or somebody keeps it
    release_memory()
