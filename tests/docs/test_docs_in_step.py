"""The English and the Korean documents say the same things, and no link leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.markdown import blocks, headings, links

ROOT = Path(__file__).resolve().parents[2]
PAIRS = [
    ("README.md", "README.ko.md"),
    ("HYBRID_LOADING_GUIDE.md", "HYBRID_LOADING_GUIDE.ko.md"),
    ("docs/performance_monitoring.md", "docs/performance_monitoring.ko.md"),
    ("docs/caching_strategy.md", "docs/caching_strategy.ko.md"),
    ("docs/api_reference.md", "docs/api_reference.ko.md"),
    ("docs/en/glossary.md", "docs/ko/glossary.md"),
    ("docs/en/preloading.md", "docs/ko/preloading.md"),
]
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", "node_modules", ".pytest_cache"} & set(path.relative_to(ROOT).parts)
)


def without_comments(code: str) -> str:
    return "\n".join(
        line.rstrip() for line in re.sub(r"(^|\s)#.*", "", code, flags=re.MULTILINE).splitlines() if line.strip()
    )


@pytest.mark.parametrize(("english", "korean"), PAIRS)
def test_the_two_languages_are_in_step(english: str, korean: str) -> None:
    en, ko = ROOT / english, ROOT / korean
    assert [level for level, _ in headings(en)] == [level for level, _ in headings(ko)]
    assert [block.language for block in blocks(en)] == [block.language for block in blocks(ko)]
    for left, right in zip(blocks(en), blocks(ko), strict=True):
        assert without_comments(left.code) == without_comments(right.code), f"line {left.line} / {right.line}"


@pytest.mark.parametrize("korean", [pair[1] for pair in PAIRS])
def test_the_korean_document_is_in_korean(korean: str) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`|\(http[^)]*\)", "", (ROOT / korean).read_text(encoding="utf-8"), flags=re.DOTALL)
    letters = re.findall(r"[A-Za-z가-힣]", prose)
    assert sum("가" <= letter <= "힣" for letter in letters) > 0.5 * len(letters)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    missing = [target for target in links(document) if not (document.parent / target).exists()]
    assert not missing
