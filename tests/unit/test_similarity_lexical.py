from __future__ import annotations

import pytest

from ondol.similarity.lexical import lexical_score, lexical_scores, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("이력서", ["이력서", "이력", "력서"]),
        ("이력", ["이력"]),
        ("Python을 3년", ["python", "을", "3", "년"]),
        ("ＡＢＣ ﬁne", ["abc", "fine"]),
        ("snake_case", ["snake", "case"]),
        ("日本語テスト", ["日本語", "日本", "本語", "テスト", "テス", "スト"]),
        ("Straße CAFE\u0301", ["strasse", "café"]),
        ("... !? _ 🙂", []),
        ("", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_the_score_is_dice_over_multisets() -> None:
    # a: x x y; b: x y z -> shared x, y = 2; held 3 + 3
    assert lexical_score("x x y", "x y z") == pytest.approx(2 * 2 / 6)


def test_particles_cost_part_of_the_score_only() -> None:
    inflected = lexical_score("개발자가 회사를 찾습니다", "개발자는 회사에서 찾았습니다")
    assert 0.2 < inflected < 1.0
    assert lexical_score("개발자가", "요리사는") == 0.0


def test_texts_without_tokens_are_alike_when_they_are_the_same() -> None:
    assert lexical_score("!!!", " !!! ") == 1.0
    assert lexical_score("!!!", "???") == 0.0
    assert lexical_score("!!!", "word") == 0.0


def test_many_texts_are_scored_in_their_order() -> None:
    assert lexical_scores("a b", ["a b", "c", "a c"]) == [1.0, 0.0, 0.5]
