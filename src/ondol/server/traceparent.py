"""decision: the header ``traceparent`` of W3C Trace Context: where a request comes from, read strictly.

Source: https://www.w3.org/TR/trace-context/ (Recommendation of 23 November 2021), section 3.2.
"""

from __future__ import annotations

import re
from typing import Final

from ondol.tracing import RemoteParent

__all__ = ["format_traceparent", "parse_traceparent", "parse_tracestate"]

MAX_STATE_CHARS: Final = 512
"""Of ``tracestate``; the standard asks to pass on at least that much, and what is longer may be dropped."""

_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
# Later versions may add fields after those of version 00, and keep these; ff is no version.
_PARENT: Final = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^\x00-\x1f]*)?\Z")


def parse_traceparent(value: bytes) -> RemoteParent | None:
    """Return what the header says, ``None`` when it is not valid: a new trace begins then.

    Of a version that is not known, the fields of version 00 are taken, as the standard says.

    >>> parse_traceparent(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").span_id
    'b7ad6b7169203331'
    >>> parse_traceparent(b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01")
    """
    match = _PARENT.match(value.strip(b" \t"))
    if match is None:
        return None
    version, trace, span, flags, rest = match.groups()
    trace_id, span_id = trace.decode("ascii"), span.decode("ascii")
    if trace_id == _NO_TRACE or span_id == _NO_SPAN or (version == b"00" and rest is not None):
        return None
    known_flags = int(flags, 16) & 1
    return RemoteParent(trace_id, span_id, known_flags)


def format_traceparent(parent: RemoteParent) -> str:
    """Return the header that tells ``parent``, in version 00.

    >>> format_traceparent(RemoteParent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1))
    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    """
    return f"00-{parent.trace_id}-{parent.span_id}-{parent.flags:02x}"


def parse_tracestate(values: list[bytes]) -> str:
    """Return the headers ``tracestate`` as one text; empty when they are too long or hold what no header may."""
    joined = b",".join(value.strip(b" \t") for value in values)
    if len(joined) > MAX_STATE_CHARS or not joined.isascii():
        return ""
    text = joined.decode("ascii")
    return text if text.isprintable() else ""
