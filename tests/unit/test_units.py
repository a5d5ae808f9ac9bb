"""Percentages print as the guide shows and compare as numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.units import Percent, format_bytes, format_seconds, parse_bool


@given(st.floats(0, 100), st.floats(0, 100))
def test_comparison_with_a_percent_string_is_comparison_of_numbers(left: float, right: float) -> None:
    text = f"{right!r}%" if "e" not in repr(right) else f"{right:.20f}%"
    value = float(text.rstrip("%"))
    assert (Percent(left) < text) is (left < value)
    assert (Percent(left) <= text) is (left <= value)
    assert (Percent(left) > text) is (left > value)
    assert (Percent(left) >= text) is (left >= value)
    assert (Percent(left) == text) is (left == value)
    assert (Percent(left) != text) is (left != value)


def test_prints_one_decimal_and_the_sign() -> None:
    assert f"{Percent(83.21)}" == str(Percent(83.21)) == "83.2%"
    assert f"{Percent(83.21):.2f}" == "83.21"
    assert repr(Percent(5.0)) == "Percent(5.0)"


def test_compares_as_strings_never() -> None:
    assert Percent(9.5) < "80%"
    assert Percent(100.0) > "80%"
    assert "80%" > Percent(9.5)  # noqa: SIM300  # the reflected comparison is what is tested
    assert sorted([Percent(100), Percent(9.5), Percent(80)]) == [9.5, 80, 100]


def test_a_string_that_is_no_percentage_has_no_order_and_is_not_equal() -> None:
    assert Percent(1) != "many"
    assert not Percent(1) == None  # noqa: E711, SIM201  # the operator is what is tested
    with pytest.raises(TypeError):
        assert Percent(1) < "many"


def test_share_of_nothing_is_zero() -> None:
    assert Percent.of(0, 0) == 0
    assert Percent.of(1, 3) == pytest.approx(33.333, abs=1e-3)
    assert hash(Percent(50)) == hash(50.0)


@pytest.mark.parametrize(("text", "value"), [("YES", True), ("1", True), (" on ", True), ("No", False), ("0", False)])
def test_booleans_in_any_case(text: str, value: bool) -> None:
    assert parse_bool(text) is value


@pytest.mark.parametrize("text", ["", "2", "ja", "truee"])
def test_other_words_are_no_booleans(text: str) -> None:
    assert parse_bool(text) is None


def test_sizes_and_durations_for_people() -> None:
    assert format_bytes(1536) == "1.5 KiB"
    assert format_bytes(3 * 1024**4) == "3.0 TiB"
    assert format_seconds(3725) == "1 h 2 min"
    assert format_seconds(float("inf")) == "inf"
