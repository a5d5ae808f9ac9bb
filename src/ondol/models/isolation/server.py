"""adapter: the parent's side of the fork server: starts it when first needed, and again when it was lost."""

from __future__ import annotations

import array
import contextlib
import importlib.util
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final

from ondol.errors import ConfigurationError, ModelLoadError
from ondol.models.isolation.protocol import COMMAND, FORK, SIGNAL

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ForkServer"]

logger = logging.getLogger("ondol.models")

_CODE: Final = (
    "import sys; sys.path[:] = {path!a}; from ondol.models.isolation.fork_main import main; main{arguments!a}"
)
_MAX_HELLO_BYTES: Final = 64 * 1024
_END_GRACE_S: Final = 5.0


class ForkServer:
    """A process that forks the processes of isolated models, so that they need not start from nothing.

    Made without any effect; it starts with the first model, and again when it was closed or lost. It ends with this
    object or this process, whatever way that ends, and its children with it.

    Thread-safety: may be used from any thread; starting it blocks.
    """

    def __init__(self, *, preload: Sequence[str] | None = None) -> None:
        """Choose what it imports once, for all models, which then share it in memory and need not wait for it.

        Args:
            preload: names of modules, such as those that the loaders are in. The default is numpy, if there is one.
                Modules that start threads or open files, devices or connections when they are imported do not belong
                there: a fork has only one thread, and shares what is open. What cannot be imported is logged and left
                to the models; a module that was changed later stays as it was until the fork server is closed.
        """
        self.preload = None if preload is None else tuple(preload)
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()  # of its own: a signal must not wait for a start
        self._numbers = itertools.count(1)  # never used twice: a late signal finds nobody instead of somebody else
        self._running: _Running | None = None

    @property
    def pid(self) -> int | None:
        """The process id, ``None`` while it does not run."""
        running = self._running
        return running.process.pid if running is not None else None

    def start(self, *, timeout_s: float = 30.0) -> None:
        """Start it now instead of with the first model.

        Raises:
            ModelLoadError: it did not come up in time.
            ConfigurationError: this system or this interpreter cannot have one.
        """
        with self._lock:
            self._ensure(timeout_s)

    def fork(self, descriptors: Sequence[int], *, timeout_s: float) -> int:
        """Fork a child that gets ``descriptors``; return its number for ``signal``.

        Raises:
            ModelLoadError: the fork server could not be started.
            ConfigurationError: this system or this interpreter cannot have one.
        """
        with self._lock:
            number = next(self._numbers)
            command = COMMAND.pack(FORK, number, 0)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            try:
                self._send(self._ensure(timeout_s), command, rights)
            except OSError:  # it was lost since it was last used
                self._end()
                try:
                    self._send(self._ensure(timeout_s), command, rights)
                except OSError as exc:
                    raise ModelLoadError(f"the fork server of isolated models cannot be reached: {exc}") from exc
            return number

    def signal(self, number: int, signal_number: int) -> None:
        """Send a signal to a child and its own children; nothing happens when it has ended."""
        running = self._running
        if running is not None and running.is_ours:
            with contextlib.suppress(OSError):  # a lost server has no children left
                self._send(running, COMMAND.pack(SIGNAL, number, signal_number), [])

    def close(self) -> None:
        """End it, and with it every child. Blocks for some milliseconds."""
        with self._lock:
            self._end()

    def _send(self, running: _Running, command: bytes, rights: list[tuple[int, int, array.array[int]]]) -> None:
        with self._send_lock:
            running.control.sendmsg([command], rights)

    def _ensure(self, timeout_s: float) -> _Running:
        running = self._running
        if running is not None and not running.is_ours:  # this process is a fork of the one that started it
            self._end()
        elif running is not None and running.process.poll() is not None:
            logger.warning("the fork server of isolated models ended by itself and is started again")
            self._end()
        if self._running is None:
            self._running = _Running(_default_preload() if self.preload is None else self.preload)
            try:
                self._running.greet(timeout_s)
            except BaseException:
                self._running.process.kill()
                self._end()
                raise
        return self._running

    def _end(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.end()


class _Running:
    """The process of one start."""

    def __init__(self, preload: Sequence[str]) -> None:
        if not hasattr(os, "fork") or not sys.executable or getattr(sys, "frozen", False):
            raise ConfigurationError(
                "models cannot have processes of their own here: this needs a Unix system and a Python interpreter "
                f"that can be started (sys.executable is {sys.executable!r}); use isolation='thread'"
            )
        self._pid = os.getpid()
        try:
            self.control, self.process = _launch(self._pid, preload)
        except OSError as exc:
            raise ModelLoadError(f"the fork server of isolated models did not start: {exc}") from exc
        self.end = weakref.finalize(self, _end, self.control, self.process)  # also when the interpreter ends

    @property
    def is_ours(self) -> bool:
        """Whether this process is the one that started it, and not a fork of that one."""
        return os.getpid() == self._pid

    def greet(self, timeout_s: float) -> None:
        """Wait until it is ready."""
        hello = b""
        until_s = time.monotonic() + timeout_s
        try:
            while not hello.endswith(b"\n"):
                self.control.settimeout(max(until_s - time.monotonic(), 0.001))
                chunk = self.control.recv(4096)
                hello += chunk
                if not chunk or len(hello) > _MAX_HELLO_BYTES:
                    raise ModelLoadError("the fork server of isolated models ended while it started; see its errors")
        except OSError as exc:
            raise ModelLoadError(f"the fork server of isolated models did not start: {exc}") from exc
        self.control.settimeout(None)
        found = json.loads(hello)
        for module, reason in found["failed"].items():
            logger.warning("the fork server cannot import %s ahead: %s", module, reason)
        for module in found["threaded"]:
            logger.warning("module %s starts threads when it is imported, which forks lose: do not preload it", module)


def _end(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    """End it; in a fork of this process, which has no such child to wait for, only let go of it."""
    control.close()
    try:
        process.wait(_END_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _launch(parent_pid: int, preload: Sequence[str]) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    import fcntl  # noqa: PLC0415  # Unix only, as is everything from here on

    ours, theirs = socket.socketpair()
    try:
        with theirs:  # where standard streams are closed, it may have one of their numbers
            control = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 3)
        try:
            return ours, _start(control, parent_pid, preload)
        finally:
            os.close(control)
    except BaseException:
        ours.close()
        raise


def _start(control: int, parent_pid: int, preload: Sequence[str]) -> subprocess.Popen[bytes]:
    code = _CODE.format(path=[str(entry) for entry in sys.path], arguments=(control, parent_pid, list(preload)))
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001  # as multiprocessing does
    return subprocess.Popen(  # noqa: S603  # this interpreter, with code of this package
        [sys.executable, *flags, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=None if _has_standard_error() else subprocess.DEVNULL,
        pass_fds=[control],
        process_group=0,  # Ctrl-C in a terminal is for the parent
    )


def _has_standard_error() -> bool:
    """Tell whether its number is open, and not of something else: what this process has opened is not inheritable."""
    try:
        return os.get_inheritable(2)
    except OSError:
        return False


def _default_preload() -> tuple[str, ...]:
    with contextlib.suppress(ImportError, ValueError):
        if importlib.util.find_spec("numpy") is not None:
            return ("numpy",)
    return ()
