from __future__ import annotations

import pytest

from ondol.server.traceparent import format_traceparent, parse_traceparent, parse_tracestate
from ondol.tracing import RemoteParent

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def test_a_valid_header_says_trace_span_and_whether_it_is_sampled() -> None:
    parent = parse_traceparent(f"00-{TRACE}-{SPAN}-01".encode())
    assert parent == RemoteParent(TRACE, SPAN, 1)
    assert parent is not None
    assert parent.is_sampled
    unsampled = parse_traceparent(f"00-{TRACE}-{SPAN}-00".encode())
    assert unsampled is not None
    assert not unsampled.is_sampled


def test_spaces_around_it_are_no_part_of_it() -> None:
    assert parse_traceparent(f" \t00-{TRACE}-{SPAN}-01 ".encode()) == RemoteParent(TRACE, SPAN, 1)


def test_flags_that_are_not_known_are_not_passed_on() -> None:
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-ff".encode()) == RemoteParent(TRACE, SPAN, 1)
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-fe".encode()) == RemoteParent(TRACE, SPAN, 0)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00_{TRACE}_{SPAN}_01",
        f"ff-{TRACE}-{SPAN}-01",
        f"FF-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"cc-{TRACE}-{SPAN}-01-li\nne",
    ],
)
def test_what_is_not_valid_is_ignored(header: str) -> None:
    assert parse_traceparent(header.encode()) is None


def test_bytes_that_are_no_text_are_ignored() -> None:
    assert parse_traceparent(f"00-{TRACE}-{SPAN[:-1]}".encode() + b"\xff-01") is None


@pytest.mark.parametrize(
    "header", [f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-comes-later", f"fe-{TRACE}-{SPAN}-01-"]
)
def test_of_later_versions_what_is_known_is_taken(header: str) -> None:
    assert parse_traceparent(header.encode()) == RemoteParent(TRACE, SPAN, 1)


def test_what_is_written_can_be_read() -> None:
    parent = RemoteParent(TRACE, SPAN, 1)
    assert format_traceparent(parent) == f"00-{TRACE}-{SPAN}-01"
    assert parse_traceparent(format_traceparent(parent).encode()) == parent


def test_several_states_are_one_list() -> None:
    assert parse_tracestate([b"a=1", b" b=2 "]) == "a=1,b=2"
    assert parse_tracestate([]) == ""


@pytest.mark.parametrize("value", [b"a=" + b"x" * 512, "a=열".encode(), b"a=\x00"])
def test_a_state_that_no_header_may_hold_or_that_is_too_long_is_dropped(value: bytes) -> None:
    assert parse_tracestate([value]) == ""
