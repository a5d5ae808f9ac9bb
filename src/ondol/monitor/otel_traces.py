"""adapter: the rooms' spans as spans of OpenTelemetry.

They are carried by OpenTelemetry's own context: where the host application is instrumented itself, ours are children of
its spans, and what it does inside of ours is a child of ours.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Self

from ondol._version import __version__
from ondol.errors import MissingExtraError
from ondol.tracing import NO_SPAN

if TYPE_CHECKING:
    from contextvars import Token
    from types import ModuleType, TracebackType

    from opentelemetry import trace as trace_api
    from opentelemetry.context import Context

    from ondol.clock import Clock
    from ondol.tracing import Attributes, RemoteParent, Span, Value

__all__ = ["OpenTelemetrySpans"]

logger = logging.getLogger("ondol.monitor")

SCOPE: Final = "ondol"
_MAX_MESSAGE_CHARS: Final = 500


class OpenTelemetrySpans:
    """Makes spans with the tracer of a provider; a failure of the provider is counted and costs the span only.

    Thread-safety: may be used from any thread.
    """

    def __init__(self, provider: trace_api.TracerProvider, *, clock: Clock) -> None:
        """Make spans with ``provider``, which is not closed here, timed by ``clock``.

        Raises:
            MissingExtraError: OpenTelemetry is not installed.
        """
        try:
            from opentelemetry import context, trace  # noqa: PLC0415  # an extra
        except ImportError as exc:
            raise MissingExtraError("opentelemetry-sdk", "otel", "tracing") from exc
        self.api: ModuleType = trace
        self.context: ModuleType = context
        self.clock = clock
        self.failures = 0
        self._tracer = provider.get_tracer(SCOPE, __version__)

    def span(self, name: str, attributes: Attributes, /) -> Span:
        """Begin a child of the span that the running task is in."""
        return self._begin(name, attributes, None, self.api.SpanKind.INTERNAL)

    def serve(self, name: str, attributes: Attributes, parent: RemoteParent | None, /) -> Span:
        """Begin the span of a request; where the host application has begun one already, a child of that."""
        if self.api.get_current_span().get_span_context().is_valid:
            return self.span(name, attributes)
        return self._begin(name, attributes, parent, self.api.SpanKind.SERVER)

    def record(self, name: str, start_s: float, end_s: float, attributes: Attributes, error: str = "", /) -> None:
        """Add a child that is over already."""
        try:
            # Through how long ago it was: the wall clock may have been set since the process began.
            now_ns = round((self.clock.wall() - self.clock.monotonic()) * 1e9)
            span = self._tracer.start_span(
                name,
                attributes=dict(attributes),
                start_time=now_ns + round(start_s * 1e9),
                kind=self.api.SpanKind.INTERNAL,
            )
            if error:
                self.mark_failed(span, error, "")
            span.end(now_ns + round(end_s * 1e9))
        except Exception as exc:  # noqa: BLE001  # told and counted there
            self.failed(exc)

    def event(self, name: str, attributes: Attributes, /) -> None:
        """Note something on the span that the running task is in."""
        try:
            span = self.api.get_current_span()
            if span.is_recording():
                span.add_event(name, dict(attributes), timestamp=self.wall_ns())
        except Exception as exc:  # noqa: BLE001  # told and counted there
            self.failed(exc)

    def wall_ns(self) -> int:
        """Return the time as OpenTelemetry wants it."""
        return round(self.clock.wall() * 1e9)

    def mark_failed(self, span: Any, kind: str, message: str) -> None:
        """Give ``span`` the status of an error."""
        span.set_attribute("error.type", kind)
        span.set_status(self.api.Status(self.api.StatusCode.ERROR, message[:_MAX_MESSAGE_CHARS] or None))

    def failed(self, error: Exception) -> None:
        """Count a failure of the provider, such as one of the host's processors; logged at the first."""
        self.failures += 1
        if self.failures == 1:
            logger.error("OpenTelemetry failed on a span; later failures are only counted", exc_info=error)

    def _begin(self, name: str, attributes: Attributes, parent: RemoteParent | None, kind: Any) -> Span:
        try:
            context = None if parent is None else self._remote(parent)
            start_ns = self.wall_ns()
            span = self._tracer.start_span(
                name, context, kind=kind, attributes=dict(attributes), start_time=start_ns, record_exception=False
            )
            return _OpenSpan(self, span, start_ns)
        except Exception as exc:  # noqa: BLE001  # told and counted there
            self.failed(exc)
            return NO_SPAN

    def _remote(self, parent: RemoteParent) -> Context:
        api = self.api
        state = api.TraceState.from_header([parent.state]) if parent.state else None
        flags = api.TraceFlags(parent.flags)
        span_context = api.SpanContext(
            int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags, trace_state=state
        )
        remote: Context = api.set_span_in_context(api.NonRecordingSpan(span_context))
        return remote


class _OpenSpan:
    """A span under way, as the rooms see it."""

    __slots__ = ("_is_over", "_owner", "_start_ns", "_started_s", "_token", "span")

    def __init__(self, owner: OpenTelemetrySpans, span: trace_api.Span, start_ns: int) -> None:
        self.span = span
        self._owner = owner
        self._start_ns = start_ns
        self._started_s = owner.clock.monotonic()
        self._token: Token[Context] | None = None
        self._is_over = False

    @property
    def trace_id(self) -> str:
        return f"{self.span.get_span_context().trace_id:032x}"

    @property
    def span_id(self) -> str:
        return f"{self.span.get_span_context().span_id:016x}"

    @property
    def is_recording(self) -> bool:
        return self.span.is_recording()

    def set(self, name: str, value: Value, /) -> None:
        if not self._is_over:
            self.span.set_attribute(name, value)

    def rename(self, name: str, /) -> None:
        if not self._is_over:
            self.span.update_name(name)

    def fail(self, kind: str, message: str = "", /) -> None:
        if not self._is_over:
            self._owner.mark_failed(self.span, kind, message)

    def link(self, other: Span, /) -> None:
        if isinstance(other, _OpenSpan) and not self._is_over:
            self.span.add_link(other.span.get_span_context())

    def end(self) -> None:
        """End it; its length is that of the monotonic clock, whatever became of the wall clock meanwhile."""
        if self._is_over:
            return
        self._is_over = True
        length_s = self._owner.clock.monotonic() - self._started_s
        try:
            self.span.end(self._start_ns + round(length_s * 1e9))
        except Exception as exc:  # noqa: BLE001  # a processor of the host's may do anything; told and counted there
            self._owner.failed(exc)

    def __enter__(self) -> Self:
        owner = self._owner
        self._token = owner.context.attach(owner.api.set_span_in_context(self.span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None, /
    ) -> None:
        if self._token is not None:
            self._owner.context.detach(self._token)
            self._token = None
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            self.set("ondol.cancelled", True)  # noqa: FBT003  # somebody left: nothing went wrong
        elif error is not None and kind is not None:
            self.fail(kind.__name__, str(error))
        self.end()
