"""decision: the protocol through which every room tells what a request waited for; off unless somebody listens.

The rooms never import a tracing library. They are given a ``SpanRelay``, which does nothing until it is connected, and
write, so that nothing is made while it is off:

    with spans.span("cache.compute", {"cache.name": name}) if spans.is_on else NO_SPAN as span:
        ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

__all__ = ["NO_SPAN", "Attributes", "NoSpan", "RemoteParent", "Span", "SpanRelay", "SpanSink", "Value"]

Value: TypeAlias = "str | int | float | bool"
Attributes: TypeAlias = "Mapping[str, Value]"


class RemoteParent(NamedTuple):
    """The caller's span, as W3C Trace Context tells it."""

    trace_id: str
    """32 hexadecimal digits, lower-case, not all zero."""
    span_id: str
    """16 of them."""
    flags: int = 0
    state: str = ""
    """What other tracing systems want to be passed on: the header ``tracestate`` as it came."""

    @property
    def is_sampled(self) -> bool:
        """Whether the caller keeps its part of the trace."""
        return bool(self.flags & 1)


class Span(Protocol):
    """A stretch of work; within its ``with`` block it is what new spans of the task are children of.

    Nothing here raises, and whatever comes after the end is ignored.
    """

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits; empty when there is no trace."""
        ...

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits; empty when there is no trace."""
        ...

    @property
    def is_recording(self) -> bool:
        """Whether it will be kept: the trace was sampled."""
        ...

    def set(self, name: str, value: Value, /) -> None:
        """Set an attribute."""
        ...

    def rename(self, name: str, /) -> None:
        """Give it the name that is known only now."""
        ...

    def fail(self, kind: str, message: str = "", /) -> None:
        """Say that the work failed: ``kind`` is a class of errors or a status."""
        ...

    def link(self, other: Span, /) -> None:
        """Say that it waited for ``other``, which belongs to another request."""
        ...

    def end(self) -> None:
        """End it now, before its block does."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...


class SpanSink(Protocol):
    """Takes the spans of the rooms. Nothing here raises."""

    def span(self, name: str, attributes: Attributes, /) -> Span:
        """Begin a child of the span that the running task is in."""
        ...

    def serve(self, name: str, attributes: Attributes, parent: RemoteParent | None, /) -> Span:
        """Begin the span of a request that came in; ``parent`` is its caller's, a new trace begins without one."""
        ...

    def record(self, name: str, start_s: float, end_s: float, attributes: Attributes, error: str = "", /) -> None:
        """Add a child that is over already, by the monotonic times of the clock that the rooms use."""
        ...

    def event(self, name: str, attributes: Attributes, /) -> None:
        """Note something without a length on the span that the running task is in."""
        ...


class NoSpan:
    """What stands where a span would be when nobody listens; it has no state."""

    __slots__ = ()

    trace_id: Final = ""
    span_id: Final = ""
    is_recording: Final = False

    def set(self, name: str, value: Value, /) -> None:
        """Do nothing."""

    def rename(self, name: str, /) -> None:
        """Do nothing."""

    def fail(self, kind: str, message: str = "", /) -> None:
        """Do nothing."""

    def link(self, other: Span, /) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        pass


NO_SPAN: Final[Span] = NoSpan()


class _NoSink:
    """Takes what is still told after the relay was disconnected."""

    def span(self, _name: str, _attributes: Attributes, /) -> Span:
        return NO_SPAN

    def serve(self, _name: str, _attributes: Attributes, _parent: RemoteParent | None, /) -> Span:
        return NO_SPAN

    def record(self, name: str, start_s: float, end_s: float, attributes: Attributes, error: str = "", /) -> None:
        pass

    def event(self, name: str, attributes: Attributes, /) -> None:
        pass


class SpanRelay:
    """Passes spans on to what it is connected to; one for the whole runtime, given to each room.

    Attributes:
        is_on: whether somebody listens. Look at it first: then nothing is made that nobody wants.

    Thread-safety: may be used and connected from any thread.
    """

    __slots__ = ("_sink", "event", "is_on", "record", "serve", "span")

    def __init__(self) -> None:
        """Begin off."""
        self.is_on = False
        self.connect(None)

    def connect(self, sink: SpanSink | None) -> None:
        """Pass on to ``sink`` from now on; to nobody without one."""
        self._sink: SpanSink = _NoSink() if sink is None else sink
        # The sink's own methods: a call on the way costs more than what some of them do.
        self.span = self._sink.span
        self.serve = self._sink.serve
        self.record = self._sink.record
        self.event = self._sink.event
        self.is_on = sink is not None
