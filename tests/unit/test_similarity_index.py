from __future__ import annotations

import numpy as np

from ondol.similarity.scoring import unit_rows
from ondol.similarity.vector_index import DenseHit, VectorIndex, VectorRows


def rows(first_id: int, documents: list[int], vectors: list[list[float]]) -> VectorRows:
    ids = np.arange(first_id, first_id + len(documents))
    return VectorRows(ids, ids + 100, np.array(documents), unit_rows(np.array(vectors, dtype=np.float32)))


def test_an_empty_index_finds_nothing() -> None:
    index = VectorIndex(2)
    query = np.array([1.0, 0.0], dtype=np.float32)
    assert index.best_documents(index.cosines(query), 5) == []
    assert index.cosines_of([1], index.cosines(query)) == {}


def test_each_document_comes_once_with_its_nearest_chunk() -> None:
    index = VectorIndex(2)
    index.append(rows(1, [1, 1, 2], [[1, 0], [0.9, 0.1], [0, 1]]))
    cosines = index.cosines(np.array([1.0, 0.0], dtype=np.float32))
    assert index.best_documents(cosines, 5) == [DenseHit(101, 1, 1.0), DenseHit(103, 2, 0.0)]
    assert index.best_documents(cosines, 1) == [DenseHit(101, 1, 1.0)]


def test_a_document_with_many_near_chunks_hides_no_other() -> None:
    index = VectorIndex(2)
    index.append(rows(1, [1] * 1000, [[1.0, 0.001 * number] for number in range(1000)]))
    index.append(rows(1001, [2], [[0.0, 1.0]]))
    hits = index.best_documents(index.cosines(np.array([1.0, 0.0], dtype=np.float32)), 2)
    assert [hit.document_key for hit in hits] == [1, 2]


def test_removed_vectors_go_and_later_ones_are_added() -> None:
    index = VectorIndex(2)
    index.append(rows(1, [1, 2, 3], [[1, 0], [0, 1], [1, 1]]))
    index.keep(np.array([1, 3]))
    assert len(index) == 2
    index.append(rows(4, [4], [[0, 1]]))
    assert index.last_vector_id == 4
    cosines = index.cosines(np.array([0.0, 1.0], dtype=np.float32))
    assert [hit.document_key for hit in index.best_documents(cosines, 3)] == [4, 3, 1]
    assert set(index.cosines_of([101, 102, 104], cosines)) == {101, 104}


def test_growing_keeps_every_row() -> None:
    index = VectorIndex(2)
    for number in range(1, 600):
        index.append(rows(number, [number], [[1.0, number]]))
    assert len(index) == 599
    cosines = index.cosines(np.array([1.0, 0.0], dtype=np.float32))
    assert [hit.document_key for hit in index.best_documents(cosines, 599)] == list(range(1, 600))
    assert index.nbytes > 0
