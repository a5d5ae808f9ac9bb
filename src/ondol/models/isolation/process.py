"""adapter: one child process and the two threads that serve it.

The *link* thread sends one request at a time and waits for its reply; the *watch* thread logs what the child prints
and learns of its end, which the fork server reports. Blocking threads instead of the event loop: large arrays are
copied beside the loop, and callers may come from any loop.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.errors import (
    AlreadyClosedError,
    ModelCallTimeoutError,
    ModelLoadError,
    NotStartedError,
    RemoteModelError,
    UnencodableValueError,
)
from ondol.models.isolation.codec import encode
from ondol.models.isolation.ends import ModelExit
from ondol.models.isolation.pipes import Pipes
from ondol.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.models.isolation.server import ForkServer
    from ondol.models.isolation.wire import Link

__all__ = ["ChildProcess"]

_LONGEST_S: Final = 1_000_000.0  # eleven days; the system calls behind it count milliseconds in 31 bits
_REPORT_GRACE_S: Final = 10.0
_HANGUP_GRACE_S: Final = 1.0
_END_SEND_S: Final = 10.0


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

    def __init__(self, name: str, server: ForkServer) -> None:
        """Prepare a child of ``server`` for the model ``name``; ``start`` forks it."""
        self.name = name
        self.pid: int | None = None
        self.ended: Future[ModelExit] = Future()
        self.ended.set_running_or_notify_cancel()  # a waiter that is cancelled must not cancel it
        self._server = server
        self._owner_pid = os.getpid()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._exit: ModelExit | None = None
        self._told_exit: ModelExit | None = None
        self._exit_callbacks: list[Callable[[ModelExit], None]] = []
        self._has_exited = threading.Event()
        self._is_finishing = False
        self._reason = ""
        self._number = 0
        self._is_given_up = False
        self._last_thread: threading.Thread | None = None

    def start(self, request: dict[str, Any], *, timeout_s: float) -> Future[Any]:
        """Fork the child, send it the first request, return the future of its answer."""
        job = _Job(request, Future(), min(timeout_s, _LONGEST_S))
        job.future.set_running_or_notify_cancel()
        try:
            self._start_thread("link", self._run, job)
        except ModelLoadError as exc:
            self._give_up(job, exc)
        return job.future

    def submit(self, request: dict[str, Any], *, timeout_s: float | None) -> Future[Any]:
        """Put a request behind those that wait; cancelling its future takes it out again unless it has been sent.

        Raises:
            AlreadyClosedError: it was told to finish.
            ModelCrashedError: it has ended.
            NotStartedError: it belongs to the process that this one was forked from.
        """
        if os.getpid() != self._owner_pid:  # its threads are not here: nobody would answer
            raise NotStartedError(
                f"isolated model {self.name!r} belongs to process {self._owner_pid}, of which this one is a fork: "
                "start models after forking"
            )
        job = _Job(request, Future(), None if timeout_s is None else min(timeout_s, _LONGEST_S))
        with self._lock:
            ended = self._exit or (self._told_exit if self._is_finishing else None)
            if ended is not None and not ended.is_expected:  # also when it was closed afterwards
                raise ended.error()
            if self._is_finishing:
                raise AlreadyClosedError(f"isolated model {self.name!r} is closed or closing")
            if ended is not None:
                raise ended.error()
            self._jobs.put(job)
        return job.future

    def finish(self) -> None:
        """Answer what was asked so far, then end."""
        with self._lock:
            if not self._is_finishing:
                self._is_finishing = True
                self._jobs.put(None)

    def kill(self, *, reason: str) -> None:
        """End it at once; ``reason`` says why in the errors of those who wait."""
        with self._lock:
            self._reason = self._reason or reason
            if not self._number:
                self._is_given_up = True  # before the fork, or right after it
                return
        self._server.signal(self._number, signal.SIGKILL)

    def join(self) -> None:
        """Wait for the last thread, which ends right after ``ended`` completed."""
        if self._last_thread is not None:
            self._last_thread.join()

    @property
    def exit(self) -> ModelExit | None:
        """How it ended, ``None`` while it runs. Its threads and pipes may still be there: see ``ended``."""
        return self._exit

    def when_exited(self, callback: Callable[[ModelExit], None]) -> None:
        """Have ``callback`` called once in any thread, before anybody gets an error because of that end.

        So whoever hands the model out knows of it before the caller that meets it can ask for another one.
        """
        with self._lock:
            told = self._told_exit
            if told is None:
                self._exit_callbacks.append(callback)
                return
        callback(told)

    def _start_thread(self, part: str, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, name=f"ondol-{self.name}-{part}", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            raise ModelLoadError(f"no thread can be had for model {self.name!r}: {exc}") from exc

    def _give_up(self, first: _Job, error: BaseException) -> None:
        """End what has not begun."""
        lost = ModelExit.of(self.name, None, is_expected=True, reason="it was not started", stderr_tail=())
        with self._lock:
            self._exit = self._told_exit = lost
        first.future.set_exception(error)
        self.ended.set_result(lost)

    # The link thread

    def _run(self, first: _Job) -> None:
        until_s = time.monotonic() + (first.timeout_s or 0.0)
        try:
            pipes = self._fork(until_s)
        except BaseException as exc:  # noqa: BLE001  # it is the waiter's
            self._last_thread = threading.current_thread()
            self._give_up(first, exc)
            return
        try:
            self._serve(first._replace(timeout_s=_left_s(until_s)), pipes.link)
        finally:
            self._fail_rest()
            self._has_exited.wait()  # the child takes a closed link for the loss of its parent, and would not end well
            pipes.link.close()

    def _fork(self, until_s: float) -> Pipes:
        try:
            pipes = Pipes(self.name)
        except OSError as exc:
            raise ModelLoadError(f"no process can be had for model {self.name!r}: {exc}") from exc
        try:
            self._check_wanted()
            number = self._server.fork(pipes.child_ends, timeout_s=_left_s(until_s))
            with self._lock:
                self._number, is_given_up = number, self._is_given_up
            if is_given_up:
                self._server.signal(number, signal.SIGKILL)
            self.pid = pipes.read_pid(_left_s(until_s))
            self._start_thread("watch", self._watch, pipes, threading.current_thread())
        except BaseException:
            pipes.close()  # a child that was forked all the same ends with the link
            raise
        return pipes

    def _check_wanted(self) -> None:
        with self._lock:
            if self._is_given_up:
                raise ModelLoadError(f"model {self.name!r} was given up before its process was forked")

    def _serve(self, job: _Job | None, link: Link) -> None:
        is_first = True
        while job is not None:
            is_wanted = is_first or job.future.set_running_or_notify_cancel()
            if is_wanted and not self._exchange(job, link):
                return
            is_first = False
            job = None  # arrays and results must not stay while the next one is waited for
            job = self._jobs.get()
        link.allow(_END_SEND_S)
        with contextlib.suppress(OSError):
            link.send(encode({"do": "end"}))

    def _exchange(self, job: _Job, link: Link) -> bool:
        """Send the request and pass on the reply; return whether the child can go on."""
        try:
            encoded = encode(job.request, place=job.title)
        except Exception as exc:  # noqa: BLE001  # it is the caller's; nothing was sent
            job.future.set_exception(exc)
            return True
        try:
            link.allow(job.timeout_s)
            link.send(encoded, place=job.title)
            del encoded
            self._settle(job, link.receive())
        except UnencodableValueError as exc:
            job.future.set_exception(exc)
        except TimeoutError:
            job.future.set_exception(self._timed_out(job))
            return False
        except (ConnectionError, EOFError):
            if not self._has_exited.wait(_HANGUP_GRACE_S):
                self.kill(reason="it closed its connection without ending")
            job.future.set_exception(self._await_exit().error())
            return False
        except Exception as exc:  # noqa: BLE001  # nothing it sends may end this thread: callers would wait for ever
            self.kill(reason=f"its answer cannot be read ({type(exc).__name__}: {exc})")
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
        self.kill(reason=message)
        self._await_exit()
        return ModelCallTimeoutError(f"model {self.name!r}: {message}; its process was ended")

    def _await_exit(self) -> ModelExit:
        """Wait until the end is known, but not for ever: the kernel may keep a process that waits for a device."""
        self._has_exited.wait(_REPORT_GRACE_S)
        late = f"{self._reason}; its end was not reported within {format_seconds(_REPORT_GRACE_S)}"
        return self._exit or self._note_exit(None, late, ())

    def _note_exit(self, code: int | None, reason: str, tail: tuple[str, ...]) -> ModelExit:
        with self._lock:
            ended = ModelExit.of(self.name, code, is_expected=self._is_finishing, reason=reason, stderr_tail=tail)
            self._told_exit = self._told_exit or ended
            callbacks, self._exit_callbacks = self._exit_callbacks, []
        for callback in callbacks:
            callback(ended)
        with self._lock:
            self._exit = ended
        return ended

    def _fail_rest(self) -> None:
        """End the wait of those whose request was not sent; nobody is added any more."""
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None and job.future.set_running_or_notify_cancel():
                    job.future.set_exception(self._await_exit().error())

    # The watch thread

    def _watch(self, pipes: Pipes, link_thread: threading.Thread) -> None:
        code = pipes.follow()
        pipes.close_streams()
        reason = self._reason or ("its fork server ended" if code is None else "")
        ended = self._note_exit(code, reason, tuple(pipes.stderr.tail))
        self._jobs.put(None)  # this and the end of the link wake the link thread up
        pipes.link.shutdown()
        self._has_exited.set()
        link_thread.join()
        self._last_thread = threading.current_thread()
        self.ended.set_result(ended)


def _left_s(until_s: float) -> float:
    return max(until_s - time.monotonic(), 0.001)
