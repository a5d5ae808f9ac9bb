"""adapter: the parent's side of the fork server: starts it when first needed, and again when it was lost."""

from __future__ import annotations

import array
import contextlib
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final

from ondol.errors import ModelLoadError
from ondol.models.isolation.protocol import COMMAND, FORK, SIGNAL

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ForkServer"]

logger = logging.getLogger("ondol.models")

_CODE: Final = (
    "import sys; sys.path[:] = {path!r}; from ondol.models.isolation.fork_main import main; main{arguments!r}"
)
_MAX_HELLO_BYTES: Final = 64 * 1024
_END_GRACE_S: Final = 5.0


class ForkServer:
    """A process that forks the processes of isolated models, so that they need not start from nothing.

    Made without any effect; it starts with the first model, and again when it was closed or lost.

    Thread-safety: may be used from any thread; starting it blocks.
    """

    def __init__(self, *, preload: Sequence[str] = ("numpy",)) -> None:
        """Import the modules ``preload`` once, for all models; those that are not there are logged and left out.

        Modules that start threads when they are imported do not belong there: a fork has only one thread.
        """
        self.preload = tuple(preload)
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()  # of its own: a signal must not wait for a start
        self._numbers = itertools.count(1)  # never used twice: a late signal finds nobody instead of somebody else
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The process id, ``None`` while it does not run."""
        return self._process.pid if self._process is not None else None

    def start(self, *, timeout_s: float = 30.0) -> None:
        """Start it now instead of with the first model.

        Raises:
            ModelLoadError: it did not come up in time.
        """
        with self._lock:
            self._ensure(timeout_s)

    def fork(self, descriptors: Sequence[int], *, timeout_s: float) -> int:
        """Fork a child that gets ``descriptors``; return its number for ``signal``.

        Raises:
            ModelLoadError: the fork server could not be started.
        """
        with self._lock:
            number = next(self._numbers)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            command = COMMAND.pack(FORK, number, 0)
            try:
                self._send(command, rights, timeout_s)
            except OSError:  # it was lost since it was last used
                self._end()
                try:
                    self._send(command, rights, timeout_s)
                except OSError as exc:
                    raise ModelLoadError(f"the fork server of isolated models cannot be reached: {exc}") from exc
            return number

    def signal(self, number: int, signal_number: int) -> None:
        """Send a signal to a child; nothing happens when it has ended."""
        control = self._control
        if control is not None:
            with self._send_lock, contextlib.suppress(OSError):  # a lost server has no children left
                control.sendall(COMMAND.pack(SIGNAL, number, signal_number))

    def close(self) -> None:
        """End it, and with it every child. Blocks for some milliseconds."""
        with self._lock:
            self._end()

    def _send(self, command: bytes, rights: list[tuple[int, int, array.array[int]]], timeout_s: float) -> None:
        control = self._ensure(timeout_s)
        with self._send_lock:
            control.sendmsg([command], rights)

    def _ensure(self, timeout_s: float) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            logger.warning("the fork server of isolated models ended by itself and is started again")
            self._end()
        if self._control is None:
            try:
                self._control = self._launch(timeout_s)
            except BaseException:
                self._end()
                raise
        return self._control

    def _launch(self, timeout_s: float) -> socket.socket:
        ours, theirs = socket.socketpair()
        try:
            code = _CODE.format(path=sys.path, arguments=(theirs.fileno(), os.getpid(), list(self.preload)))
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter, with code of this package
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
            theirs.close()
            ours.settimeout(timeout_s)
            self._greet(ours)
            ours.settimeout(None)
        except OSError as exc:
            ours.close()
            raise ModelLoadError(f"the fork server of isolated models did not start: {exc}") from exc
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def _greet(self, control: socket.socket) -> None:
        hello = b""
        while not hello.endswith(b"\n"):
            chunk = control.recv(4096)
            hello += chunk
            if not chunk or len(hello) > _MAX_HELLO_BYTES:
                raise ModelLoadError("the fork server of isolated models ended while it started; see standard error")
        for module, reason in json.loads(hello)["failed"].items():
            logger.warning("the fork server cannot import %s ahead: %s", module, reason)

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(_END_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
