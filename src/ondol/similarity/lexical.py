"""decision: likeness of wording: words and Hangul-syllable bigrams, compared as multisets.

**Tokens.** A text is brought to NFKC and case-folded (full-width and upper-case forms become the same), then cut into
runs of one script: Hangul, Han, Kana, or letters and digits of any other script, each with its combining marks. Each
run is a token. A Hangul, Han or Kana run of three or more characters also gives its overlapping pairs of neighbours:
Korean words carry particles and endings, Chinese and Japanese put no spaces, and the pairs still meet where whole words
do not.

**Score.** Sørensen-Dice over the two multisets of tokens: twice what they share, over what they hold together.
1 means the same tokens equally often, 0 none in common.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["lexical_score", "lexical_scores", "tokens"]

_HANGUL: Final = "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb"
_KANA: Final = "\u3041-\u309f\u30a1-\u30ff"
_HAN: Final = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Marks that follow a letter and belong to it: Latin, Arabic, Hebrew, Indic, Thai, Lao.
_MARKS: Final = (
    "\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0670\u0900-\u0903\u093a-\u094f"
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd"
)
_RUN: Final = (
    f"([{_HANGUL}]+|[{_KANA}]+|[{_HAN}]+)|[^\\W_{_HANGUL}{_KANA}{_HAN}](?:[^\\W_{_HANGUL}{_KANA}{_HAN}]|[{_MARKS}])*"
)
_SHORTEST_PAIRED: Final = 3


def tokens(text: str) -> list[str]:
    """Return the tokens of ``text`` in order, each as often as it occurs.

    >>> tokens("Python을 쓰는 개발자")
    ['python', '을', '쓰는', '개발자', '개발', '발자']

    Cost: O(characters).
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    found: list[str] = []
    for match in _run_pattern().finditer(folded):
        run = match.group()
        found.append(run)
        if match.group(1) and len(run) >= _SHORTEST_PAIRED:
            found.extend(run[start : start + 2] for start in range(len(run) - 1))
    return found


@cache
def _run_pattern() -> re.Pattern[str]:
    # Compiled on first use: it takes milliseconds that a process start need not pay.
    return re.compile(_RUN)


def lexical_score(a: str, b: str) -> float:
    """Return how alike the wording of two texts is, from 0 to 1 (see the module's text for the formula).

    Texts without any token (only punctuation, say) are alike when they are the same string.

    >>> lexical_score("A quick test", "a QUICK test!"), lexical_score("quick test", "slow test")
    (1.0, 0.5)

    Cost: O(characters of both).
    """
    return lexical_scores(a, [b])[0]


def lexical_scores(a: str, texts: Sequence[str]) -> list[float]:
    """Return :func:`lexical_score` of ``a`` with each of ``texts``; ``a`` is cut into tokens once.

    Cost: O(characters of all).
    """
    counts_a = Counter(tokens(a))
    scores = []
    for text in texts:
        counts = Counter(tokens(text))
        held = counts_a.total() + counts.total()
        shared = (counts_a & counts).total()
        scores.append(2 * shared / held if held else float(a.strip() == text.strip()))
    return scores
