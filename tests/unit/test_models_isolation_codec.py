from __future__ import annotations

import enum
import math
import sys
from collections import OrderedDict, namedtuple
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondol.errors import ConfigurationError, UnencodableValueError
from ondol.models.isolation.codec import MAX_DEPTH, MalformedMessageError, decode, encode
from ondol.models.isolation.ends import ModelExit
from ondol.models.isolation.memory import parse_rollup
from ondol.models.isolation.target import find, resolve_target
from tests.service import isolation_models

Point = namedtuple("Point", "x y")  # noqa: PYI024  # the plain form is what is refused


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Color(enum.IntEnum):
    RED = 1


def round_trip(value: Any) -> Any:
    encoded = encode(value)
    return decode(encoded.header, [bytearray(view) for view in encoded.buffers])


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -0.0,
        math.inf,
        2**63,
        -(2**200),
        "따뜻한 바닥",
        "\ud83d lone",
        "\ud83d\ude00",  # two lone halves, which JSON's escapes would join
        b"",
        bytearray(b"\0\xff"),
        [1, "a", None, [b"x"]],
        (),
        (1, (2,)),
        {},
        {"$": ["tuple", [1]]},
        {1: "a", (1, 2): {"b": b"c"}, None: 0.5},
        {1, "a"},
        frozenset({(1, 2)}),
    ],
    ids=ascii,
)
def test_plain_data_comes_out_as_it_went_in(value: Any) -> None:
    result = round_trip(value)
    assert result == value
    assert type(result) is type(value)
    assert repr(result) == repr(value) or isinstance(value, set | frozenset)


@pytest.mark.parametrize(
    "numbers", [[2**64 - 1, -(2**63)], [2**64, 1], [-(2**63) - 1, 1], [1, True], [1, 1.0, None], list(range(1000))]
)
def test_lists_of_numbers_keep_their_types(numbers: list[Any]) -> None:
    assert repr(round_trip(numbers)) == repr(numbers)


def test_an_integer_of_any_length_goes_through() -> None:
    assert round_trip([10**5000]) == [10**5000]


def test_nan_stays_nan() -> None:
    assert math.isnan(round_trip([math.nan])[0])


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=">f4").reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
        np.empty((0, 384), np.float32),
        np.array(2.5),
        np.array(["가", "ab"]),
        np.array([b"a", b"bc"]),
        np.array(["2026-01-02", "NaT"], dtype="datetime64[D]"),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.zeros(2, "V3"),
        np.zeros(3, "U0"),
    ],
)
def test_arrays_keep_dtype_shape_and_content(array: np.ndarray[Any, Any]) -> None:
    result = round_trip({"a": array})["a"]
    assert result.dtype == array.dtype
    assert result.shape == array.shape
    assert result.tobytes() == array.tobytes()
    assert result.flags.writeable


def test_a_part_of_a_mapped_file_comes_out_as_an_array(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(np.arange(10, dtype=np.float32).tobytes())
    mapped = np.memmap(path, dtype=np.float32, mode="r")
    result = round_trip([mapped[2:4], mapped[3]])
    assert type(result[0]) is np.ndarray
    assert result[0].tolist() == [2.0, 3.0]
    assert type(result[1]) is np.float32


def test_an_array_in_fortran_order_stays_in_it() -> None:
    assert round_trip(np.asfortranarray(np.ones((3, 4)))).flags.f_contiguous


@pytest.mark.parametrize(
    "scalar",
    [
        np.float32(1.5),
        np.longdouble(1) / 3,
        np.int64(-3),
        np.bool_(True),
        np.str_("가"),
        np.str_("a\0"),
        np.str_("\ud800"),
        np.str_(""),
        np.bytes_(b"a\0\0"),
        np.bytes_(b""),
        np.void(b"a\0"),
        np.void(b""),
        np.datetime64("NaT", "s"),
        np.timedelta64(3, ("us", 25)),
    ],
    ids=ascii,
)
def test_numpy_scalars_stay_numpy_scalars(scalar: Any) -> None:
    result = round_trip(scalar)
    assert type(result) is type(scalar)
    assert repr(result) == repr(scalar)
    assert result.tobytes() == scalar.tobytes()


def test_a_contiguous_array_is_not_copied() -> None:
    array = np.ones(1000)
    (view,) = encode(array).buffers
    array[0] = 5
    assert np.frombuffer(view)[0] == 5


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "value cannot be sent between processes: it is a builtins.object"),
        ({"a": [0, {"b": Path()}]}, r"value\['a'\]\[1\]\['b'\] cannot .* pathlib"),
        (Point(1, 2), "Point"),
        (Color.RED, "Color"),
        (OrderedDict(a=1), "collections.OrderedDict"),
        (memoryview(b"a"), "memoryview"),
        (lambda: None, "function"),
        (np.array([object()]), "dtype object"),
        (np.zeros(1, [("a", "f4")]), "dtype"),
        (np.ma.masked_array([1]), "MaskedArray"),
        ({object(): 1}, "object"),
        ({Unspeakable(): 1}, "value cannot be sent between processes: RuntimeError: no text"),
        (np.zeros(1, []), "dtype"),
    ],
)
def test_what_cannot_be_sent_is_named_with_its_place(value: Any, says: str) -> None:
    with pytest.raises(UnencodableValueError, match=says):
        encode(value)


def test_endless_nesting_is_refused() -> None:
    deep: list[Any] = []
    deep.append(deep)
    with pytest.raises(UnencodableValueError, match=f"deeper than {MAX_DEPTH} levels"):
        encode(deep)


