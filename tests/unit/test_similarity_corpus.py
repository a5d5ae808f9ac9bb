"""The sample corpus that `ondol demo` loads: complete, bilingual, with something to find in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import ondol

CORPUS = Path(ondol.__file__).parent / "similarity" / "sample_corpus.jsonl"
DOCUMENTS = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
BY_ID = {document["id"]: document for document in DOCUMENTS}


def hangul_share(text: str) -> float:
    letters = [character for character in text if character.isalpha()]
    return sum("가" <= character <= "힣" for character in letters) / len(letters)


def sentences(text: str) -> set[str]:
    return {sentence.strip() for sentence in re.split(r"(?<=[.!?])\s+", text) if len(sentence.strip()) > 20}


def test_there_are_enough_documents_with_ids_and_texts_of_their_own() -> None:
    assert len(DOCUMENTS) >= 40
    assert len(BY_ID) == len(DOCUMENTS)
    assert len({document["text"] for document in DOCUMENTS}) == len(DOCUMENTS)
    assert len({document["title"] for document in DOCUMENTS}) == len(DOCUMENTS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=list(BY_ID))
def test_each_document_is_well_formed(document: dict[str, str]) -> None:
    assert set(document) == {"id", "title", "language", "kind", "text"}
    assert document["kind"] in {"resume", "cover_letter"}
    assert 500 <= len(document["text"]) <= 1500
    assert document["text"] == document["text"].strip()
    assert document["title"]
    assert not re.search(r"lorem|todo|xxx|\{|\}|<|홍길동|john doe", document["text"], re.IGNORECASE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=list(BY_ID))
def test_each_document_is_written_in_the_language_it_names(document: dict[str, str]) -> None:
    share = hangul_share(document["text"])
    assert share > 0.75 if document["language"] == "ko" else share < 0.02


def test_half_of_the_documents_are_korean() -> None:
    korean = sum(hangul_share(document["text"]) > 0.5 for document in DOCUMENTS)
    assert korean * 2 == len(DOCUMENTS)


def test_each_document_has_its_counterpart_in_the_other_language() -> None:
    for document in DOCUMENTS:
        language, _, key = document["id"].partition("-")
        counterpart = BY_ID[f"{'en' if language == 'ko' else 'ko'}-{key}"]
        assert language == document["language"]
        assert counterpart["kind"] == document["kind"]
        assert counterpart["language"] != document["language"]


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("key", ["barista", "data-scientist"])
def test_a_borrowed_letter_repeats_at_least_two_sentences_and_is_otherwise_another(key: str, language: str) -> None:
    source = sentences(BY_ID[f"{language}-{key}"]["text"])
    borrowed = sentences(BY_ID[f"{language}-{key}-borrowed"]["text"])
    assert len(source & borrowed) >= 2
    assert len(source & borrowed) <= len(borrowed) / 2


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_paraphrase_repeats_no_sentence(language: str) -> None:
    source = sentences(BY_ID[f"{language}-nurse"]["text"])
    assert not source & sentences(BY_ID[f"{language}-nurse-paraphrase"]["text"])
