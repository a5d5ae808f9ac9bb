from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.errors import InvalidTextError
from ondol.similarity.chunks import split_chunks
from ondol.similarity.lexical import lexical_score, tokens
from ondol.similarity.scoring import unit_rows
from ondol.similarity.text import check_text, is_visible
from ondol.similarity.vector_index import VectorIndex, VectorRows

anything = st.text(max_size=200)
writing = st.text(alphabet="ab 가나다.!?。\n\t\u0301\u200b漢カ🙂\"'", max_size=300)


@given(anything | writing)
@settings(max_examples=150)
def test_checked_texts_are_stable_and_storable(text: str) -> None:
    try:
        checked = check_text(text, field="text", max_chars=150)
    except InvalidTextError:
        return
    assert check_text(checked, field="text", max_chars=150) == checked
    assert 0 < len(checked) <= 150
    checked.encode()


@given(writing, st.integers(min_value=1, max_value=60))
@settings(max_examples=200)
def test_chunks_hold_every_visible_character_once_and_are_never_too_long(text: str, max_chars: int) -> None:
    chunks = split_chunks(text, max_chars)
    covered = [position for chunk in chunks for position in range(chunk.start, chunk.end)]
    assert covered == sorted(set(covered))
    visible = {position for position, character in enumerate(text) if is_visible(character)}
    assert visible <= set(covered)
    assert all(1 <= chunk.end - chunk.start <= max_chars for chunk in chunks)
    assert all(any(map(is_visible, text[chunk.start : chunk.end])) for chunk in chunks)


@given(anything | writing)
@settings(max_examples=150)
def test_tokens_hold_nothing_the_word_index_would_split(text: str) -> None:
    for token in tokens(text):
        assert token
        assert all(character.isalnum() or ord(character) > 127 for character in token)


@given(writing, writing)
@settings(max_examples=150)
def test_the_lexical_score_is_symmetric_bounded_and_one_for_the_same(a: str, b: str) -> None:
    score = lexical_score(a, b)
    assert 0.0 <= score <= 1.0
    assert score == lexical_score(b, a)
    assert lexical_score(a, a) == 1.0


@given(st.data())
@settings(max_examples=60)
def test_the_index_finds_what_a_full_sort_finds(data: st.DataObject) -> None:
    count = data.draw(st.integers(min_value=1, max_value=40))
    documents = data.draw(st.lists(st.integers(1, 8), min_size=count, max_size=count))
    numbers = np.random.default_rng(data.draw(st.integers(0, 1000))).normal(size=(count + 1, 4))
    vectors = unit_rows(numbers.astype(np.float32))
    ids = np.arange(1, count + 1)
    index = VectorIndex(4)
    index.append(VectorRows(ids, ids, np.array(documents), vectors[1:]))
    live = ids[np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))]
    index.keep(live)
    limit = data.draw(st.integers(1, 10))

    best: dict[int, float] = {}
    for vector_id in live:
        cosine = float(vectors[vector_id] @ vectors[0])
        document = documents[vector_id - 1]
        best[document] = max(cosine, best.get(document, -2.0))
    expected = sorted(best.values(), reverse=True)[:limit]
    found = [hit.cosine for hit in index.best_documents(index.cosines(vectors[0]), limit)]
    assert found == pytest.approx(expected, abs=1e-5)