def test_the_deepest_nesting_allowed_goes_through() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = (deep,)
    assert round_trip(deep) == deep


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b'{"$":[]}',
        b'{"$":["no such tag"]}',
        b'{"$":7}',
        b'{"$":["bytes",0]}',
        b'{"$":["bytes",-9]}',
        b'{"$":["set",[[1]]]}',
        b'{"$":["dict",[1]]}',
        b'{"$":["int","zz"]}',
        b"[" * 100_000,
        b'{"$":["tuple",[' * 300 + b"]]}" * 300,
    ],
)
def test_what_is_no_message_is_refused(header: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode(header, [])


@pytest.mark.parametrize(
    "header",
    [
        b'{"$":["array",0,"|O",[1],"C"]}',
        b'{"$":["array",0,"<f8",[2],"C"]}',
        b'{"$":["array",0,"<f8",[-1],"C"]}',
        b'{"$":["array",0,"<f8",[1],"X"]}',
        b'{"$":["array",0,"nonsense",[1],"C"]}',
        b'{"$":["array",0,"float64",[1],"C"]}',
        b'{"$":["array",0,null,[1],"C"]}',
        b'{"$":["array",0,["<f8"],[1],"C"]}',
        b'{"$":["array",-1,"<f8",[1],"C"]}',
        b'{"$":["array",[0],"<f8",[1],"C"]}',
        b'{"$":["scalar",0,"<U99999999999999"]}',
        b'{"$":["array",0,"f4,f4",[1],"C"]}',
        b'{"$":["scalar",0,"|O"]}',
    ],
)
def test_arrays_that_cannot_be_are_refused(header: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode(header, [bytearray(8)])


@pytest.mark.parametrize("kind", ["bytes", "bytearray"])
def test_a_buffer_is_used_once(kind: str) -> None:
    header = f'[{{"$":["{kind}",0]}},{{"$":["{kind}",0]}}]'.encode()
    with pytest.raises(MalformedMessageError):
        decode(header, [bytearray(8)])


def test_a_loader_is_found_by_its_path() -> None:
    target = resolve_target(isolation_models.load, name="m")
    assert target.path == "tests.service.isolation_models:load"
    assert find(target.path) is isolation_models.load
    assert resolve_target(target.path, name="m").path == target.path
    assert resolve_target(isolation_models.Model, name="m").path.endswith(":Model")


def test_a_partial_gives_its_arguments_along() -> None:
    target = resolve_target(partial(partial(isolation_models.load, 2.0), scale=3.0), name="m")
    assert (target.args, target.kwargs) == ((2.0,), {"scale": 3.0})


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        (lambda: None, "is a lambda"),
        (isolation_models.load_lambda, "is a lambda"),
        (isolation_models.make_loader(), "made within a function"),
        (isolation_models.Model().echo, "bound or replaced"),
        (isolation_models.Model(), "object of type Model"),
        ("no colon", "no import path"),
        ("a:b()", "no import path"),
        ("ondol.no_such_module:load", "cannot be found"),
        ("no_such_package.module:load", "cannot be found"),
        ("math.no_package:load", "cannot be found"),
        ("__main__:load", "in the script that was started"),
    ],
)
def test_what_another_process_cannot_find_is_refused(loader: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        resolve_target(loader, name="m")
    assert "'m'" in str(caught.value)
    assert "give a function of a module" in str(caught.value)


def test_a_look_at_a_path_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "heavy_package"
    (package / "spaced").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (package / "part.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve_target("heavy_package.part:load", name="m").path == "heavy_package.part:load"
    for nowhere in ("heavy_package.no_part:load", "heavy_package.spaced.no_part:load"):
        with pytest.raises(ConfigurationError, match="cannot be found"):
            resolve_target(nowhere, name="m")
    assert "heavy_package" not in sys.modules


def test_a_function_of_the_started_script_is_refused() -> None:
    def load() -> None: ...

    load.__module__, load.__qualname__ = "__main__", "load"
    with pytest.raises(ConfigurationError, match="in the script that was started"):
        resolve_target(load, name="m")


@pytest.mark.parametrize(
    ("path", "error"), [("tests.service.isolation_models:NOT_CALLABLE", TypeError), ("os:no", AttributeError)]
)
def test_a_path_that_leads_nowhere_raises(path: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        find(path)


@pytest.mark.parametrize(
    ("code", "reason", "says"),
    [
        (3, "", "ended with exit code 3"),
        (12, "", "ran out of memory"),
        (-9, "", "ended by SIGKILL, perhaps by the kernel for want of memory"),
        (-9, "too slow", "ended by SIGKILL: too slow"),
        (-11, "", "ended by SIGSEGV"),
        (-64, "", "SIGRTMAX"),
        (None, "its fork server ended", "was lost: its fork server ended"),
        (None, "", "was lost"),
    ],
)
def test_an_end_is_told_in_words(code: int | None, reason: str, says: str) -> None:
    ended = ModelExit.of("m", code, is_expected=False, reason=reason, stderr_tail=("last words",))
    error = ended.error()
    assert says in str(error)
    assert "last words" in str(error)
    assert error.exit_code == (code if code is not None and code >= 0 else None)
    assert error.stderr_tail == ("last words",)


def test_the_kernels_account_of_memory_is_read() -> None:
    text = "7f00-7fff ---p 00000000 00:00 0   [rollup]\nRss:      2048 kB\nPss:      1024 kB\nPss_Dirty: 5 kB\n"
    assert parse_rollup(text) == (2048 * 1024, 1024 * 1024)
