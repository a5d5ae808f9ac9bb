from __future__ import annotations

import datetime as dt
import enum
import itertools
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from ondol.cache.keys import MAX_DEPTH, MAX_PART_CHARS, key_text, make_key
from ondol.errors import CacheError, UnstableKeyError


class Colour(enum.Enum):
    RED = 1
    BLUE = "1"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    ONE = "1"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Point:
    x: int
    y: object = 0
    note: str = field(default="", compare=False)


@dataclass(frozen=True)
class Vector:
    x: int
    y: object = 0


class Pair(NamedTuple):
    x: int
    y: int


KST = dt.timezone(dt.timedelta(hours=9))
UNLIKE: list[tuple[object, ...]] = [
    (),
    (1,),
    ("1",),
    (True,),
    (1.0,),
    (b"1",),
    (1 + 0j,),
    ("",),
    (None,),
    ("None",),
    (False,),
    (0,),
    (0.0,),
    (-0.0,),
    ((),),
    ([],),
    ({},),
    (frozenset(),),
    (set(),),
    ("()",),
    (b"()",),
    ((1,),),
    ([1],),
    ({1: 1},),
    ({1},),
    (frozenset({1}),),
    (frozenset({"1"}),),
    ({"1": 1},),
    ({1: "1"},),
    ((1, 2),),
    ((1, (2,)),),
    (((1, 2),),),
    ("a", "b"),
    ("b", "a"),
    ("a:b",),
    ("a", "b", ""),
    ("", "a", "b"),
    ("a\x00s1",),
    ("a\x00", "s1"),
    ("a,b",),
    (("a", "b"),),
    (("a,b",),),
    (("a','b",),),
    (Colour.RED,),
    (Colour.BLUE,),
    (Level.LOW,),
    (Word.ONE,),
    (Right.READ,),
    (Right.WRITE,),
    (Right.READ | Right.WRITE,),
    (Right(0),),
    (Point(1),),
    (Point(1, 1),),
    (Point(1, Point(1)),),
    (Vector(1),),
    (Pair(1, 2),),
    (uuid.UUID(int=1),),
    (str(uuid.UUID(int=1)),),
    (Decimal(1),),
    (Decimal("1.0"),),
    (dt.date(2025, 1, 1),),
    ("2025-01-01",),
    (dt.datetime(2025, 1, 1),),  # noqa: DTZ001  # a naive time is what is tested
    (dt.datetime(2025, 1, 1, tzinfo=dt.UTC),),
    (dt.datetime(2025, 1, 1, tzinfo=KST),),
    (dt.datetime(2025, 1, 1, tzinfo=dt.UTC, fold=1),),
    (dt.time(1),),
    (dt.timedelta(1),),
    (dt.timedelta(0, 1),),
    (10**30,),
    (10**5000,),
    (hex(10**30),),
    ("가",),
    ("각",),
    ("\ud800",),
    ("x" * 500,),
    ("x" * 501,),
    (b"x" * 500,),
    (b"x" * 501,),
    (("x" * 500,),),
    (make_key("n", ("x" * 500,)).split(":", 1)[1].partition("\x00")[0],),
]


def test_unlike_parts_have_unlike_keys() -> None:
    same = [
        (one, other) for one, other in itertools.combinations(UNLIKE, 2) if make_key("n", one) == make_key("n", other)
    ]
    assert same == []


def test_a_key_is_the_same_each_time_and_bounded() -> None:
    assert [make_key("n", parts) for parts in UNLIKE] == [make_key("n", parts) for parts in UNLIKE]
    assert max(len(make_key("n", parts)) for parts in UNLIKE) < 300


def test_name_and_parts_do_not_flow_into_each_other() -> None:
    assert (
        len({make_key("a:b", ("c",)), make_key("a", ("b:c",)), make_key("a", ("b", "c")), make_key("a:b:c", ())}) == 4
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (frozenset({1, "a", None}), frozenset({None, "a", 1})),
        (Point(1, 2, note="x"), Point(1, 2, note="y")),
        (float("nan"), float("nan")),
    ],
)
def test_what_counts_as_equal_has_one_key(one: object, other: object) -> None:
    assert make_key("n", (one,)) == make_key("n", (other,))


def test_readable_form() -> None:
    user = uuid.UUID(int=5)
    assert key_text(make_key("user", (7, "a", True, None, 1.5, user))) == f"user:7:a:True:None:1.5:{user}"
    assert key_text(make_key("user", ())) == "user"
    assert key_text(make_key("user", ("nul\x00inside",))) == "user:nul\x00inside"


def test_long_parts_keep_their_beginning() -> None:
    exact, longer = "가" * MAX_PART_CHARS, "가" * (MAX_PART_CHARS + 1)
    assert key_text(make_key("text", (exact,))) == f"text:{exact}"
    shortened = key_text(make_key("text", (longer,)))
    assert shortened.startswith("text:" + "가" * 20)
    assert len(shortened) < MAX_PART_CHARS


def test_a_str_enum_serves_as_name() -> None:
    assert make_key(Word.ONE, ("a",)) == make_key("1", ("a",))


class Opaque:
    pass


class TextLike(str):
    __slots__ = ()


def circle() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (Opaque(), "Opaque"),
        (TextLike("a"), "TextLike"),
        ([1, {"k": Opaque()}], "Opaque"),
        (Point(1, Opaque()), "Opaque"),
        (lambda: None, "function"),
        (circle(), f"deeper than {MAX_DEPTH}"),
        (bytearray(b"1"), "bytearray"),
    ],
)
def test_parts_without_stable_form_are_refused_by_name(part: object, reason: str) -> None:
    with pytest.raises(UnstableKeyError, match=rf"part 2 of 'user' .*{reason}"):
        make_key("user", (1, part))
    with pytest.raises(UnstableKeyError, match="argument 'client' of 'user'"):
        make_key("user", (part,), ("argument 'client'",))


def test_the_error_is_both_a_cache_error_and_a_type_error() -> None:
    assert issubclass(UnstableKeyError, CacheError)
    assert issubclass(UnstableKeyError, TypeError)
    not_text: Any = 7
    with pytest.raises(UnstableKeyError, match="name of a cache entry must be a str"):
        make_key(not_text, ())
