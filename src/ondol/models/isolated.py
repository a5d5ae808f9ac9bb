"""service: models in processes of their own, as the pool starts them: all forked by one server."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from ondol.errors import LifecycleError, ModelError
from ondol.models.loader import call

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.clock import Clock
    from ondol.models.isolation import ForkServer, IsolatedModel, ModelExit
    from ondol.models.spec import ModelSpec

__all__ = ["Isolator", "check_loader", "own_bytes"]


_NO_LIMIT_S: Final = 1_000_000.0
"""Eleven days: what the system calls behind it can still count in milliseconds."""


def check_loader(spec: ModelSpec) -> None:
    """Check that another process can find the loader of an isolated model.

    Raises:
        ConfigurationError: it cannot; the message says why and what to give instead.
    """
    if spec.isolation == "process":
        from ondol.models.isolation.target import resolve_target  # noqa: PLC0415  # only isolated models pay for it

        resolve_target(spec.load, name=spec.name)


class Isolator:
    """Starts isolated models; its fork server starts with the first of them and ends with ``close``."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._server: ForkServer | None = None

    async def start(
        self, spec: ModelSpec, *, timeout_s: float | None, clock: Clock, on_exit: Callable[[ModelExit], None]
    ) -> IsolatedModel:
        """Load the model of ``spec`` in a new process; see ``start_isolated``."""
        from ondol.models.isolation import ForkServer, start_isolated  # noqa: PLC0415  # only isolated models pay for it

        if self._server is None:
            self._server = ForkServer()
        return await start_isolated(
            spec.load,
            name=spec.name,
            start_timeout_s=_NO_LIMIT_S if timeout_s is None else timeout_s,
            call_timeout_s=spec.call_timeout_s,
            server=self._server,
            clock=clock,
            on_exit=on_exit,
        )

    async def close(self) -> None:
        """End the fork server, and with it whatever it forked that is still there."""
        server, self._server = self._server, None
        if server is not None:
            await call(server.close, name="fork-server-close")


async def own_bytes(model: IsolatedModel) -> int | None:
    """Return what the model's process adds to the machine's memory, ``None`` when it cannot be read.

    A model that states its size (``size_bytes``) may have weights that come into memory only with their use: then the
    larger of the two counts. That is asked of the model itself, which may take its time: bound it from outside.
    """
    found_bytes = 0
    with contextlib.suppress(OSError):
        found_bytes = int(await call(model.pss_bytes, name=f"{model.name}-memory"))
    with contextlib.suppress(ModelError, LifecycleError):  # most models say nothing; one that crashed is seen elsewhere
        stated = await model.read("size_bytes")
        if isinstance(stated, int) and not isinstance(stated, bool):
            found_bytes = max(found_bytes, stated)
    return found_bytes or None
