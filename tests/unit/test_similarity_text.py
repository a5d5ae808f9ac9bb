from __future__ import annotations

import pytest

from ondol.errors import InvalidTextError
from ondol.similarity.text import check_document_id, check_label, check_metadata, check_text, is_analysable, is_visible


def test_a_text_comes_back_in_normal_form_c() -> None:
    decomposed = "\u1112\u1161\u11ab\u1100\u1173\u11af"
    assert check_text(decomposed, field="text", max_chars=2) == "한글"


@pytest.mark.parametrize(
    "blank",
    ["", " ", "\n\t\u3000", "\u200b\u200d\ufeff", "\u3164", "\u115f\u1160\uffa0", "\u2800", "\ufe0f", "\u0301", "\x01"],
)
def test_what_shows_nothing_is_refused(blank: str) -> None:
    with pytest.raises(InvalidTextError, match=r"texts\[3\] is (blank|empty)") as caught:
        check_text(blank, field="texts[3]", max_chars=10)
    assert caught.value.field == "texts[3]"
    assert not is_analysable(blank)


@pytest.mark.parametrize("visible", ["a", "가", "!", "🙂", " x ", "ส", "½", "\ue000"])
def test_what_shows_something_is_taken(visible: str) -> None:
    assert check_text(visible, field="text", max_chars=10) == visible
    assert is_analysable(visible)


@pytest.mark.parametrize("value", [None, 3, 2.5, b"bytes", ["a"], {"a": 1}, True])
def test_what_is_no_string_is_refused(value: object) -> None:
    with pytest.raises(InvalidTextError, match=f"text must be a string, not {type(value).__name__}"):
        check_text(value, field="text", max_chars=10)
    assert not is_analysable(value)


def test_a_long_text_is_refused_with_both_figures() -> None:
    assert check_text("x" * 10, field="text", max_chars=10) == "x" * 10
    with pytest.raises(InvalidTextError, match="text has 11 characters; at most 10 are allowed") as caught:
        check_text("x" * 11, field="text", max_chars=10)
    assert caught.value.limit == 10
    with pytest.raises(InvalidTextError, match="has 5000 characters"):
        check_text("x" * 5000, field="text", max_chars=10)


@pytest.mark.parametrize(("bad", "named"), [("a\x00b", "NUL"), ("ab\ud800", "U\\+D800"), ("\udfff", "U\\+DFFF")])
def test_nul_and_lone_surrogates_are_refused_by_name(bad: str, named: str) -> None:
    with pytest.raises(InvalidTextError, match=named):
        check_text(bad, field="text", max_chars=10)
    with pytest.raises(InvalidTextError, match=named):
        check_label(bad, field="title")
    assert not is_analysable(bad)


@pytest.mark.parametrize("marks", ["\u0301", "\u0301\u0327", "\U0001e94a"])
def test_marks_without_end_on_one_character_are_refused_before_they_are_sorted(marks: str) -> None:
    # Sorting this many takes hours: the test ends because it is not tried.
    for check in (check_text, check_label):
        with pytest.raises(InvalidTextError, match="more than 30 combining marks in a row at position 1") as caught:
            check("a" + marks * 2_000_000, field="text", max_chars=10_000_000)
        assert caught.value.limit == 30
    assert check_text("a" + "\u0301" * 30, field="text", max_chars=100) == "\u00e1" + "\u0301" * 29
    assert check_text("…" * 100, field="text", max_chars=100) == "…" * 100


def test_what_shows_nothing_is_looked_at_once_a_character(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []

    def counted(character: str) -> bool:
        looked_at.append(character)
        return is_visible(character)

    monkeypatch.setattr("ondol.similarity.text.is_visible", counted)
    assert check_text("\u200b " * 100_000 + "a", field="text", max_chars=1_000_000).endswith("a")
    assert len(looked_at) < 100


@pytest.mark.parametrize("good", ["a", "...", ".a", "A.b_c:d-9", "x" * 128])
def test_ids_that_are_allowed(good: str) -> None:
    assert check_document_id(good) == good


@pytest.mark.parametrize("bad", ["", ".", "..", "a b", "가", "a/b", "x" * 129, "a\n", None, 7])
def test_ids_that_are_not(bad: object) -> None:
    with pytest.raises(InvalidTextError, match=r"id .* allowed are 1 to 128 characters") as caught:
        check_document_id(bad)
    assert caught.value.limit == 128


def test_labels_may_be_empty_but_not_long() -> None:
    assert not check_label("", field="title")
    with pytest.raises(InvalidTextError, match="title has 501 characters"):
        check_label("x" * 501, field="title")


def test_metadata_is_checked_key_by_key() -> None:
    assert check_metadata({"언어": "ko"}) == {"언어": "ko"}
    with pytest.raises(InvalidTextError, match=r"metadata\.a has 1001 characters"):
        check_metadata({"a": "x" * 1001})
    with pytest.raises(InvalidTextError, match="metadata key holds the lone surrogate"):
        check_metadata({"\ud800": "x"})
    with pytest.raises(InvalidTextError, match="33 entries; at most 32"):
        check_metadata({str(number): "" for number in range(33)})
