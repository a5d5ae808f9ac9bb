"""adapter: the fork server: a small process with one thread that forks a child for each isolated model.

It imports what the children will need, once, and lets them inherit it. Commands come over a socket; of each child it
reports the process id and later the exit code through a pipe of that child's own. When its parent goes, the socket
ends, and it kills the children and ends too.

Each child leads a process group, so that what a model has started goes with it.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from ondol.models.isolation.child import Plumbing, run_child
from ondol.models.isolation.prctl import die_with_parent, find_prctl, watch_hangup
from ondol.models.isolation.protocol import COMMAND, DESCRIPTORS_PER_CHILD, REPORT, SIGNAL
from ondol.models.isolation.wire import receive_descriptors

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
    _leave_signals_to_the_parent()
    with socket.socket(fileno=control_descriptor) as control:
        control.set_inheritable(False)
        streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, TextIOWrapper)]
        for stream in streams:  # as the children need them: the parent reads UTF-8 in lines
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
        hello = _import_all(modules)
        for stream in streams:
            stream.flush()  # or each child would inherit what is in their buffers, and print it
        gc.collect()
        gc.freeze()  # the collector of a child must not touch, and so copy, pages that it shares
        server = _ForkServer(control, parent_pid)
        with contextlib.suppress(ConnectionError):  # the parent is gone already
            control.sendall(json.dumps(hello).encode() + b"\n")
            server.serve()


def _leave_signals_to_the_parent() -> None:
    """Live on when the terminal or a service manager asks everybody to end: models answer until the parent is done.

    These are handlers instead of ``SIG_IGN``, which programs that a model starts would inherit.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)


def _ignore(*_: object) -> None:
    pass


def _import_all(modules: Sequence[str]) -> dict[str, Any]:
    """Import them; return which of them failed, and why, and which started threads, which no child will have."""
    failed: dict[str, str] = {}
    threaded: list[str] = []
    for module in modules:
        before = threading.active_count()
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as exc:  # noqa: BLE001  # a module may raise anything; the parent logs it
            failed[module] = f"{type(exc).__name__}: {exc}"
        if threading.active_count() > before:
            threaded.append(module)
    return {"failed": failed, "threaded": threaded}


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
        signal.signal(signal.SIGCHLD, _ignore)  # only so that the wake-up pipe is written to
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake_reader, select.POLLIN)
        while os.getppid() == self._parent_pid:  # a fork of the parent may hold the socket open after its end
            ready = {descriptor for descriptor, _ in poller.poll(_PARENT_CHECK_MS)}
            if self._wake_reader in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_reader, 4096)
                self._reap()
            if self._control.fileno() in ready and not self._obey():
                break
        self._end_all()

    def _obey(self) -> bool:
        """Carry out one command; return whether the parent is still there."""
        try:
            data, descriptors = receive_descriptors(self._control, COMMAND.size, DESCRIPTORS_PER_CHILD)
        except OSError as exc:
            return exc.errno == errno.EMFILE  # the parent learns of it: the pipe of that child's reports is closed
        if len(data) < COMMAND.size:
            return False
        what, number, signal_number = COMMAND.unpack(data)
        if what == SIGNAL:
            for child in self._children.values():
                if child.number == number:  # not yet waited for, so the process id is still its own
                    _send_signal(child.pid, signal_number)
        elif len(descriptors) == DESCRIPTORS_PER_CHILD:
            self._fork(number, descriptors)
        return True

    def _fork(self, number: int, descriptors: list[int]) -> None:
        report, *own = descriptors
        try:
            pid = os.fork()
        except OSError as exc:
            _tell(report, -(exc.errno or 1))
            for descriptor in descriptors:
                os.close(descriptor)
            return
        if pid == 0:
            self._become_child(own, report)
        _lead_group(pid)
        for descriptor in own:
            os.close(descriptor)
        self._children[pid] = _Child(number, pid, report)
        _tell(report, pid)

    def _become_child(self, own: list[int], report: int) -> NoReturn:
        try:
            is_bound = die_with_parent(self._prctl, self._pid)
            _lead_group(0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            others = (child.report for child in self._children.values())
            for descriptor in (self._wake_reader, self._wake_writer, report, *others):
                os.close(descriptor)
            self._control.close()
            if not is_bound:
                watch_hangup(own[0], self._pid)
            run_child(Plumbing(*own))
        except BaseException:  # noqa: BLE001  # whatever it is, it must not go on as a second fork server
            traceback.print_exc()
        finally:
            os._exit(1)

    def _reap(self) -> None:
        """Report the children that have ended."""
        while self._children:
            try:
                pid, status = _wait_for_next()
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._report_end(pid, status)

    def _report_end(self, pid: int, status: int) -> None:
        child = self._children.pop(pid, None)
        if child is not None:
            _tell(child.report, os.waitstatus_to_exitcode(status))
            os.close(child.report)

    def _end_all(self) -> None:
        for pid in self._children:
            _send_signal(pid, signal.SIGKILL)
        for pid in list(self._children):
            self._report_end(*os.waitpid(pid, 0))


def _wait_for_next() -> tuple[int, int]:
    """Return process id and status of a child that has ended, after killing what it left behind; zeros if none has.

    While it has not been waited for, its number, which is also its group's, is nobody else's.
    """
    pid = -1
    if hasattr(os, "waitid"):  # macOS has it from Python 3.13 on; without it, what is left behind stays
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if found is None:
            return 0, 0
        pid = found.si_pid
        _send_signal(pid, signal.SIGKILL)
    return os.waitpid(pid, os.WNOHANG)


def _lead_group(pid: int) -> None:
    with contextlib.suppress(OSError):  # parent and child both do it, so that it is done for both
        os.setpgid(pid, 0)


def _send_signal(pid: int, number: int) -> None:
    """Send a signal to a child that has not been waited for, and to its group."""
    for send in (os.killpg, os.kill):  # it may have left the group that it led
        with contextlib.suppress(OSError):  # or have become another user's
            send(pid, number)


def _tell(descriptor: int, number: int) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(descriptor, REPORT.pack(number))
