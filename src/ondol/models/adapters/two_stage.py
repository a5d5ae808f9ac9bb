"""service: answer at once with one session while a faster one is built behind it, then change over.

A call ends on the session it began with. The first session is let go of when its last call has ended.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ondol.errors import AlreadyClosedError, ModelError
from ondol.models.allocator import give_back

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Builder", "Session", "Stage", "TwoStage"]

logger = logging.getLogger("ondol.models")

Stage = Literal["mapped", "fast"]

# Low enough to stand back behind requests, not so low that a busy machine would starve it while it holds the
# interpreter's lock for a moment.
_NICENESS = 5

# The build competes with calls for cores, memory bandwidth and the lock on the address space: beside it the first
# answer took a third longer (17.6 against 13.1 ms, 256 MB, one core). So one call may go first, if it comes soon.
_HEAD_START_S = 1.0

# How long the end of the process waits for a build to take notice of its cancellation.
_EXIT_GRACE_S = 5.0


class Session(Protocol):
    """What computes: an ``onnxruntime.InferenceSession`` or what behaves like one."""

    def run(self, output_names: Any, input_feed: Any) -> Any:
        """Return the outputs of that names (all with ``None``)."""
        ...


class Builder(Protocol):
    """Makes the fast session."""

    def build(self) -> Session:
        """Return the session; called once, in a thread."""
        ...

    def cancel(self) -> None:
        """Let a ``build`` under way, or still to come, fail soon; called from another thread."""
        ...


class _Serving:
    """A session and the calls that are on it."""

    __slots__ = ("calls", "session")

    def __init__(self, session: Session) -> None:
        self.session: Session | None = session
        self.calls = 0


class TwoStage:
    """A session that is exchanged for a faster one while it serves.

    Thread-safety: everything may be called from any thread; calls overlap.
    """

    def __init__(
        self,
        name: str,
        first: Session,
        builder: Builder | None = None,
        *,
        is_low_urgency: bool = False,
        head_start_s: float = _HEAD_START_S,
        release: Callable[[], object] = give_back,
    ) -> None:
        """Serve with ``first``; :meth:`start` begins to build what follows it.

        Args:
            name: names the model in messages.
            first: serves at once.
            builder: makes the second session; without one ``first`` is the fast one.
            is_low_urgency: let the system prefer other threads to the one that builds. Threads which the build
                starts inherit that for good, so only for a session that computes in its callers' threads alone.
            head_start_s: how long the build waits for a first call to end before it begins.
            release: called after a session was let go of.
        """
        self._name = name
        self._builder = builder
        self._is_low_urgency = is_low_urgency
        self._head_start_s = head_start_s
        self._release = release
        self._changed = threading.Condition()
        self._serving = _Serving(first)
        self._stage: Stage = "fast" if builder is None else "mapped"
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._has_answered = False
        self._fault: str | None = None

    @property
    def stage(self) -> Stage:
        """``"mapped"`` while the first session serves, ``"fast"`` after the change."""
        return self._stage

    @property
    def fault(self) -> str | None:
        """Why the fast session could not be built; the first one serves on then."""
        return self._fault

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._is_closed

    def start(self) -> None:
        """Begin to build the fast session in a thread; does nothing the second time, or when there is none to build."""
        try:
            with self._changed:
                if self._builder is not None and self._thread is None and not self._is_closed:
                    self._start_thread(self._builder)
        except RuntimeError as exc:  # the system, or an interpreter that ends, has no more threads
            self._note_fault(exc)

    def _start_thread(self, builder: Builder) -> None:
        # A daemon: a build that hangs must not keep the process from ending.
        thread = threading.Thread(
            target=self._second_stage, args=(builder,), name=f"ondol-fast-{self._name}", daemon=True
        )
        thread.start()
        self._thread = thread
        # The interpreter ends daemons by force, within the runtime's code too, which aborts the process then.
        atexit.register(self._end_build, _EXIT_GRACE_S)

    def run(self, output_names: Any, feeds: Any) -> Any:
        """Return the outputs that the session which serves now computes.

        Raises:
            AlreadyClosedError: the model was closed.
            ModelError: the runtime refused the input, or failed; ``__cause__`` is its own error.
        """
        serving = self._enter()
        try:
            assert serving.session is not None  # is let go of only when no call is on it
            return serving.session.run(output_names, feeds)
        except Exception as exc:
            exc.__traceback__ = None  # its frames hold the session: it would live as long as the error
            message = f"model {self._name!r} could not compute: {exc}"
            raise ModelError(message) from exc
        finally:
            with self._changed:
                serving.calls -= 1
                self._has_answered = True
                self._changed.notify_all()

    def _enter(self) -> _Serving:
        with self._changed:
            if self._is_closed:
                message = f"model {self._name!r} is closed"
                raise AlreadyClosedError(message)
            self._serving.calls += 1
            return self._serving

    def wait_until_fast(self, timeout_s: float | None = None) -> bool:
        """Return whether the fast session serves, as soon as that is decided or ``timeout_s`` has passed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stage == "fast" or self._fault is not None or self._is_closed, timeout_s
            )
            return self._stage == "fast"

    def close(self) -> None:
        """Refuse new calls, wait for those under way, let both sessions go and give their memory back.

        A build under way is cancelled and waited for. The second time it only waits for the first.
        """
        self._end_build(None)
        self._let_go(self._serving)  # the build changes nothing any more once closed is set

    def _end_build(self, timeout_s: float | None) -> None:
        with self._changed:
            self._is_closed = True
            thread = self._thread
            self._changed.notify_all()
        if self._builder is not None:
            self._builder.cancel()
        if thread is not None:
            thread.join(timeout_s)

    def _second_stage(self, builder: Builder) -> None:
        try:
            if self._is_low_urgency:
                _stand_back()
            if self._had_head_start():
                self._change_over(builder)
        finally:
            atexit.unregister(self._end_build)

    def _change_over(self, builder: Builder) -> None:
        try:
            second = builder.build()
        except Exception as exc:  # noqa: BLE001  # whatever it is, the first session serves on and this is told
            self._failed(exc)
            return
        with self._changed:
            first = self._serving
            is_late = self._is_closed
            if not is_late:
                self._serving = _Serving(second)
                self._stage = "fast"
                self._changed.notify_all()
        del second
        if is_late:
            self._release()
        else:
            self._let_go(first)
            logger.debug("model %s serves with its fast session", self._name)

    def _had_head_start(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._has_answered or self._is_closed, self._head_start_s)
            return not self._is_closed

    def _failed(self, error: Exception) -> None:
        self._note_fault(error)
        error.__traceback__ = None  # its frames hold what the failed build had allocated
        self._release()

    def _note_fault(self, error: Exception) -> None:
        with self._changed:
            if self._is_closed:
                return  # nobody is interested any more
            self._fault = f"{type(error).__name__}: {error}"
            self._changed.notify_all()
        logger.error(
            "the fast session of model %s could not be built; the mapped one serves on", self._name, exc_info=error
        )

    def _let_go(self, serving: _Serving) -> None:
        with self._changed:
            self._changed.wait_for(lambda: serving.calls == 0)
            session, serving.session = serving.session, None
        if session is not None:
            del session
            self._release()


def _stand_back() -> None:
    if sys.platform == "linux":  # elsewhere niceness belongs to the whole process
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        except OSError:
            logger.debug("the system refused a lower urgency; the build runs with the usual one", exc_info=True)
