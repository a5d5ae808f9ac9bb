from __future__ import annotations

import pytest

from ondol.preload.usage import UsageBook


def test_rate_halves_with_each_half_life_and_the_count_stays() -> None:
    book = UsageBook(half_life_s=100.0)
    for _ in range(8):
        book.record("m", 0.0, wall_s=5.0)
    assert book.rate("m", 300.0) == pytest.approx(1.0)
    assert book.count("m") == 8
    assert book.rows() == {"m": {"count": 8, "last_used_at": 5.0}}


def test_lately_used_outranks_much_used_long_ago() -> None:
    book = UsageBook(half_life_s=100.0)
    for _ in range(50):
        book.record("old", 0.0, wall_s=0.0)
    book.record("new", 1000.0, wall_s=0.0)
    assert book.rate("new", 1000.0) > book.rate("old", 1000.0)


def test_never_used_is_zero_and_a_clock_that_began_anew_decays_nothing() -> None:
    book = UsageBook()
    assert (book.rate("m", 9.0), book.count("m")) == (0.0, 0)
    book.record("m", 1000.0, wall_s=0.0)
    assert book.rate("m", 1.0) == 1.0


def test_names_are_bounded_the_one_not_used_for_longest_is_forgotten() -> None:
    book = UsageBook(max_names=2)
    for name in ("a", "b", "a", "c"):
        book.record(name, 0.0, wall_s=0.0)
    assert set(book.rows()) == {"a", "c"}
