from __future__ import annotations

import contextlib
import math
import socket
import threading
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ondol.models.isolation.codec import MalformedMessageError, decode, encode
from ondol.models.isolation.wire import INLINE_LIMIT_BYTES, Link

KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
LEAVES = (
    KEYS
    | st.floats(allow_nan=False)
    | st.text(alphabet=st.characters())
    | st.builds(bytearray, st.binary())
    | st.frozensets(KEYS, max_size=4)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.just("$") | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)
DTYPES = (
    arrays.boolean_dtypes() | arrays.integer_dtypes() | arrays.floating_dtypes() | arrays.complex_number_dtypes()
    | arrays.byte_string_dtypes() | arrays.unicode_string_dtypes() | arrays.datetime64_dtypes()
)  # fmt: skip
ARRAYS = arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, min_side=0, max_side=4))


def shape_of(value: Any) -> Any:
    """Return ``value`` with every type beside it, for ``True == 1 == 1.0``."""
    if isinstance(value, list | tuple):
        return type(value), [shape_of(item) for item in value]
    if isinstance(value, dict):
        return dict, [(shape_of(key), shape_of(item)) for key, item in value.items()]
    if isinstance(value, frozenset):
        return frozenset, sorted(map(repr, value))
    return type(value), repr(value)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_plain_data_survives_the_round_trip(value: Any) -> None:
    encoded = encode(value)
    assert shape_of(decode(encoded.header, [bytearray(view) for view in encoded.buffers])) == shape_of(value)


@settings(max_examples=150, deadline=None)
@given(ARRAYS, st.booleans())
def test_arrays_survive_the_round_trip(array: np.ndarray[Any, Any], is_turned: bool) -> None:
    given_array = array.T if is_turned else array
    encoded = encode(given_array)
    result = decode(encoded.header, [bytearray(view) for view in encoded.buffers])
    assert (result.dtype, result.shape, result.tobytes()) == (
        given_array.dtype,
        given_array.shape,
        given_array.tobytes(),
    )


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_refused(header: bytes) -> None:
    with contextlib.suppress(MalformedMessageError):  # any other error fails the test
        decode(header, [bytearray(4)])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.integers(0, 64)
        | st.sampled_from([INLINE_LIMIT_BYTES - 1, INLINE_LIMIT_BYTES, INLINE_LIMIT_BYTES + 1, 300_000]),
        max_size=5,
    )
)
def test_buffers_of_all_sizes_cross_a_socket(lengths: list[int]) -> None:
    value = [np.full(length, index, np.uint8) for index, length in enumerate(lengths)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=lambda: Link(ours).send(encode([value, math.pi])))
        sender.start()
        result, pi = Link(theirs).receive()
        sender.join()
    assert pi == math.pi
    assert [array.tobytes() for array in result] == [array.tobytes() for array in value]
