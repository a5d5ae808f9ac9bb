from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pytest

from ondol.cache.codec import MAX_UNPACKED_BYTES, decode, encode
from ondol.errors import CorruptEntryError, MissingExtraError, UnencodableValueError

msgpack: Any = import_module("msgpack")  # ships no types


class Colour(IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int


@dataclass
class Person:
    name: str


class Text(str):
    __slots__ = ()


class UUID:  # somebody else's class of a known name
    def __init__(self, raw: bytes) -> None:
        self.bytes = raw


@pytest.mark.parametrize(
    ("value", "place", "kind"),
    [
        (object(), "value ", "builtins.object"),
        ([1, Colour.RED], "value[1]", "Colour"),
        ({"a": [(1, Point(2))]}, "value['a'][0][1]", "Point"),
        ({"p": Person("Mina")}, "value['p']", "Person"),
        ([Text("x")], "value[0]", "Text"),
        ({(1, Text("x")): 1}, "value[(1, 'x')]", "Text"),
        (OrderedDict(a=1), "value ", "OrderedDict"),
        (UUID(b"x" * 16), "value ", "UUID"),
        ([memoryview(b"x")], "value[0]", "memoryview"),
        ([range(3)], "value[0]", "range"),
        ({"a": {"b": lambda: 0}}, "value['a']['b']", "function"),
        (np.array([object()]), "value ", "dtype object"),
        ([np.zeros(2, [("a", "f4")])], "value[0]", "dtype"),
        (np.ma.masked_array([1], [True]), "value ", "MaskedArray"),
        (np.zeros(1, "V4")[0], "value ", "void"),
        (np.datetime64, "value ", "type"),
    ],
)
def test_what_cannot_be_encoded_is_named_with_its_place(value: Any, place: str, kind: str) -> None:
    with pytest.raises(UnencodableValueError) as caught:
        encode(value)
    assert place in str(caught.value)
    assert kind in str(caught.value)


def test_what_is_nested_too_deep_or_holds_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: Any = ()
    for _ in range(100_000):
        deep = (deep,)
    for value in (circle, deep, {"a": circle}):
        with pytest.raises(UnencodableValueError, match="deeper than 64"):
            encode(value)
    while deep:  # taken apart by hand: the interpreter would do it recursively
        (deep,) = deep
    allowed: Any = 1
    for _ in range(64):
        allowed = [(allowed,)] if allowed == 1 else [allowed]
    with pytest.raises(UnencodableValueError):
        encode(allowed)
    assert decode(encode(allowed[0])) == allowed[0]


def test_long_text_is_compressed_and_numbers_are_not() -> None:
    text = "The ondol warms the floor. 온돌은 바닥을 데운다. " * 400
    assert len(encode(text)) < len(text.encode()) / 10
    assert len(encode({"text": text, "n": 1})) < len(text.encode()) / 10
    assert encode("short") == b"\x02short"
    rng = np.random.default_rng(1)
    for floats in (rng.random(4000).tolist(), rng.random(200).tolist()):
        assert encode(floats)[0] == 0x05
    assert len(encode(np.zeros(1000, np.float32))) == 4000 + 24
    assert encode(b"x" * 9000)[0] == 0x03


def test_a_decoded_array_is_a_new_one_that_can_be_written_to() -> None:
    for array in (np.arange(6.0), np.arange(6.0).reshape(2, 3), np.arange(100_000.0)):
        encoded = encode(array)
        found = decode(encoded)
        found += 1
        assert np.array_equal(decode(encoded), array)
    fixed = np.arange(3)
    fixed.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        decode(encode(fixed))[0] = 1
    assert decode(encode([fixed]))[0].flags.writeable is False


@pytest.mark.parametrize("dtype", ["f4", ">i8", "M8[s]", "U3", "S5", "?", "c16", "V7"])
def test_large_arrays_of_every_order_come_back(dtype: str) -> None:
    array = np.zeros((150, 200), dtype)
    array[::3, ::7] = np.void(b"sevenby") if dtype == "V7" else 1
    for given in (array, np.asfortranarray(array), array[::2, ::-1], array[:0], array[3:4]):
        found = decode(encode([given]))[0]
        assert (found.dtype, found.shape, found.tobytes()) == (given.dtype, given.shape, given.tobytes())


def test_nothing_is_imported_before_it_is_needed() -> None:
    program = (
        "import sys; import ondol.cache.disk, ondol.cache.frame as frame; key = 'a\\0'\n"
        "assert frame.decode_frame(key, frame.encode_frame(key, frame.StoredEntry('text', 0.0, 0.0))).value == 'text'\n"
        "assert not {'numpy', 'msgpack', 'lmdb', 'decimal', 'zoneinfo', 'uuid'} & set(sys.modules), sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_an_array_that_is_changed_later_does_not_change_what_was_encoded() -> None:
    array = np.zeros(100_000)
    encoded = encode(array)
    array[:] = 1
    assert not decode(encoded).any()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xff" * 40,
        b"\x82" + struct.pack("<I", MAX_UNPACKED_BYTES + 1) + zlib.compress(b"x"),
        b"\x82" + struct.pack("<I", 10) + zlib.compress(b"x" * 50_000_000),
        b"\x82" + struct.pack("<I", 10) + zlib.compress(b"x" * 10)[:-3],
        b"\x82" + struct.pack("<I", 10) + zlib.compress(b"x" * 10) + b"more",
        b"\x83" + struct.pack("<I", 10) + zlib.compress(b"x" * 10),
        b"\x05\xdd\xff\xff\xff\xff",
        b"\x05\xc6\xff\xff\xff\xff",
        b"\x05\x91" * 3,
        b"\x05" + b"\x91" * 100_000,
        b"\x05" + b"\xdd\x00\x00\xff\xff" * 2000,
        b"\x05\x81\x90\x01",
        b"\x05" + msgpack.packb(msgpack.ExtType(99, b"")),
        b"\x05" + msgpack.packb(msgpack.ExtType(1, msgpack.packb("no list"))),
        b"\x05" + msgpack.packb(msgpack.ExtType(2, msgpack.packb([[]]))),
        b"\x05" + msgpack.packb(msgpack.ExtType(4, msgpack.packb([1, 2, 3]))),
        b"\x05" + msgpack.packb(msgpack.ExtType(19, b"no UUID")),
        b"\x05" + msgpack.packb(msgpack.ExtType(20, b"no number")),
        b"\x05" + msgpack.packb(msgpack.ExtType(32, msgpack.packb([9999999, 1, 1, 0, 0, 0, 0, 0, None]))),
        b"\x05" + msgpack.packb(msgpack.ExtType(37, msgpack.packb(["../../etc/passwd"]))),
        b"\x05" + msgpack.packb(msgpack.ExtType(37, msgpack.packb(["No/Where"]))),
        b"\x01" + bytes([24, 0, 0, 1, 3]) + b"<f4" + (2**62).to_bytes(8, "little") + bytes(7),
        b"\x01" + bytes([24, 0, 0, 1, 3]) + b"|O8" + (1).to_bytes(8, "little") + bytes(7 + 8),
        b"\x01" + bytes([24, 0, 0, 1, 3]) + b"<U1" + (1).to_bytes(8, "little") + bytes(7) + b"\xff\xff\xff\x7f",
        b"\x01" + bytes([24, 0, 0, 200, 3]) + b"<f4" + bytes(15),
        b"\x01" + bytes([24, 0, 0, 0, 14]) + b"<f4,<f4,<f4,<f" + bytes(4),
    ],
)
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptEntryError):
        decode(data)


def test_extensions_within_extensions_end_in_time() -> None:
    data = b""
    for _ in range(2000):
        data = msgpack.packb(msgpack.ExtType(1, data or b"\x90"))
        if len(data) < 1000:
            continue
        data = msgpack.packb(msgpack.ExtType(1, b"\x91" + data))
    with pytest.raises(CorruptEntryError):
        decode(b"\x05" + data)


def test_every_form_of_a_header_is_checked_whole() -> None:
    encoded = encode(np.zeros((2, 3, 4), "<c16"))
    for place in range(40):
        for bit in range(8):
            damaged = bytearray(encoded)
            damaged[place] ^= 1 << bit
            with contextlib.suppress(CorruptEntryError):
                decode(bytes(damaged))


@pytest.mark.parametrize("package", ["numpy", "msgpack"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode(np.float32(1)) if package == "numpy" else encode([1])
    array = encode(np.zeros(977))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=package):
        decode(encoded)
    if package == "numpy":
        with pytest.raises(MissingExtraError, match="numpy"):
            decode(array)
    else:
        with pytest.raises(MissingExtraError, match="msgpack"):
            encode([1])
        assert decode(encode("text")) == "text"
