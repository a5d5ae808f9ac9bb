"""adapter: the fork server: a small process with one thread that forks a child for each isolated model.

It imports what the children will need, once, and lets them inherit it. Commands come over a socket; of each child it
reports the process id and later the exit code through a pipe of that child's own. When its parent goes, the socket
ends, and it kills the children and ends too.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import traceback
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from ondol.models.isolation.child import Plumbing, run_child
from ondol.models.isolation.prctl import die_with_parent, find_prctl, watch_hangup
from ondol.models.isolation.protocol import COMMAND, DESCRIPTORS_PER_CHILD, REPORT, SIGNAL

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_PARENT_CHECK_MS: Final = 5000


class _Child(NamedTuple):
    number: int
    pid: int
    report: int


def main(control_descriptor: int, parent_pid: int, modules: Sequence[str]) -> None:
    """Serve until the parent goes. ``modules`` are imported first; what cannot be is reported, not fatal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides what ends
    control = socket.socket(fileno=control_descriptor)
    hello = {"failed": _import_all(modules)}
    gc.collect()
    gc.freeze()  # the collector of a child must not touch, and so copy, pages that it shares
    control.sendall(json.dumps(hello).encode() + b"\n")
    _ForkServer(control, parent_pid).serve()


def _import_all(modules: Sequence[str]) -> dict[str, str]:
    failed = {}
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as exc:  # noqa: BLE001  # a module may raise anything; the parent logs it
            failed[module] = f"{type(exc).__name__}: {exc}"
    return failed


class _ForkServer:
    def __init__(self, control: socket.socket, parent_pid: int) -> None:
        self._control = control
        self._parent_pid = parent_pid
        self._pid = os.getpid()
        self._prctl = find_prctl()
        self._children: dict[int, _Child] = {}  # by process id
        self._wake_reader, self._wake_writer = os.pipe()
        for end in (self._wake_reader, self._wake_writer):
            os.set_blocking(end, False)

    def serve(self) -> None:
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only so that the wake-up pipe is written to
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake_reader, select.POLLIN)
        while os.getppid() == self._parent_pid:  # a fork of the parent may hold the socket open after its end
            ready = {descriptor for descriptor, _ in poller.poll(_PARENT_CHECK_MS)}
            if self._wake_reader in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_reader, 4096)
                self._reap(os.WNOHANG)
            if self._control.fileno() in ready and not self._obey():
                break
        self._end_all()

    def _obey(self) -> bool:
        """Carry out one command; return whether the parent is still there."""
        try:
            data, descriptors = self._receive()
        except OSError:
            return False
        if len(data) < COMMAND.size:
            return False
        what, number, signal_number = COMMAND.unpack(data)
        if what == SIGNAL:
            for child in self._children.values():
                if child.number == number:  # not yet waited for, so the process id is still its own
                    os.kill(child.pid, signal_number)
        elif len(descriptors) == DESCRIPTORS_PER_CHILD:
            self._fork(number, descriptors)
        return True

    def _receive(self) -> tuple[bytes, list[int]]:
        data, descriptors = b"", array.array("i")
        space = socket.CMSG_SPACE(DESCRIPTORS_PER_CHILD * descriptors.itemsize)
        while len(data) < COMMAND.size:
            chunk, ancillary, _flags, _address = self._control.recvmsg(COMMAND.size - len(data), space)
            for level, kind, rights in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(rights[: len(rights) - len(rights) % descriptors.itemsize])
            if not chunk:
                break
            data += chunk
        return data, list(descriptors)

    def _fork(self, number: int, descriptors: list[int]) -> None:
        *own, report = descriptors
        try:
            pid = os.fork()
        except OSError as exc:
            _tell(report, -(exc.errno or 1))
            for descriptor in descriptors:
                os.close(descriptor)
            return
        if pid == 0:
            self._become_child(own, report)
        for descriptor in own:
            os.close(descriptor)
        self._children[pid] = _Child(number, pid, report)
        _tell(report, pid)

    def _become_child(self, own: list[int], report: int) -> NoReturn:
        try:
            is_bound = die_with_parent(self._prctl, self._pid)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (
                self._wake_reader,
                self._wake_writer,
                report,
                *(c.report for c in self._children.values()),
            ):
                os.close(descriptor)
            self._control.close()
            if not is_bound:
                watch_hangup(own[0])
            run_child(Plumbing(*own))
        except BaseException:  # noqa: BLE001  # whatever it is, it must not go on as a second fork server
            traceback.print_exc()
        finally:
            os._exit(1)

    def _reap(self, options: int) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, options)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:
                _tell(child.report, os.waitstatus_to_exitcode(status))
                os.close(child.report)

    def _end_all(self) -> None:
        for child in self._children.values():
            os.kill(child.pid, signal.SIGKILL)
        self._reap(0)


def _tell(descriptor: int, number: int) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(descriptor, REPORT.pack(number))
