"""adapter: documents, passages and vectors in one SQLite file.

Every change is one transaction, so a process that is killed leaves each document whole or not at all. Other processes
may read and write the same file at the same time.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from ondol.similarity.records import StoredDocument
from ondol.similarity.sqlite_file import SqliteFile
from ondol.similarity.vector_table import VectorTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["DocumentStore", "Passage", "PreparedDocument", "WordMatch"]


class PreparedDocument(NamedTuple):
    """A document ready to be written: its passages as (start, end, words for the full-text index)."""

    id: str
    title: str
    text: str
    metadata: Mapping[str, str]
    chunks: tuple[tuple[int, int, str], ...]


class WordMatch(NamedTuple):
    """A passage that holds words of a query; ``bm25`` is higher the better."""

    chunk_id: int
    document_key: int
    bm25: float


class Passage(NamedTuple):
    """A passage with what is told of its document."""

    document_id: str
    title: str
    text: str
    metadata: dict[str, str]


class DocumentStore:
    """The document store's file.

    Thread-safety: none; opened, used and closed in one thread (:class:`ondol.similarity.store_thread.StoreThread`).
    """

    def __init__(self, path: Path) -> None:
        """Open the file at ``path``, which is created together with its folder if need be.

        Raises:
            sqlite3.Error, OSError: it cannot be opened.
            StoreUnavailableError: it was made by a newer ondol.
        """
        self._file = SqliteFile(path)
        self.vectors = VectorTable(self._file)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def snapshot(self) -> AbstractContextManager[None]:
        """Let everything that is read in the block come from one state of the file."""
        return self._file.snapshot()

    def write_documents(self, documents: Sequence[PreparedDocument], model: str, added_at_s: float) -> int:
        """Store ``documents`` in one durable transaction, in place of those with the same ids.

        Their passages become pending for ``model`` (wanted) and for every other model in use (not wanted).

        Returns:
            How many passages they have.
        """
        with self._file.transaction(is_durable=True):
            for document in documents:
                self._file.execute("DELETE FROM documents WHERE id = ?", document.id)
                self._insert_document(document, model, added_at_s)
        return sum(len(document.chunks) for document in documents)

    def _insert_document(self, document: PreparedDocument, model: str, added_at_s: float) -> None:
        metadata = json.dumps(dict(document.metadata), ensure_ascii=False)
        key = self._file.execute(
            "INSERT INTO documents (id, title, text, metadata, added_at_s) VALUES (?, ?, ?, ?, ?)",
            *(document.id, document.title, document.text, metadata, added_at_s),
        ).lastrowid
        for start, end, words in document.chunks:
            chunk_id = self._file.execute(
                "INSERT INTO chunks (document_key, start_char, end_char) VALUES (?, ?, ?)", key, start, end
            ).lastrowid
            self._file.execute("INSERT INTO chunk_words (rowid, words) VALUES (?, ?)", chunk_id, words)
            self._file.execute(
                "INSERT INTO pending (model_id, chunk_id, is_wanted) SELECT model_id, ?, name = ? FROM models",
                *(chunk_id, model),
            )

    def document(self, document_id: str) -> StoredDocument | None:
        """Return the document of that id, if there is one."""
        row = self._file.execute(
            "SELECT id, title, text, metadata, added_at_s, (SELECT count(*) FROM chunks c WHERE"
            " c.document_key = d.document_key) FROM documents d WHERE id = ?",
            document_id,
        ).fetchone()
        if row is None:
            return None
        return StoredDocument(row[0], row[1], row[2], json.loads(row[3]), row[4], row[5])

    def delete_document(self, document_id: str) -> bool:
        """Remove the document of that id with all that belongs to it; tell whether there was one."""
        with self._file.transaction(is_durable=True):
            return self._file.execute("DELETE FROM documents WHERE id = ?", document_id).rowcount > 0

    def count_documents(self) -> int:
        """Return how many documents there are."""
        return int(self._file.execute("SELECT count(*) FROM documents").fetchone()[0])

    def last_chunk_id(self) -> int:
        """Return the highest number of a passage, 0 when there is none."""
        return int(self._file.execute("SELECT coalesce(max(chunk_id), 0) FROM chunks").fetchone()[0])

    def count_chunks(self) -> int:
        """Return how many passages there are."""
        return int(self._file.execute("SELECT count(*) FROM chunks").fetchone()[0])

    def word_frequencies(self, words: Iterable[str]) -> dict[str, int]:
        """Return for each word how many passages hold it."""
        query = "SELECT doc FROM word_counts WHERE term = ?"
        rows = ((word, self._file.execute(query, word).fetchone()) for word in words)
        return {word: int(row[0]) if row is not None else 0 for word, row in rows}

    def match_words(self, words: Sequence[str], limit: int) -> list[WordMatch]:
        """Return the ``limit`` passages that are best by BM25 for any of ``words``."""
        if not words:
            return []
        # Words consist of letters and digits; between quotes none of them is an operator of FTS5's language.
        expression = " OR ".join(f'"{word}"' for word in words)
        rows = self._file.execute(
            "SELECT c.chunk_id, c.document_key, w.rank FROM"
            " (SELECT rowid, rank FROM chunk_words WHERE chunk_words MATCH ? ORDER BY rank LIMIT ?) w"
            " JOIN chunks c ON c.chunk_id = w.rowid",
            *(expression, limit),
        )
        return [WordMatch(chunk_id, key, -rank) for chunk_id, key, rank in rows]

    def passages(self, chunk_ids: Iterable[int]) -> dict[int, Passage]:
        """Return the passages of those numbers that exist."""
        query = (
            "SELECT d.id, d.title, substr(d.text, c.start_char + 1, c.end_char - c.start_char), d.metadata"
            " FROM chunks c JOIN documents d USING (document_key) WHERE c.chunk_id = ?"
        )
        rows = ((chunk_id, self._file.execute(query, chunk_id).fetchone()) for chunk_id in chunk_ids)
        return {key: Passage(row[0], row[1], row[2], json.loads(row[3])) for key, row in rows if row is not None}
