from __future__ import annotations

import contextlib
import datetime as dt
import zoneinfo
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ondol.cache.codec import decode, encode
from ondol.cache.frame import StoredEntry, decode_frame, encode_frame, frame_times
from ondol.errors import CorruptEntryError


def is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except (TypeError, ValueError):  # a signalling NaN has no hash
        return False
    return True


texts = st.text(alphabet=st.characters(), max_size=12) | st.just("\ud800x") | st.just("é" * 3000)
zones = st.sampled_from(
    [None, dt.UTC, dt.timezone(dt.timedelta(hours=9), "KST"), dt.timezone(-dt.timedelta(minutes=3, seconds=1)),
     zoneinfo.ZoneInfo("Asia/Seoul")]
)  # fmt: skip
moments = (
    st.datetimes(timezones=zones, allow_imaginary=True)
    | st.dates()
    | st.builds(dt.time, st.integers(0, 23), st.integers(0, 59), microsecond=st.integers(0, 999_999), tzinfo=zones)
    | st.builds(lambda moment: moment.replace(fold=1), st.datetimes())
    | st.timedeltas()
)
hashables = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.complex_numbers()
    | texts
    | st.binary(max_size=12)
    | st.uuids()
    | st.decimals()
    | st.sampled_from([Decimal("sNaN1"), Decimal("-0E-7")])
    | moments,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner.filter(is_hashable), max_size=3),
    max_leaves=5,
)
DTYPES = (
    arrays.boolean_dtypes() | arrays.integer_dtypes(endianness="?") | arrays.floating_dtypes(endianness="?")
    | arrays.complex_number_dtypes(endianness="?") | arrays.byte_string_dtypes() | arrays.unicode_string_dtypes()
    | arrays.datetime64_dtypes() | arrays.timedelta64_dtypes()
)  # fmt: skip
ARRAYS = arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, min_side=0, max_side=4))
scalars = ARRAYS.filter(lambda array: array.size > 0).map(lambda array: array.reshape(-1)[0])
values = st.recursive(
    hashables | st.binary(max_size=9).map(bytearray) | ARRAYS | scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(hashables.filter(is_hashable), inner, max_size=3)
        | st.sets(hashables.filter(is_hashable), max_size=3)
    ),
    max_leaves=8,
)


def typed(value: Any) -> Any:
    """Return a value that equals another's exactly when both have the same types and content throughout."""
    kind = type(value)
    if isinstance(value, np.ndarray):
        flags = (value.flags.c_contiguous, value.flags.f_contiguous, value.flags.writeable)
        return kind, value.dtype.str, value.shape, value.tobytes(), flags
    if isinstance(value, np.generic):
        return kind, value.dtype.str, value.tobytes()
    if kind in {list, tuple, dict}:
        return kind, tuple(typed(item) for item in (value.items() if kind is dict else value))
    if kind in {set, frozenset}:
        return kind, sorted(repr(typed(item)) for item in value)
    if isinstance(value, (dt.datetime, dt.time)):
        return kind, repr(value), value.fold
    return kind, repr(value)


@settings(max_examples=80, deadline=None)
@given(values)
@example([float("nan"), -0.0, float("inf"), 2**64, -(2**63) - 1, True, 1, None, np.float64(1), {(float("nan"),): 1}])
def test_what_is_decoded_equals_what_was_encoded_and_has_its_types(value: Any) -> None:
    assert typed(decode(encode(value))) == typed(value)


@settings(max_examples=35, deadline=None)
@given(ARRAYS, st.sampled_from("CFTSR"))
def test_arrays_keep_dtype_shape_order_and_writability(array: np.ndarray[Any, Any], form: str) -> None:
    if form == "F":
        array = np.asfortranarray(array)
    elif form == "T":
        array = array.T
    elif form == "R":
        array.setflags(write=False)
    view = array[..., ::2] if form == "S" and array.ndim else array
    expected = np.ascontiguousarray(view) if form == "S" and array.ndim else view
    found = decode(encode(view))
    assert typed(found) == typed(expected)
    assert found.flags.aligned
    assert not np.shares_memory(found, view)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80) | st.builds(lambda tag, rest: bytes([tag]) + rest, st.integers(0, 255), st.binary()))
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    with contextlib.suppress(CorruptEntryError):  # any other error fails the test
        decode(data)
    with contextlib.suppress(CorruptEntryError):
        decode(memoryview(bytearray(data)))


@settings(max_examples=35, deadline=None)
@given(values, st.data())
def test_damaged_bytes_are_a_value_or_refused(value: Any, data: st.DataObject) -> None:
    encoded = encode(value)
    for end in range(min(len(encoded), 40)):
        with contextlib.suppress(CorruptEntryError):
            decode(encoded[:end])
    for _ in range(10):
        damaged = bytearray(encoded)
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        with contextlib.suppress(CorruptEntryError):
            decode(bytes(damaged))


keys = st.text(max_size=8).map(lambda text: f"{text}\x00s{len(text)}") | st.just("é" * 200 + "\x00") | st.just("\ud800")
times = st.none() | st.floats(allow_nan=False)
stored_entries = st.builds(
    StoredEntry, values, st.floats(0, 1e6), st.floats(0, 1e12), times, times, times,
    st.lists(st.text(alphabet=st.characters(), max_size=5), max_size=3).map(tuple),
)  # fmt: skip


@settings(max_examples=35, deadline=None)
@given(keys, stored_entries)
def test_frames_give_back_everything(key: str, stored: StoredEntry) -> None:
    frame = encode_frame(key, stored)
    found = decode_frame(key, frame)
    assert (typed(found.value), found[1:]) == (typed(stored.value), stored[1:])
    assert type(found) is StoredEntry
    assert frame_times(frame) == stored[1:6]
    assert typed(decode_frame(key, memoryview(frame)).value) == typed(stored.value)


@settings(max_examples=35, deadline=None)
@given(keys, stored_entries, st.data())
def test_no_damaged_frame_gives_a_value(key: str, stored: StoredEntry, data: st.DataObject) -> None:
    frame = encode_frame(key, stored)
    places = data.draw(st.lists(st.integers(0, len(frame) - 1), min_size=1, max_size=8))
    for place in places:
        damaged = bytearray(frame)
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
        for bad in (bytes(damaged), frame[:place], frame + b"x"):
            with contextlib.suppress(CorruptEntryError):
                decode_frame(key, bad)
                raise AssertionError("a damaged frame was decoded")
        with contextlib.suppress(CorruptEntryError):
            frame_times(bytes(damaged))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=120) | st.binary(max_size=120).map(lambda rest: b"ond\x01" + rest))
def test_any_bytes_are_no_frame(data: bytes) -> None:
    with contextlib.suppress(CorruptEntryError):
        decode_frame("key", data)
    with contextlib.suppress(CorruptEntryError):
        frame_times(data)
