"""service: whether a runtime may be sent requests, which models that waits for, and how long it took."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from ondol.models import ModelState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ondol.clock import Clock
    from ondol.models import ModelPool, ModelStatus
    from ondol.preload import Preloader
    from ondol.recorder import Recorder

__all__ = ["Readiness", "StartupTime"]

_LEFT: Final = frozenset({ModelState.DRAINING, ModelState.UNLOADED})
_COMING_BACK: Final = frozenset({ModelState.QUEUED, ModelState.LOADING, ModelState.WARMING})


_CHANGES: Final = frozenset({"registered", "ready", "failed", "leaving", "unloaded", "released", "limit"})
"""Events of the pool after which less may be waited for than before."""


class StartupTime:
    """How long a runtime took to be ready: recorded once each start that succeeds, when it is ready for the first time.

    That may follow from a model's state, from the strategy, or from what the preloader finds no room for; so it is
    looked for after all that may have changed it, and on each tick of the monitor.
    """

    def __init__(self, clock: Clock, recorder: Recorder, is_ready: Callable[[], bool]) -> None:
        """Wait for nothing yet."""
        self._clock = clock
        self._recorder = recorder
        self._is_ready = is_ready
        self._lock = threading.Lock()  # models may be registered in any thread: that is an event, too
        self._began_at_s: float | None = None

    def await_ready(self, began_at_s: float) -> None:
        """Begin to look: every part of a start that began then has started."""
        self._began_at_s = began_at_s
        self.look()

    def end(self) -> None:
        """Look no more: what stops gets ready no more."""
        self._began_at_s = None

    def noticed(self, event: str) -> None:
        """Look if an event of the pool may have made it ready."""
        if self._began_at_s is not None and event in _CHANGES:
            self.look()

    def look(self) -> tuple[()]:
        """Record the time if it is ready for the first time. A probe of the monitor, without figures of its own."""
        if self._began_at_s is not None and self._is_ready():
            with self._lock:
                began_at_s, self._began_at_s = self._began_at_s, None
            if began_at_s is not None:
                self._recorder("service.startup_seconds", self._clock.monotonic() - began_at_s, "seconds")
        return ()


class Readiness:
    """Looks at the models of one runtime. Belongs to the event loop that the runtime was started in."""

    def __init__(self, models: ModelPool, preloader: Preloader) -> None:
        """Look at nothing yet."""
        self._models = models
        self._preloader = preloader
        self._spared: set[str] = set()
        """Models that there was no room for since the start."""
        self._well_gone: set[str] = set()
        """Models that were unloaded, and nothing has gone wrong with them since; a ready one may be among them."""

    def begin(self) -> None:
        """Forget what an earlier run left out."""
        self._spared.clear()

    def noticed(self, event: str, name: str, *, is_started: bool) -> None:
        """Learn of an event of the pool."""
        if event == "ready" and is_started:
            self._spared |= self._preloader.outstanding()[1]
        elif event == "unloaded":
            self._well_gone.add(name)
        elif event in {"failed", "crashed"}:
            self._well_gone.discard(name)

    def report(self, *, is_started: bool, is_waiting: bool) -> dict[str, Any]:
        """Return whether it is ready, and each model's state in words.

        Args:
            is_started: whether the runtime is.
            is_waiting: whether the loading strategy lets readiness wait for models.
        """
        statuses = self._models.statuses()
        required = self._required(statuses) if is_waiting else frozenset()
        models = [
            {
                "name": status.name,
                "state": str(status.state),
                "ready": status.state is ModelState.READY,
                "required": status.name in required,
                "reason": status.reason,
                "since_s": status.since_s,
                "progress": status.progress,
                "eta_s": status.eta_s,
                "last_error": status.last_error,
            }
            for status in statuses
        ]
        waiting = [model["name"] for model in models if model["required"] and not model["ready"]]
        return {"ready": is_started and not waiting, "waiting_for": waiting, "models": models}

    def _required(self, statuses: Sequence[ModelStatus]) -> frozenset[str]:
        """Return the names of the models that readiness waits for.

        What was unloaded on purpose or for room is not among them, for it has been warm once, also while it is loaded
        again on use, unless that fails or it is to be loaded ahead of use again. Nor is what the preloader left out
        because not all fit into the budget; also when there is room later: what serves is not called unready for it.
        """
        left = {
            status.name
            for status in statuses
            if status.state in _LEFT or (status.state in _COMING_BACK and status.name in self._well_gone)
        }
        outstanding, left_out = self._preloader.outstanding()
        self._spared |= left_out
        left = (left - outstanding) | self._spared
        return frozenset(status.name for status in statuses if status.name not in left)
