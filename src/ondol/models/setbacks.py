"""service: loads that fail and processes that crash: who is told, when it is tried again, when no more."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, Any

from ondol.errors import ModelBudgetError, ModelError, ModelLoadError, ModelQuarantinedError
from ondol.models.graph import load_order, missing
from ondol.models.retry import is_hopeless
from ondol.models.spec import ModelState
from ondol.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ondol.models.entry import Entry
    from ondol.models.registry import Registry
    from ondol.models.retry import RetryPolicy
    from ondol.models.waiting import Waiters
    from ondol.models.wants import Wants

__all__ = ["Setbacks", "quarantine_error"]

logger = logging.getLogger("ondol.models")


class Setbacks:
    """What a run does about failures. Use it in the loop's thread only."""

    def __init__(
        self,
        registry: Registry,
        wants: Wants,
        waiters: Waiters,
        dispatch: Callable[[], None],
        draw: Callable[[], float] | None,
    ) -> None:
        """Call ``dispatch`` when a model may be tried again; ``draw`` returns a random number from 0 to 1."""
        self._registry = registry
        self._wants = wants
        self._waiters = waiters
        self._dispatch = dispatch
        self._draw = draw or _draw
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._is_closed = False

    def load_failed(self, entry: Entry, error: BaseException, *, cause: BaseException | None, is_serving: bool) -> None:
        """Take note of a load that failed, and see to it that it is tried again or given up.

        Args:
            entry: of the model.
            error: what those who wait for it are told, in the end.
            cause: what goes into the log instead of ``error``.
            is_serving: an older copy is ready; it serves on, and nothing is tried again.
        """
        name = entry.spec.name
        registry = self._registry
        text = f"{type(error).__name__}: {error}"
        entry.note_failure(text, registry.clock.monotonic())
        registry.totals.load_failures += 1
        registry.record("models.load_failures", 1.0, "count", model=name)
        if is_serving:
            registry.move(entry, ModelState.READY, f"ready; a new copy failed to load: {text}")
            self._log(entry, cause or error, "; the copy that is there serves on")
            self.give_up_copy(name, error)
        else:
            entry.failures_in_a_row += not isinstance(error, ModelBudgetError)  # nothing is wrong with the model itself
            self._after(entry, error, cause or error, f"its load failed: {text}")
        registry.announce("failed", name)

    def crashed(self, entry: Entry, error: BaseException, dependents: Iterable[str], *, can_be_loaded: bool) -> None:
        """Take note that the process of a loaded model ended; have it, and what was built on it, loaded again."""
        registry = self._registry
        now_s = registry.clock.monotonic()
        retry = registry.options.retry
        if retry is not None and entry.ready_at_s is not None and now_s - entry.ready_at_s >= retry.stable_s:
            entry.crashes_in_a_row = 0
        entry.crashes_in_a_row += 1
        entry.note_failure(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", now_s)
        registry.totals.crashes += 1
        registry.record("models.crashes", 1.0, "count", model=entry.spec.name)
        what = f"it crashed: {entry.last_error}"
        if entry.job is not None:
            registry.move(entry, ModelState.FAILED, what)
            registry.move_back_to_loading(entry)
            self._log(entry, error, "; a new copy is loaded already")
        elif retry is None or not can_be_loaded:
            self._final(entry, ModelState.FAILED, error, error, what)
            registry.review(entry.spec.name)
        else:
            for name in (entry.spec.name, *dependents):
                self._wants.ask(name, now_s)
            self._after(entry, error, error, what)

    def _after(self, entry: Entry, error: BaseException, cause: BaseException, what: str) -> None:
        retry = self._registry.options.retry
        if self._is_closed:
            self._final(entry, entry.idle_state, error, cause, f"{what}; the pool stops, so it is not tried again")
        elif retry is None or _is_final(entry, error, retry):
            self._final(entry, ModelState.FAILED, error, cause, what)
        elif retry.is_exhausted(entry.strikes):
            reason = f"quarantined after {entry.strikes} failure(s) in a row until it is released; {what}"
            self._final(entry, ModelState.QUARANTINED, error, cause, reason)
        else:
            delay_s = retry.delay_s(entry.strikes, drawn=self._draw())
            self._back_off(entry, delay_s, f"{what}; attempt {entry.strikes + 1} of {retry.attempts} follows")
            self._log(entry, cause, f"; it is tried again in {format_seconds(delay_s)}")

    def _back_off(self, entry: Entry, delay_s: float, reason: str) -> None:
        name = entry.spec.name
        entry.retry_at_s = self._registry.clock.monotonic() + delay_s
        self._registry.move(entry, ModelState.BACKOFF, reason)
        self._cancel_timer(name)
        self._timers[name] = asyncio.get_running_loop().call_later(delay_s, self._due, entry)

    def _due(self, entry: Entry) -> None:
        self._timers.pop(entry.spec.name, None)
        if entry.state is ModelState.BACKOFF:
            entry.retry_at_s = None
            is_wanted = entry.spec.name in self._wants
            self._registry.totals.retries += is_wanted
            reason = "is tried again" if is_wanted else "nobody asks for it any more"
            self._registry.move(entry, entry.idle_state, reason)
            self._dispatch()

    def still_hangs(self, entry: Entry, *, is_serving: bool) -> None:
        """Count it as a failed load that the thread of the last one still runs: no second one is started beside it."""
        error = ModelLoadError("the thread of its last load, which was given up, still runs")
        self.load_failed(entry, error, cause=None, is_serving=is_serving)

    def _final(self, entry: Entry, state: ModelState, error: BaseException, cause: BaseException, reason: str) -> None:
        self._registry.move(entry, state, reason)
        is_over = state is ModelState.QUARANTINED
        self._log(entry, cause, "; it is quarantined until somebody releases it" if is_over else "")
        self.give_up(entry.spec.name, error)

    def _log(self, entry: Entry, cause: BaseException, what_next: str) -> None:
        logger.error(
            "model %s failed: %s%s",
            entry.spec.name,
            entry.last_error,
            what_next,
            exc_info=cause,
            extra={"fields": {"model": entry.spec.name, "failures": entry.failure_count}},
        )

    def give_up_copy(self, name: str, error: BaseException) -> None:
        """End the waits for a new copy of a model that serves; what depends on it has what it needs."""
        self._wants.drop(name)
        self._waiters.fail(name, functools.partial(_load_error, name, name, error))

    def give_up(self, name: str, error: BaseException) -> None:
        """End all waits for ``name`` and for what depends on it."""
        for other in load_order(self._registry.needed_by, [name]):
            entry = self._registry.entries.get(other)
            self._wants.drop(other)
            self._waiters.fail(other, functools.partial(_load_error, other, name, error))
            if entry is not None and entry.state in {ModelState.QUEUED, ModelState.BACKOFF}:
                self._cancel_timer(other)
                entry.retry_at_s = None
                self._registry.move(entry, *self._state_without(entry, name, error))

    def _state_without(self, entry: Entry, name: str, error: BaseException) -> tuple[ModelState, str]:
        if absent := missing(self._registry.graph, entry.spec.name):
            return ModelState.BLOCKED, f"waits for {', '.join(absent)}, which nobody has registered"
        if self._registry.failed_dependencies(entry.spec.name):
            return ModelState.BLOCKED, f"its dependency {name} failed: {error}"
        return entry.idle_state, f"not loaded: {error}"

    def release(self, entry: Entry) -> bool:
        """End a backoff or a quarantine; return whether there was one."""
        was_held = entry.state in {ModelState.BACKOFF, ModelState.QUARANTINED}
        entry.forgive()
        self._cancel_timer(entry.spec.name)
        if was_held:
            self._registry.move(entry, entry.idle_state, "released by hand; not asked for")
            self._registry.review(entry.spec.name)
            self._dispatch()
            self._registry.announce("released", entry.spec.name)
        return was_held

    def reviewed(self, names: Iterable[str]) -> None:
        """Take note that the states of ``names`` may have changed with a registration."""
        for name in names:
            entry = self._registry.entries.get(name)
            if entry is not None and entry.state is not ModelState.BACKOFF:
                self._cancel_timer(name)
                entry.retry_at_s = None

    def forget(self, name: str) -> None:
        """Try ``name`` no more by itself: nobody wants it any longer."""
        entry = self._registry.entry(name)
        self._cancel_timer(name)
        if entry.state is ModelState.BACKOFF:
            entry.retry_at_s = None
            self._registry.move(entry, entry.idle_state, "nobody asks for it any more")

    def close(self) -> None:
        """Try nothing again."""
        self._is_closed = True
        for name in list(self._timers):
            self._cancel_timer(name)
        for entry in self._registry.snapshot():
            if entry.state is ModelState.BACKOFF:
                entry.retry_at_s = None
                self._registry.move(entry, entry.idle_state, "the pool stopped before it was tried again")

    def _cancel_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()


def _draw() -> float:
    from random import random  # noqa: PLC0415  # its import costs milliseconds that a start without failures saves

    return random()  # noqa: S311  # jitter, no secret


def _is_final(entry: Entry, error: BaseException, retry: RetryPolicy) -> bool:
    """Tell whether trying again is of no use, though the model is not to be quarantined (yet)."""
    return isinstance(error, ModelBudgetError) or (is_hopeless(error) and not retry.is_exhausted(entry.strikes))


def quarantine_error(entry: Entry, wanted: str) -> ModelQuarantinedError:
    """Return why a model that is quarantined, or depends on such a one, cannot be had."""
    name = entry.spec.name
    who = f"model {name!r} is" if name == wanted else f"model {wanted!r} cannot be loaded: its dependency {name!r} is"
    return ModelQuarantinedError(
        f"{who} quarantined after {entry.strikes} failure(s) in a row, the last one {entry.last_error}; "
        f"mend the cause, then release it: pool.release({name!r})"
    )


_OWN_KINDS: tuple[type[ModelError], ...] = (ModelBudgetError, ModelQuarantinedError)


def _load_error(name: str, failed: str, cause: BaseException) -> ModelError:
    """Make the error one waiter gets: of the same kind when it is one of the pool's own, with the loader's as cause."""
    if failed == name and isinstance(cause, ModelError):
        kind: Any = type(cause) if type(cause) in _OWN_KINDS else ModelLoadError
        error: ModelError = kind(str(cause))
    elif failed == name:
        error = ModelLoadError(f"model {name!r} could not be loaded: {type(cause).__name__}: {cause}")
    else:
        error = ModelLoadError(f"model {name!r} could not be loaded: its dependency {failed!r} failed: {cause}")
    error.__cause__ = cause
    return error
