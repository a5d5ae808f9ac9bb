"""adapter: the models in use, the vectors of the passages, and which passages still wait for theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    import numpy.typing as npt

    from ondol.similarity.sqlite_file import SqliteFile
    from ondol.similarity.vector_index import VectorRows

__all__ = ["PendingChunk", "VectorTable"]

_VECTORS_PER_READ: Final = 4096


class PendingChunk(NamedTuple):
    """A passage that has no vector yet."""

    chunk_id: int
    text: str


class VectorTable:
    """The part of the store that knows of models.

    Thread-safety: none; used in the store's thread only.
    """

    def __init__(self, file: SqliteFile) -> None:
        """Work on ``file``."""
        self._file = file

    def use_model(self, name: str, dimension: int) -> None:
        """Let ``name`` be a model in use: passages without its vector are pending from now on.

        Vectors of another dimension, made by another version of the model, are dropped.
        """
        if self._is_used(name, dimension):
            return
        with self._file.transaction(is_durable=False):
            if self._is_used(name, dimension):
                return
            self._file.execute("INSERT OR IGNORE INTO models (name, dimension) VALUES (?, ?)", name, dimension)
            self._file.execute("UPDATE models SET dimension = ? WHERE name = ?", dimension, name)
            model_id = self._model_id(name)
            self._file.execute("DELETE FROM vectors WHERE model_id = ?", model_id)
            self._file.execute(
                "INSERT OR IGNORE INTO pending (model_id, chunk_id, is_wanted) SELECT ?, chunk_id, 0 FROM chunks",
                model_id,
            )

    def pending(self, model: str, limit: int, last_chunk_id: int) -> list[PendingChunk]:
        """Return up to ``limit`` passages, none newer than ``last_chunk_id``, that have no vector of ``model``."""
        rows = self._file.execute(
            "SELECT p.chunk_id, substr(d.text, c.start_char + 1, c.end_char - c.start_char)"
            " FROM pending p JOIN chunks c USING (chunk_id) JOIN documents d USING (document_key)"
            " WHERE p.model_id = ? AND p.chunk_id <= ? ORDER BY p.chunk_id LIMIT ?",
            *(self._model_id(model), last_chunk_id, limit),
        )
        return [PendingChunk(chunk_id, text) for chunk_id, text in rows]

    def count_pending(self, model: str, last_chunk_id: int) -> int:
        """Return how many passages, none newer than ``last_chunk_id``, have no vector of ``model``."""
        query = "SELECT count(*) FROM pending WHERE model_id = ? AND chunk_id <= ?"
        return int(self._file.execute(query, self._model_id(model), last_chunk_id).fetchone()[0])

    def wanted_models(self) -> list[str]:
        """Return the models for which documents were added whose vectors are not all there."""
        rows = self._file.execute(
            "SELECT name FROM models m WHERE EXISTS"
            " (SELECT 1 FROM pending p WHERE p.model_id = m.model_id AND p.is_wanted) ORDER BY name"
        )
        return [name for (name,) in rows]

    def put_vectors(self, model: str, vectors: Iterable[tuple[int, npt.NDArray[np.float32]]]) -> None:
        """Store vectors by passage in one transaction; those that are no longer pending are left out."""
        with self._file.transaction(is_durable=False):
            model_id = self._model_id(model)
            for chunk_id, vector in vectors:
                self._file.execute(
                    "INSERT INTO vectors (chunk_id, model_id, vector)"
                    " SELECT chunk_id, model_id, ? FROM pending WHERE model_id = ? AND chunk_id = ?",
                    *(vector.astype("<f4").tobytes(), model_id, chunk_id),
                )
                self._file.execute("DELETE FROM pending WHERE model_id = ? AND chunk_id = ?", model_id, chunk_id)

    def count_removals(self, model: str) -> int:
        """Return how many vectors of ``model`` have ever been removed."""
        row = self._file.execute("SELECT removals FROM models WHERE name = ?", model).fetchone()
        return int(row[0]) if row is not None else 0

    def live_vector_ids(self, model: str) -> npt.NDArray[np.int64]:
        """Return the numbers of all vectors of ``model``, ascending."""
        import numpy as np  # noqa: PLC0415  # needed for the first search, not to open a store

        query = "SELECT vector_id FROM vectors WHERE model_id = ? ORDER BY vector_id"
        return np.fromiter((row[0] for row in self._file.execute(query, self._model_id(model))), dtype=np.int64)

    def vectors_after(self, model: str, vector_id: int) -> Iterator[VectorRows]:
        """Yield the vectors of ``model`` that are newer than ``vector_id``, oldest first, some thousands at a time."""
        import numpy as np  # noqa: PLC0415  # needed for the first search, not to open a store

        from ondol.similarity.vector_index import VectorRows  # noqa: PLC0415  # imports numpy too

        cursor = self._file.execute(
            "SELECT v.vector_id, v.chunk_id, c.document_key, v.vector FROM vectors v JOIN chunks c USING (chunk_id)"
            " WHERE v.model_id = ? AND v.vector_id > ? ORDER BY v.vector_id",
            *(self._model_id(model), vector_id),
        )
        while rows := cursor.fetchmany(_VECTORS_PER_READ):
            numbers = np.array([row[:3] for row in rows], dtype=np.int64).T
            vectors = np.frombuffer(b"".join(row[3] for row in rows), dtype="<f4").reshape(len(rows), -1)
            yield VectorRows(numbers[0], numbers[1], numbers[2], vectors.astype(np.float32, copy=False))

    def _model_id(self, name: str) -> int:
        """Return the number of a model in use, 0 (which none has) for others."""
        row = self._file.execute("SELECT model_id FROM models WHERE name = ?", name).fetchone()
        return int(row[0]) if row is not None else 0

    def _is_used(self, name: str, dimension: int) -> bool:
        row = self._file.execute("SELECT dimension FROM models WHERE name = ?", name).fetchone()
        return row is not None and row[0] == dimension
