"""service: a model in a process of its own: what it does wrong there stays there.

``start_isolated`` forks the process, loads the model in it and returns a proxy. A call is sent as plain data and
numpy arrays; the answer, an exception or the end of the process come back as results and typed errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondol.clock import SystemClock
from ondol.errors import ModelCallTimeoutError, ModelError, ModelLoadError, RemoteModelError
from ondol.models.isolation.memory import ProcessMemory, read_memory
from ondol.models.isolation.process import ChildProcess
from ondol.models.isolation.server import ForkServer
from ondol.models.isolation.target import resolve_target
from ondol.models.loader import call
from ondol.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

    from ondol.clock import Clock
    from ondol.models.isolation.ends import ModelExit
    from ondol.models.isolation.target import Loader

__all__ = ["IsolatedModel", "start_isolated"]

_KILL_GRACE_S: Final = 10.0


async def start_isolated(
    loader: Loader,
    *,
    name: str,
    start_timeout_s: float = 300.0,
    call_timeout_s: float | None = None,
    server: ForkServer | None = None,
    clock: Clock | None = None,
    on_exit: Callable[[ModelExit], None] | None = None,
) -> IsolatedModel:
    """Load a model in a new process and return its proxy, ready for calls.

    Args:
        loader: ``"package.module:function"``, or a function or class of a module, also as ``functools.partial`` with
            plain arguments. It returns the model, or an awaitable of it.
        name: of the model, for messages.
        start_timeout_s: the process is ended when the model is not loaded by then.
        call_timeout_s: the process is ended when one call takes longer (waiting for its turn not counted).
        server: forks it; share one among models. Without it the model has a fork server of its own, which costs
            the start of an interpreter and some memory.
        clock: measures ``ready_s``.
        on_exit: called once in this event loop when the process ends after it was ready.

    Raises:
        ConfigurationError: another process cannot find the loader.
        UnencodableValueError: an argument of the loader cannot be sent.
        ModelLoadError: the loader raised (``__cause__`` is a ``RemoteModelError``), took too long, or there is no
            process to be had.
        ModelCrashedError: the process ended while it loaded.

    Cancellation: ends the process.
    """
    target = resolve_target(loader, name=name)
    clock = clock or SystemClock()
    own_server = None
    if server is None:
        server = own_server = ForkServer()
    process = ChildProcess(name, server)
    begun_s = clock.monotonic()
    request = {
        "do": "load",
        "loader": target.path,
        "args": list(target.args),
        "kwargs": target.kwargs,
        "environ": dict(os.environ),
        "path": [str(entry) for entry in sys.path],
        "folder": _folder(),
    }
    try:
        await _answer(process.start(request, timeout_s=start_timeout_s))
    except BaseException as exc:
        process.finish()
        process.kill(reason="its load was given up")
        await _wait_ended(process, _KILL_GRACE_S)
        if own_server is not None:
            await call(own_server.close, name=f"{name}-close")
        if isinstance(exc, RemoteModelError | ModelCallTimeoutError):
            raise _load_error(name, exc, start_timeout_s) from exc
        raise
    model = IsolatedModel(process, call_timeout_s, own_server, ready_s=clock.monotonic() - begun_s)
    if on_exit is not None:
        _announce(process, on_exit)
    return model


class IsolatedModel:
    """The proxy of a model in another process; made by :func:`start_isolated`.

    ``await model.call("encode", texts)`` and ``await model.encode(texts)`` are the same; the second form is there for
    every name that does not begin with an underscore and is none of this class's own. Calls are answered one at a
    time in their order. What is passed must not be changed until the call returns.

    Attributes:
        name: of the model.
        pid: process id.
        ready_s: how long it took until it was ready.

    Thread-safety: may be used from any thread and from any event loop; a call belongs to the loop it is awaited in.
    """

    def __init__(
        self, process: ChildProcess, call_timeout_s: float | None, own_server: ForkServer | None, *, ready_s: float
    ) -> None:
        """Stand for the model of ``process``, which is loaded."""
        self.name = process.name
        self.pid = process.pid
        self.ready_s = ready_s
        self._process = process
        self._call_timeout_s = call_timeout_s
        self._own_server = own_server

    def __repr__(self) -> str:
        return f"<IsolatedModel {self.name!r} in process {self.pid}, {'alive' if self.is_alive else 'ended'}>"

    def __getattr__(self, method: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return the model's method of that name."""
        if method.startswith("_"):
            message = f"{type(self).__name__!r} object has no attribute {method!r}"
            raise AttributeError(message)
        return functools.partial(self.call, method)

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the model itself."""
        return await self.call("__call__", *args, **kwargs)

    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Return what the model's ``method`` returns; a coroutine is awaited there.

        Raises:
            RemoteModelError: the method raised; the error has the traceback's text.
            UnencodableValueError: an argument or the result cannot be sent.
            ModelCallTimeoutError: it took longer than ``call_timeout_s``; the process is gone.
            ModelCrashedError: the process ended before the answer.
            AlreadyClosedError: the model is closed or closing.

        Cancellation: a call that waits is dropped; one that runs goes on and its answer is dropped.
        """
        request = {"do": "call", "name": method, "args": list(args), "kwargs": kwargs}
        return await _answer(self._process.submit(request, timeout_s=self._call_timeout_s))

    async def read(self, attribute: str) -> Any:
        """Return an attribute of the model. Raises and cancellation as with ``call``."""
        request = {"do": "read", "name": attribute}
        return await _answer(self._process.submit(request, timeout_s=self._call_timeout_s))

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._process.exit is None

    @property
    def exit(self) -> ModelExit | None:
        """How its process ended, ``None`` while it runs."""
        return self._process.exit

    def memory(self) -> ProcessMemory:
        """Return the memory of its process; zeros when it has ended. Takes the kernel about a millisecond."""
        found = read_memory(self.pid) if self.pid is not None and self.is_alive else None
        return found or ProcessMemory(0, 0)

    def rss_bytes(self) -> int:
        """Return what its process holds in memory, pages shared with others included."""
        return self.memory().rss_bytes

    def pss_bytes(self) -> int:
        """Return what its process adds to the machine's memory: shared pages by share (see ``ProcessMemory``)."""
        return self.memory().pss_bytes

    async def close(self, *, drain_s: float = 30.0) -> ModelExit:
        """Answer what was asked so far, end the process, and return how it ended. May be called again.

        Args:
            drain_s: after that it is killed.

        Raises:
            ModelError: the process does not even end when it is killed (it waits for a device).

        Cancellation: kills it at once.
        """
        reason = "it was closed in haste"
        self._process.finish()
        try:
            await _wait_ended(self._process, drain_s)
            reason = f"it did not end within {format_seconds(drain_s)}"
        finally:
            if self.is_alive:
                self.kill(reason=reason)
                await _wait_ended(self._process, _KILL_GRACE_S)
            if self._own_server is not None:
                await call(self._own_server.close, name=f"{self.name}-close")
        ended = self.exit
        if ended is None:
            raise ModelError(f"the process {self.pid} of model {self.name!r} does not even end when it is killed")
        return ended

    def kill(self, *, reason: str = "it was killed on request") -> None:
        """End the process at once; those that wait get ``ModelCrashedError``. Needs no event loop."""
        self._process.kill(reason=reason)


