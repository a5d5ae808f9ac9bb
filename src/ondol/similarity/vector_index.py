"""decision: all vectors of one model in one matrix, and the exact nearest of them to a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["DenseHit", "VectorIndex", "VectorRows"]

_FIRST_ROWS: Final = 256
_FIRST_FACTOR: Final = 4


class VectorRows(NamedTuple):
    """Vectors as the store hands them out, ascending by ``vector_ids``."""

    vector_ids: npt.NDArray[np.int64]
    chunk_ids: npt.NDArray[np.int64]
    document_keys: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]


class DenseHit(NamedTuple):
    """A document's nearest chunk."""

    chunk_id: int
    document_key: int
    cosine: float


class VectorIndex:
    """The vectors of one model, ``(n, d) float32``, every row of length 1.

    Not thread-safe: used in the store's thread only.
    """

    def __init__(self, dimension: int) -> None:
        """Begin empty."""
        self.dimension = dimension
        self.last_vector_id = 0
        self._count = 0
        self._ids = np.empty((3, 0), dtype=np.int64)
        self._vectors = np.empty((0, dimension), dtype=np.float32)

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes the matrix takes."""
        return self._vectors.nbytes + self._ids.nbytes

    def append(self, rows: VectorRows) -> None:
        """Add ``rows``, whose vector ids are all higher than those added before.

        Cost: O(rows), amortised.
        """
        added = len(rows.vector_ids)
        if not added:
            return
        end = self._count + added
        self._reserve(end)
        self._ids[:, self._count : end] = (rows.vector_ids, rows.chunk_ids, rows.document_keys)
        self._vectors[self._count : end] = rows.vectors
        self._count = end
        self.last_vector_id = int(rows.vector_ids[-1])

    def keep(self, live_vector_ids: npt.NDArray[np.int64]) -> None:
        """Drop every row whose vector id is not among ``live_vector_ids``.

        Cost: O(n log n).
        """
        is_live = np.isin(self._ids[0, : self._count], live_vector_ids)
        self._ids = self._ids[:, : self._count][:, is_live]
        self._vectors = self._vectors[: self._count][is_live]
        self._count = len(self._vectors)

    def cosines(self, query: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the cosine of ``query`` (length 1) with every row."""
        products: npt.NDArray[np.float32] = self._vectors[: self._count] @ query
        return products.clip(-1.0, 1.0)

    def best_documents(self, cosines: npt.NDArray[np.float32], limit: int) -> list[DenseHit]:
        """Return the ``limit`` documents with the nearest chunk, nearest first, each with that chunk.

        Cost: O(n), unless a few documents own most of the nearest chunks; then at most O(n log n).
        """
        taken = min(self._count, max(1, limit) * _FIRST_FACTOR)
        while taken:
            nearest = self._nearest(cosines, taken)
            keys = self._ids[2, nearest]
            first = np.sort(np.unique(keys, return_index=True)[1])[:limit]
            if len(first) >= limit or taken == self._count:
                return [self._hit(int(row), cosines) for row in nearest[first]]
            taken = min(self._count, taken * _FIRST_FACTOR)
        return []

    def cosines_of(self, chunk_ids: list[int], cosines: npt.NDArray[np.float32]) -> dict[int, float]:
        """Return the cosine of each of ``chunk_ids`` that has a row."""
        rows = np.flatnonzero(np.isin(self._ids[1, : self._count], np.asarray(chunk_ids, dtype=np.int64)))
        return {int(self._ids[1, row]): float(cosines[row]) for row in rows}

    def _nearest(self, cosines: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
        if count < self._count:
            rows = np.argpartition(cosines, self._count - count)[self._count - count :]
        else:
            rows = np.arange(self._count)
        # Equal cosines: the older chunk first, so that the same search gives the same order.
        return rows[np.lexsort((self._ids[1, rows], -cosines[rows]))]

    def _hit(self, row: int, cosines: npt.NDArray[np.float32]) -> DenseHit:
        return DenseHit(int(self._ids[1, row]), int(self._ids[2, row]), float(cosines[row]))

    def _reserve(self, count: int) -> None:
        if count <= len(self._vectors):
            return
        capacity = max(count, _FIRST_ROWS, len(self._vectors) + len(self._vectors) // 2)
        ids = np.empty((3, capacity), dtype=np.int64)
        vectors = np.empty((capacity, self.dimension), dtype=np.float32)
        ids[:, : self._count] = self._ids[:, : self._count]
        vectors[: self._count] = self._vectors[: self._count]
        self._ids, self._vectors = ids, vectors
