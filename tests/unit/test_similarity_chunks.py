from __future__ import annotations

from ondol.similarity.chunks import MAX_CHUNK_CHARS, split_chunks


def parts(text: str, max_chars: int) -> list[str]:
    return [text[chunk.start : chunk.end] for chunk in split_chunks(text, max_chars)]


def test_a_short_text_is_one_chunk_without_the_space_around_it() -> None:
    assert parts("  One sentence. ", 100) == ["One sentence."]


def test_cuts_are_made_between_sentences() -> None:
    text = "First one here. Second one here! Third one here? 네 번째 문장이다. 다섯 번째."
    assert parts(text, 33) == ["First one here. Second one here!", "Third one here? 네 번째 문장이다.", "다섯 번째."]


def test_a_full_paragraph_is_not_joined_with_the_next() -> None:
    text = "A paragraph of some length.\n\nAnother paragraph."
    assert parts(text, 60) == ["A paragraph of some length.", "Another paragraph."]


def test_tiny_paragraphs_are_joined() -> None:
    assert parts("One\n\nTwo\n\nThree", 60) == ["One\n\nTwo\n\nThree"]


def test_cjk_stops_need_no_space() -> None:
    assert parts("これは文です。次の文です。", 8) == ["これは文です。", "次の文です。"]


def test_a_sentence_that_is_too_long_is_cut_at_a_space() -> None:
    assert parts("alpha beta gamma delta", 12) == ["alpha beta", "gamma delta"]


def test_a_word_that_is_too_long_is_cut_but_not_its_characters() -> None:
    assert parts("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    accented = "e\u0301" * 10
    assert all(not part.startswith("\u0301") for part in parts(accented, 7))
    assert "".join(parts(accented, 7)) == accented


def test_abbreviations_inside_a_sentence_with_decimals_stay_whole() -> None:
    assert parts("Version 3.11 is fine.", 21) == ["Version 3.11 is fine."]


def test_what_shows_nothing_makes_no_chunk() -> None:
    assert parts("\u200b" * 50 + "\n\n" + "word", 20) == ["word"]


def test_hostile_punctuation_takes_linear_time() -> None:
    for hostile in ("." * 200_000, '."' * 100_000, "\n" * 100_000 + "x", "!\n \n" * 50_000 + "x"):
        assert all(chunk.end - chunk.start <= MAX_CHUNK_CHARS for chunk in split_chunks(hostile))
