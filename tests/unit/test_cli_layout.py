from __future__ import annotations

import doctest

import pytest

from ondol.cli import layout
from ondol.cli.layout import Column, clean, display_width, padded, plain_table, shorten, wrapped


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(layout)
    assert result.attempted >= 5
    assert result.failed == 0


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("", 0),
        ("ondol", 5),
        ("온돌 heats", 10),
        ("é", 1),
        ("e\u0301", 1),
        ("\u1112\u1161\u11ab", 2),  # 한 in conjoining letters
        ("a\u200bb", 2),
        ("ｆｕｌｌ", 8),
    ],
)
def test_width_counts_cells_not_characters(text: str, cells: int) -> None:
    assert display_width(text) == cells


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x07", "\x9b31m", "\u202egnp.exe", "\ud800"])
def test_clean_leaves_nothing_that_steers_a_terminal(hostile: str) -> None:
    cleaned = clean(f"before {hostile} after")
    assert "\ufffd" in cleaned
    assert hostile[0] not in cleaned
    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")


def test_clean_keeps_letters_and_emoji_and_joins_lines() -> None:
    assert clean("온돌\n\t은 👩\u200d🚀") == "온돌 은 👩\u200d🚀"


@pytest.mark.parametrize("text", ["온돌은 바닥을 데우는 난방이다", "a plain English sentence", "한", "mixed 한글 text"])
@pytest.mark.parametrize("cells", [2, 3, 7, 12, 80])
def test_shorten_fits_and_marks_the_cut(text: str, cells: int) -> None:
    short = shorten(text, cells)
    assert display_width(short) <= cells
    assert (short == text) is (display_width(text) <= cells)
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]))


@pytest.mark.parametrize(
    "text", ["온돌은 바닥을 데우는 난방이다", "averyveryverylongword and short ones", "한글" * 20, "  "]
)
@pytest.mark.parametrize("columns", [2, 5, 11, 40])
def test_wrapped_lines_fit_and_lose_no_letter(text: str, columns: int) -> None:
    lines = wrapped(text, columns)
    assert all(0 < display_width(line) <= columns for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_wrapping_into_less_than_a_syllable_ends() -> None:
    assert wrapped("한글", 1) == ["한", "글"]


def test_table_columns_stand_under_each_other_in_korean_too() -> None:
    rows = [["온돌", "1.5", "바닥 난방"], ["heater", "10.25", "x"]]
    lines = plain_table([Column("name"), Column("n", is_number=True), Column("what")], rows).splitlines()
    assert lines == [
        "name        n  what",
        "온돌      1.5  바닥 난방",
        "heater  10.25  x",
    ]


def test_table_without_rows_shows_its_titles() -> None:
    assert plain_table([Column("a"), Column("b")], []) == "a  b"


def test_table_refuses_rows_of_another_shape() -> None:
    with pytest.raises(ValueError, match="zip"):
        plain_table([Column("a"), Column("b")], [["1", "2", "3"]])


def test_padded_text_is_as_wide_as_asked() -> None:
    assert padded("온", 4) == "온  "
    assert padded("온", 4, is_right=True) == "  온"
    assert padded("longer", 3) == "longer"
