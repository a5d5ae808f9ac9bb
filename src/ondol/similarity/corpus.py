"""adapter: the sample corpus that ships with ondol: résumés and cover letters in Korean and English."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from ondol.similarity.records import NewDocument

__all__ = ["sample_documents"]

_FILE: Final = Path(__file__).with_name("sample_corpus.jsonl")


def sample_documents() -> list[NewDocument]:
    """Return the sample documents; their ids are fixed, so that storing them twice stores them once."""
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    return [_document(json.loads(line)) for line in lines if line.strip()]


def _document(fields: dict[str, str]) -> NewDocument:
    return NewDocument(
        id=fields["id"],
        title=fields["title"],
        text=fields["text"],
        metadata={"language": fields["language"], "kind": fields["kind"]},
    )
