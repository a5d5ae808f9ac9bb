from __future__ import annotations

import numpy as np
import pytest

from ondol.similarity.scoring import (
    Candidate,
    cosines,
    fixed_normalised,
    hybrid,
    inverse_document_frequency,
    rank_documents,
    unit_rows,
    wording_reference,
    wording_share,
)


def test_rows_get_the_length_one_and_zeros_stay() -> None:
    rows = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32))
    assert rows.dtype == np.float32
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]


@pytest.mark.parametrize("bad", [[[np.nan, 1.0]], [[np.inf, 1.0]], [1.0, 2.0]])
def test_vectors_that_are_none_are_refused(bad: list[object]) -> None:
    with pytest.raises(ValueError, match=r"not finite|shape"):
        unit_rows(np.array(bad, dtype=np.float32))


def test_cosines_are_bounded_and_defined_for_zero_vectors() -> None:
    rows = np.array([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], dtype=np.float32)
    expected = [1.0, 0.0, -1.0, 0.0, pytest.approx(0.5**0.5)]
    assert cosines(np.array([1.0, 0.0], dtype=np.float32), rows) == expected


def test_the_floor_is_nothing_and_one_is_all() -> None:
    assert [fixed_normalised(value, 0.8) for value in (-1.0, 0.8, 0.9, 1.0)] == [0.0, 0.0, pytest.approx(0.5), 1.0]


def test_rare_words_weigh_more_and_none_is_worthless() -> None:
    assert inverse_document_frequency(1, 100) > inverse_document_frequency(10, 100) > 0
    assert inverse_document_frequency(100, 100) == 1e-6


def test_wording_is_a_share_of_what_a_fitting_passage_gets() -> None:
    reference = wording_reference([1, 2], 100)
    assert reference == inverse_document_frequency(1, 100) + inverse_document_frequency(2, 100)
    assert [wording_share(value, reference) for value in (0.0, reference / 2, 3 * reference)] == [0.0, 0.5, 1.0]
    assert wording_share(1.0, 0.0) == 0.0


def test_the_hybrid_score_is_the_weighted_sum() -> None:
    assert hybrid(0.5, 1.0, weight=0.5) == 0.75


def test_each_document_is_ranked_by_its_best_passage() -> None:
    ranked = rank_documents(
        [
            Candidate(1, 10, 0.2, 0.0),
            Candidate(2, 10, 0.9, 0.0),
            Candidate(3, 20, 0.5, 8.0),
            Candidate(4, 30, 0.5, 0.0),
            Candidate(5, 40, 0.5, 0.0),
        ],
        floor=0.0,
        reference=4.0,
        limit=3,
    )
    assert [(each.document_key, each.chunk_id) for each in ranked] == [(20, 3), (10, 2), (30, 4)]
    assert ranked[0].score == pytest.approx(0.7 * 0.5 + 0.3)
    assert ranked[0].lexical == 1.0


def test_below_the_floor_the_nearer_in_meaning_still_comes_first() -> None:
    candidates = [Candidate(1, 10, 0.1, 0.0), Candidate(2, 20, 0.3, 0.0), Candidate(3, 10, 0.2, 0.0)]
    ranked = rank_documents(candidates, floor=0.8, reference=1.0, limit=3)
    assert [(each.document_key, each.chunk_id, each.score) for each in ranked] == [(20, 2, 0.0), (10, 3, 0.0)]
