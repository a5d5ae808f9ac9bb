from __future__ import annotations

import zlib

import numpy as np
import pytest

from ondol.cache.frame import StoredEntry, decode_frame, encode_frame, frame_times
from ondol.cache.keys import make_key
from ondol.errors import CorruptEntryError, UnencodableValueError

KEY = make_key("user", (7,))
STORED = StoredEntry({"a": 1}, 0.25, 1000.5, 2000.0, None, 60.0, ("x", "온돌"))


def sealed(frame: bytes) -> bytes:
    """Return ``frame`` with a checksum that fits."""
    return frame[:-4] + zlib.crc32(frame[:-4]).to_bytes(4, "little")


def test_a_frame_gives_back_the_entry() -> None:
    frame = encode_frame(KEY, STORED)
    assert decode_frame(KEY, frame) == STORED
    assert frame_times(frame) == (0.25, 1000.5, 2000.0, None, 60.0)


def test_a_foreign_frame_is_recognised() -> None:
    long_key = make_key("n", tuple("x" * 90 for _ in range(5)))
    for key in (KEY, long_key):
        frame = encode_frame(key, STORED)
        for other in (make_key("user", (8,)), make_key("user", ("7",)), long_key[:-1], ""):
            with pytest.raises(CorruptEntryError, match="another key"):
                decode_frame(other, frame)


def test_each_fault_is_named() -> None:
    frame = encode_frame(KEY, StoredEntry(np.zeros(4), 0.0, 0.0))
    with pytest.raises(CorruptEntryError, match="checksum"):
        decode_frame(KEY, frame[:-1] + b"!")
    with pytest.raises(CorruptEntryError, match="cut off"):
        decode_frame(KEY, frame[:20])
    with pytest.raises(CorruptEntryError, match="not a frame"):
        decode_frame(KEY, b"gar" + frame)
    with pytest.raises(CorruptEntryError, match="version 2"):
        decode_frame(KEY, sealed(b"ond\x02" + frame[4:]))
    with pytest.raises(CorruptEntryError, match="version 2"):
        frame_times(b"ond\x02" + frame[4:])


def test_a_whole_frame_with_nonsense_inside_is_refused() -> None:
    frame = encode_frame(KEY, STORED)
    for place in range(4, len(frame) - 4):
        for value in (0, 0x7F, 0xFF):
            nonsense = sealed(frame[:place] + bytes([value]) + frame[place + 1 :])
            try:
                decode_frame(KEY, nonsense)
            except CorruptEntryError:
                continue


def test_a_value_that_cannot_be_encoded_is_named() -> None:
    with pytest.raises(UnencodableValueError, match=r"builtins\.object"):
        encode_frame(KEY, StoredEntry(object(), 0.0, 0.0))


def test_too_long_a_tag_is_refused() -> None:
    with pytest.raises(ValueError, match="65535 bytes"):
        encode_frame(KEY, StoredEntry(1, 0.0, 0.0, tags=("x" * 70_000,)))
    with pytest.raises(ValueError, match="65535 tags"):
        encode_frame(KEY, StoredEntry(1, 0.0, 0.0, tags=("x",) * 70_000))
