"""decision: which request the running code works for; tasks and threads that it starts inherit the answer."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import NamedTuple

__all__ = ["RequestContext", "current_request", "enter_request", "leave_request"]


class RequestContext(NamedTuple):
    """One request under way."""

    request_id: str
    trace_id: str = ""
    """32 hexadecimal digits of W3C Trace Context; empty when the caller sent none and none was begun."""


_current: ContextVar[RequestContext | None] = ContextVar("ondol_request", default=None)

current_request = _current.get
"""Return the request that the running code works for, ``None`` outside of requests."""


def enter_request(request: RequestContext) -> Token[RequestContext | None]:
    """Let the running task work for ``request`` until ``leave_request``."""
    return _current.set(request)


def leave_request(token: Token[RequestContext | None]) -> None:
    """End what the ``enter_request`` that returned ``token`` began."""
    _current.reset(token)
