"""adapter: one child process and the two threads that serve it.

The *link* thread sends one request at a time and waits for its reply; the *watch* thread logs what the child prints
and learns of its end, which the fork server reports. Blocking threads instead of the event loop: large arrays are
copied beside the loop, and callers may come from any loop.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import signal
import socket
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.errors import (
    AlreadyClosedError,
    ModelCallTimeoutError,
    ModelLoadError,
    RemoteModelError,
    UnencodableValueError,
)
from ondol.models.isolation.codec import encode
from ondol.models.isolation.ends import ModelExit
from ondol.models.isolation.lines import LineReader
from ondol.models.isolation.protocol import REPORT
from ondol.models.isolation.wire import receive, send
from ondol.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.clock import Clock
    from ondol.models.isolation.server import ForkServer

__all__ = ["ChildProcess"]

logger = logging.getLogger("ondol.models")

_REPORT_GRACE_S: Final = 10.0
_HANGUP_GRACE_S: Final = 1.0


class _Job(NamedTuple):
    """One request and the future of its answer."""

    request: dict[str, Any]
    future: Future[Any]
    timeout_s: float | None

    @property
    def title(self) -> str:
        return "loading" if self.request["do"] == "load" else f"{self.request['do']} {self.request['name']!r}"


class ChildProcess:
    """A child, from its fork to its end; used once.

    Attributes:
        pid: ``None`` until it is forked.
        ended: completes after the end, when nothing of it is left: process, pipes, threads.

    Thread-safety: every method may be called from any thread and returns at once.
    """

    def __init__(self, name: str, server: ForkServer, clock: Clock) -> None:
        """Prepare a child of ``server`` for the model ``name``; ``start`` forks it."""
        self.name = name
        self.pid: int | None = None
        self.ended: Future[ModelExit] = Future()
        self.ended.set_running_or_notify_cancel()  # a waiter that is cancelled must not cancel it
        self._server = server
        self._clock = clock
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._exit: ModelExit | None = None
        self._exit_callbacks: list[Callable[[ModelExit], None]] = []
        self._is_exit_told = False
        self._has_exited = threading.Event()
        self._is_finishing = False
        self._reason = ""
        self._number = 0
        self._early_signal = 0
        self._last_thread: threading.Thread | None = None
        self._link: socket.socket | None = None

    def start(self, request: dict[str, Any], *, timeout_s: float) -> Future[Any]:
        """Fork the child, send it the first request, return the future of its answer."""
        job = _Job(request, Future(), timeout_s)
        threading.Thread(target=self._run, args=(job,), name=f"ondol-{self.name}-link", daemon=True).start()
        return job.future

    def submit(self, request: dict[str, Any], *, timeout_s: float | None) -> Future[Any]:
        """Put a request behind those that wait; cancelling its future takes it out again unless it has been sent.

        Raises:
            AlreadyClosedError: it was told to finish.
            ModelCrashedError: it has ended.
        """
        job = _Job(request, Future(), timeout_s)
        with self._lock:
            if self._exit is not None and not self._exit.is_expected:
                raise self._exit.error()  # also when it was closed after that: the crash is what happened to the caller
            if self._is_finishing:
                raise AlreadyClosedError(f"isolated model {self.name!r} is closed or closing")
            self._jobs.put(job)
        return job.future

    def finish(self) -> None:
        """Answer what was asked so far, then end."""
        with self._lock:
            if not self._is_finishing:
                self._is_finishing = True
                self._jobs.put(None)

    def signal(self, number: int, *, reason: str = "") -> None:
        """Send a signal; ``reason`` says why in the errors of those who wait."""
        with self._lock:
            self._reason = self._reason or reason
            if not self._number:
                self._early_signal = number  # it is sent after the fork
                return
        self._server.signal(self._number, number)

    def join(self) -> None:
        """Wait for the last thread, which ends right after ``ended`` completed."""
        if self._last_thread is not None:
            self._last_thread.join()

    def _complete(self, ended: ModelExit) -> None:
        self._last_thread = threading.current_thread()
        self.ended.set_result(ended)

    # The link thread

    def _run(self, first: _Job) -> None:
        first.future.set_running_or_notify_cancel()
        begun_s = self._clock.monotonic()
        try:
            link, readers, report = self._fork(first.timeout_s or 0.0)
        except BaseException as exc:  # noqa: BLE001  # it is the waiter's; nothing was started
            lost = ModelExit.of(self.name, None, is_expected=True, reason="it was not started", stderr_tail=())
            self._exit = lost
            first.future.set_exception(exc)
            self._complete(lost)
            return
        self._link = link
        watch = threading.Thread(
            target=self._watch, args=(readers, report, threading.current_thread()), name=f"ondol-{self.name}-watch"
        )
        watch.daemon = True
        watch.start()
        left_s = max((first.timeout_s or 0.0) - (self._clock.monotonic() - begun_s), 0.001)
        try:
            self._serve(first._replace(timeout_s=left_s), link)
        finally:
            self._fail_rest()
            with self._lock:
                link.close()

    def _fork(self, timeout_s: float) -> tuple[socket.socket, list[LineReader], int]:
        ours: list[int] = []
        theirs: list[int] = []
        link, child_link = socket.socketpair()
        try:
            for _ in ("stdout", "stderr", "report"):
                reader, writer = os.pipe()
                ours.append(reader)
                theirs.append(writer)
            forked = self._server.fork([child_link.fileno(), *theirs], timeout_s=timeout_s)
            with self._lock:
                self._number, early_signal = forked, self._early_signal
            if early_signal:
                self._server.signal(forked, early_signal)
            self.pid = self._read_pid(ours[2], timeout_s)
        except BaseException:
            link.close()
            for descriptor in ours:
                os.close(descriptor)
            raise
        finally:
            child_link.close()
            for descriptor in theirs:
                os.close(descriptor)
        readers = [
            LineReader(ours[0], name=self.name, stream="stdout", level=logging.INFO),
            LineReader(ours[1], name=self.name, stream="stderr", level=logging.WARNING),
        ]
        return link, readers, ours[2]

    def _read_pid(self, report: int, timeout_s: float) -> int:
        poller = select.poll()
        poller.register(report, select.POLLIN)
        if not poller.poll(timeout_s * 1000):
            raise ModelLoadError(f"the fork server did not answer within {format_seconds(timeout_s)}")
        data = os.read(report, REPORT.size)
        if len(data) < REPORT.size:
            raise ModelLoadError("the fork server ended instead of forking")
        (pid,) = REPORT.unpack(data)
        if pid < 0:
            raise ModelLoadError(f"no process could be forked for model {self.name!r}: {os.strerror(-pid)}")
        return int(pid)

    def _serve(self, job: _Job | None, link: socket.socket) -> None:
        is_first = True
        while job is not None:
            is_wanted = is_first or job.future.set_running_or_notify_cancel()
            if is_wanted and not self._exchange(job, link):
                return
            is_first = False
            job = None  # arrays and results must not stay while the next one is waited for
            job = self._jobs.get()
        with contextlib.suppress(OSError):
            send(link, encode({"do": "end"}))

    def _exchange(self, job: _Job, link: socket.socket) -> bool:
        """Send the request and pass on the reply; return whether the child can go on."""
        try:
            encoded = encode(job.request, place=job.title)
        except Exception as exc:  # noqa: BLE001  # it is the caller's; nothing was sent
            job.future.set_exception(exc)
            return True
        try:
            link.settimeout(job.timeout_s)
            send(link, encoded, place=job.title)
            self._settle(job, receive(link))
        except UnencodableValueError as exc:
            job.future.set_exception(exc)
        except TimeoutError:
            job.future.set_exception(self._timed_out(job))
            return False
        except (OSError, EOFError):
            if not self._has_exited.wait(_HANGUP_GRACE_S):
                self.signal(signal.SIGKILL, reason="it closed its connection without ending")
            job.future.set_exception(self._await_exit().error())
            return False
        except Exception as exc:  # noqa: BLE001  # nothing it sends may end this thread: callers would wait for ever
            self.signal(signal.SIGKILL, reason=f"its answer cannot be read ({type(exc).__name__}: {exc})")
            job.future.set_exception(self._await_exit().error())
            return False
        return True

    def _settle(self, job: _Job, reply: Any) -> None:
        if "value" in reply:
            job.future.set_result(reply["value"])
            return
        if "refused" in reply:
            job.future.set_exception(UnencodableValueError(f"model {self.name!r}, {job.title}: {reply['refused']}"))
            return
        error = reply["error"]
        message = (
            f"model {self.name!r} raised {error['type'].removeprefix('builtins.')} in {job.title}: {error['text']}"
        )
        remote = RemoteModelError(message, type_name=error["type"], remote_traceback=error["traceback"])
        job.future.set_exception(remote)

    def _timed_out(self, job: _Job) -> ModelCallTimeoutError:
        message = f"{job.title} took longer than {format_seconds(job.timeout_s or 0.0)}"
        self.signal(signal.SIGKILL, reason=message)
        self._await_exit()
        return ModelCallTimeoutError(f"model {self.name!r}: {message}; its process was ended")

    def _await_exit(self) -> ModelExit:
        self._has_exited.wait(_REPORT_GRACE_S)
        return self._exit or self._note_exit(None, ())

    @property
    def exit(self) -> ModelExit | None:
        """How it ended, ``None`` while it runs. Its threads and pipes may still be there: see ``ended``."""
        return self._exit

    def when_exited(self, callback: Callable[[ModelExit], None]) -> None:
        """Have ``callback`` called once in any thread, before anybody gets an error because of that end.

        So whoever hands the model out knows of it before the caller that meets it can ask for another one.
        """
        with self._lock:
            if not self._is_exit_told:
                self._exit_callbacks.append(callback)
                return
        callback(self._await_exit())

    def _note_exit(self, code: int | None, tail: tuple[str, ...]) -> ModelExit:
        with self._lock:
            reason, is_expected = self._reason, self._is_finishing
            ended = ModelExit.of(self.name, code, is_expected=is_expected, reason=reason, stderr_tail=tail)
            callbacks, self._exit_callbacks = self._exit_callbacks, []
            self._is_exit_told = True
        for callback in callbacks:
            callback(ended)
        with self._lock:
            self._exit = self._exit or ended
            return self._exit

    def _fail_rest(self) -> None:
        """End the wait of those whose request was not sent; nobody is added any more."""
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None and job.future.set_running_or_notify_cancel():
                    job.future.set_exception(self._await_exit().error())

    # The watch thread

    def _watch(self, readers: list[LineReader], report: int, link_thread: threading.Thread) -> None:
        code = _follow(readers, report)
        for reader in readers:
            reader.close()
        os.close(report)
        ended = self._note_exit(code, tuple(readers[1].tail))
        with self._lock:
            if self._link is not None:
                with contextlib.suppress(OSError):
                    self._link.shutdown(socket.SHUT_RDWR)  # wakes the link thread up
            self._jobs.put(None)
        self._has_exited.set()
        link_thread.join()
        self._complete(ended)


def _follow(readers: list[LineReader], report: int) -> int | None:
    """Read the child's lines until its end is reported; return its exit code, ``None`` when nobody can tell."""
    by_descriptor = {reader.descriptor: reader for reader in readers}
    poller = select.poll()
    for descriptor in (*by_descriptor, report):
        poller.register(descriptor, select.POLLIN)
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == report:
                data = os.read(report, REPORT.size)
                return int(REPORT.unpack(data)[0]) if len(data) == REPORT.size else None
            reader = by_descriptor[descriptor]
            reader.read()
            if not reader.is_open:
                poller.unregister(descriptor)
