"""What the isolation tests share: models that are started and put away, and a way to talk to one while it works."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from typing import TYPE_CHECKING, Any

import psutil

from ondol.models.isolation import ForkServer, IsolatedModel, start_isolated
from tests.service import isolation_models

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

END_LIMIT_S = 30.0


async def start(server: ForkServer, loader: Any = isolation_models.load, **options: Any) -> IsolatedModel:
    return await start_isolated(loader, name="m", server=server, **{"start_timeout_s": 60.0, **options})


def with_model(
    server: ForkServer, scenario: Callable[[IsolatedModel], Coroutine[Any, Any, None]], **options: Any
) -> None:
    """Run ``scenario`` with a model, which is closed after it whatever is left of it."""

    async def run() -> None:
        model = await start(server, **options)
        try:
            await scenario(model)
        finally:
            await model.close()
        assert threads_of("m") == []

    asyncio.run(run())


def threads_of(name: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(f"ondol-{name}")]


def children_of(server: ForkServer) -> list[psutil.Process]:
    """Return the processes that the fork server has, without those that are gone in a moment."""
    assert server.pid is not None
    _, alive = psutil.wait_procs(psutil.Process(server.pid).children(), timeout=5)
    return alive


class Life:
    """A FIFO that processes hold open as long as they live: its end is their end."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "life")
        os.mkfifo(self.path)
        self._reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    def has_begun(self) -> bool:
        """Wait until somebody has written to it; return whether that was in time."""
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        return bool(poller.poll(END_LIMIT_S * 1000) and os.read(self._reader, 1))

    def is_over(self) -> bool:
        """Wait until nobody holds it; return whether that was in time."""
        poller = select.poll()
        poller.register(self._reader, select.POLLHUP)
        try:
            return bool(poller.poll(END_LIMIT_S * 1000))
        finally:
            os.close(self._reader)


class Gate:
    """Two FIFOs through which a call in the model says that it runs, and is let go."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "gate")
        for end in (".running", ".go"):
            os.mkfifo(self.path + end)
        self._running, self._go = (os.open(self.path + end, os.O_RDWR) for end in (".running", ".go"))

    async def until_running(self) -> str:
        return await asyncio.to_thread(self._read_running)

    def let_go(self, answer: str) -> None:
        os.write(self._go, answer.encode() + b"\n")

    def _read_running(self) -> str:
        poller = select.poll()
        poller.register(self._running, select.POLLIN)
        assert poller.poll(END_LIMIT_S * 1000), "the model does not say that it runs"
        return os.read(self._running, 1000).decode().strip()

    def close(self) -> None:
        os.close(self._running)
        os.close(self._go)