async def _answer(future: Future[Any]) -> Any:
    return await asyncio.wrap_future(future)


async def _wait_ended(process: ChildProcess, timeout_s: float) -> bool:
    """Wait until nothing is left of the process; return whether it is so."""
    waiter = asyncio.wrap_future(process.ended)
    try:
        await asyncio.wait([waiter], timeout=timeout_s)
    finally:
        waiter.cancel()  # a no-op when it is done; the future behind it cannot be cancelled
    if not process.ended.done():
        return False
    process.join()  # some microseconds
    return True


def _announce(process: ChildProcess, on_exit: Callable[[ModelExit], None]) -> None:
    loop = asyncio.get_running_loop()

    def pass_on(ended: ModelExit) -> None:
        with contextlib.suppress(RuntimeError):  # that loop is closed: nobody is left to be told
            loop.call_soon_threadsafe(on_exit, ended)

    process.when_exited(pass_on)


def _load_error(name: str, exc: Exception, start_timeout_s: float) -> ModelLoadError:
    if isinstance(exc, ModelCallTimeoutError):
        return ModelLoadError(f"isolated model {name!r} was not ready within {format_seconds(start_timeout_s)}")
    return ModelLoadError(f"isolated model {name!r} could not be loaded: {exc}")


def _folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # it was removed under this process
        return "/"
