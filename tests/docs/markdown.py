"""Reads what the document tests need out of a Markdown file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Block", "blocks", "headings", "links"]

FENCE = re.compile(
    r"(?P<before>(?:<!--[^\n]*-->\n)?)^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its code, the comment before it."""

    language: str
    code: str
    note: str
    line: int


def blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of ``path`` in order."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(m["language"], m["code"], m["before"].strip(), text.count("\n", 0, m.start("language")) + 1)
        for m in FENCE.finditer(text)
    ]


def headings(path: Path) -> list[tuple[int, str]]:
    """Return level and text of each heading outside fenced blocks."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return [(len(m[1]), m[2].strip()) for m in re.finditer(r"^(#+) (.+)$", text, re.MULTILINE)]


def links(path: Path) -> list[str]:
    """Return the targets of links and images that point into the repository."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target.split("#")[0] for target in targets if not target.startswith(("http:", "https:", "#", "mailto:"))]
