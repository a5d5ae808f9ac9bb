"""service: the similarity room's front: embed, compare, store, search."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondol.clock import SystemClock
from ondol.errors import InvalidTextError, UnknownDocumentError
from ondol.recorder import discard
from ondol.similarity.embedders.info import EMBEDDERS, find_embedder
from ondol.similarity.embedding import TextEmbedder
from ondol.similarity.indexing import Indexer
from ondol.similarity.lexical import lexical_scores
from ondol.similarity.records import EmbeddingBatch, PairScore
from ondol.similarity.searching import Searcher
from ondol.similarity.store_thread import StoreThread
from ondol.similarity.text import is_analysable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.clock import Clock
    from ondol.recorder import Recorder
    from ondol.settings import Settings
    from ondol.similarity.embedders.info import EmbedderInfo
    from ondol.similarity.ports import EmbeddingCache, ModelLeases
    from ondol.similarity.records import EmbeddedText, Kind, NewDocument, Progress, SearchHit, StoredDocument
    from ondol.similarity.store import DocumentStore
    from ondol.tracing import SpanRelay

__all__ = ["STORE_FILE", "SimilarityEngine"]

STORE_FILE: Final = "documents.sqlite3"
"""Name of the document store's file in the folder ``ONDOL_DATA_DIR``."""


class SimilarityEngine:
    """Embeds and compares texts, stores documents and searches them, on the models of a pool.

    Texts are expected to have passed :func:`ondol.similarity.text.check_text`; here they are looked at once more, but
    only for what a model or the store could not bear.

    It can be used without ``start``, which only resumes interrupted indexing, and again after ``stop``, also on
    another event loop.

    Thread-safety: none; used on one event loop at a time. Models and the store work in threads of their own.
    """

    def __init__(
        self,
        pool: ModelLeases,
        cache: EmbeddingCache,
        settings: Settings,
        *,
        recorder: Recorder = discard,
        clock: Clock | None = None,
        spans: SpanRelay | None = None,
    ) -> None:
        """Take models from ``pool`` (registered by ``embedder_specs``); keep vectors in ``cache``. Opens nothing."""
        self._settings = settings
        self._record = recorder
        self._clock = clock if clock is not None else SystemClock()
        self._store = StoreThread(Path(settings.data_dir) / STORE_FILE)
        self._embedder = TextEmbedder(pool, cache, clock=self._clock, recorder=recorder, spans=spans)
        self._indexer = Indexer(self._store, self._embedder, pool, self._clock)
        self._searcher = Searcher()
        self._counters = {"comparisons": 0, "searches": 0, "documents_deleted": 0}

    async def start(self) -> None:
        """Resume interrupted indexing in the background; returns at once."""
        self._indexer.start()

    async def wait_resumed(self) -> None:
        """Return when the indexing that ``start`` resumed has ended, well or not (the statistics say which)."""
        await self._indexer.wait_resumed()

    async def stop(self) -> None:
        """End work in the background and close the store; callers that still wait get ``AlreadyClosedError``."""
        await self._indexer.stop()
        await self._embedder.close()
        await self._store.close()
        self._searcher.clear()  # after the last search: by the next start the file may be another one

    def models(self) -> list[EmbedderInfo]:
        """Return every embedding model there is, installed or not, the default first."""
        default = self._settings.default_model
        return sorted(EMBEDDERS.values(), key=lambda info: info.name != default)

    def model(self, name: str | None = None) -> EmbedderInfo:
        """Return the embedding model of that name, or the default one.

        Raises:
            UnknownModelError: there is none; the message lists those there are.
            MissingExtraError: its package is not installed.
        """
        return find_embedder(self._settings.default_model if name is None else name)

    async def embed(self, texts: Sequence[str], *, model: str | None = None, kind: Kind = "passage") -> EmbeddingBatch:
        """Return the vectors of ``texts``; equal texts, and texts in the cache, are not computed again.

        Raises:
            InvalidTextError: a text cannot be embedded.
            UnknownModelError, MissingExtraError: there is no such model here.
            ModelError: the model cannot be loaded or does not work.
        """
        info = self.model(model)
        embedded = await self._embed(info, texts, kind)
        import numpy as np  # noqa: PLC0415  # not before the first embedding: importing it takes longer than starting up

        vectors = np.empty((len(embedded), info.dimension), dtype=np.float32)
        for row, each in zip(vectors, embedded, strict=True):
            row[:] = each.vector
        return EmbeddingBatch(info.name, vectors, [each.token_count for each in embedded])

    async def compare(self, text_a: str, texts: Sequence[str], *, model: str | None = None) -> list[PairScore]:
        """Return how alike ``text_a`` is to each of ``texts``, in their order.

        The semantic score is the cosine of the two vectors (both as queries, where a model tells them apart), the
        lexical score is :func:`ondol.similarity.lexical.lexical_score`.

        Raises:
            InvalidTextError: a text cannot be embedded.
            UnknownModelError, MissingExtraError: there is no such model here.
            ModelError: the model cannot be loaded or does not work.
        """
        info = self.model(model)
        if not texts:
            return []
        embedded = await self._embed(info, [text_a, *texts], "query")
        self._counters["comparisons"] += len(texts)
        return await asyncio.to_thread(_pair_scores, text_a, texts, embedded)

    async def add_documents(
        self, documents: Sequence[NewDocument], *, model: str | None = None, progress: Progress | None = None
    ) -> list[str]:
        """Store ``documents``, in place of those with the same ids, and return their ids.

        When it returns they are durable and can be found. Of several with one id in a call the last one stays.

        Raises:
            InvalidTextError: a text, an id, a title or metadata is not allowed; nothing was stored.
            UnknownModelError, MissingExtraError: there is no such model here; nothing was stored.
            ModelError: the model cannot be loaded; nothing was stored.
            StoreUnavailableError: the store cannot be written; nothing was stored.
        """
        info = self.model(model)
        _check([document.text for document in documents], field="documents[{}].text")
        return await self._indexer.add(documents, info, progress) if documents else []

    async def get_document(self, document_id: str) -> StoredDocument:
        """Return the document of that id.

        Raises:
            UnknownDocumentError: there is none.
            StoreUnavailableError: the store cannot be read.
        """
        document = await self._store.run(lambda store: store.document(document_id))
        if document is None:
            raise _unknown_document(document_id)
        return document

    async def delete_document(self, document_id: str) -> None:
        """Remove the document of that id with its passages and vectors.

        Raises:
            UnknownDocumentError: there is none.
            StoreUnavailableError: the store cannot be written.
        """
        if not await self._store.run(lambda store: store.delete_document(document_id)):
            raise _unknown_document(document_id)
        self._counters["documents_deleted"] += 1

    async def count_documents(self) -> int:
        """Return how many documents are stored.

        Raises:
            StoreUnavailableError: the store cannot be read.
        """
        return await self._store.run(lambda store: store.count_documents())

    async def search(
        self, query: str, *, limit: int = 10, model: str | None = None, progress: Progress | None = None
    ) -> list[SearchHit]:
        """Return the ``limit`` best documents for ``query``, best first, each with its best passage.

        :mod:`ondol.similarity.scoring` explains the scores. Passages that have no vector of the model yet get one
        first, which ``progress`` is told of; those of an upload under way are found when it has ended.

        Raises:
            ValueError: ``limit`` is less than 1.
            InvalidTextError: the query cannot be embedded.
            UnknownModelError, MissingExtraError: there is no such model here.
            ModelError: the model cannot be loaded or does not work.
            StoreUnavailableError: the store cannot be used.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        info = self.model(model)
        _check([query], field="query")
        started_s = self._clock.monotonic()

        def prepare(store: DocumentStore) -> int:
            last_chunk_id = store.last_chunk_id()
            if last_chunk_id:
                store.vectors.use_model(info.name, info.dimension)
            return last_chunk_id

        last_chunk_id = await self._store.run(prepare)
        if not last_chunk_id:
            return []
        settled = self._indexer.settled_chunk_id(info.name, last_chunk_id)
        await self._indexer.index_pending(info, settled, progress=progress)
        (embedded,) = await self._embed(info, [query], "query")
        hits = await self._store.run(lambda store: self._searcher.find(store, info, query, embedded.vector, limit))
        self._counters["searches"] += 1
        self._record("similarity.search_time", self._clock.monotonic() - started_s, "seconds", model=info.name)
        return hits

    def get_stats(self) -> dict[str, Any]:
        """Return what the room has done since it was made, as plain values."""
        return {
            "default_model": self._settings.default_model,
            **self._counters,
            "vector_memory_bytes": self._searcher.memory_bytes(),
            "embedding": self._embedder.get_stats(),
            "indexing": self._indexer.get_stats(),
        }

    async def _embed(self, info: EmbedderInfo, texts: Sequence[str], kind: Kind) -> list[EmbeddedText]:
        _check(texts, field="texts[{}]")
        return await self._embedder.embed(info, texts, kind)


def _check(texts: Sequence[str], *, field: str) -> None:
    """Refuse what models or the store cannot bear; the edges have said more exactly what is allowed."""
    for index, text in enumerate(texts):
        if not is_analysable(text):
            place = field.format(index)
            message = f"{place} must be a text that is not blank and holds neither NUL nor a lone surrogate"
            raise InvalidTextError(message, field=place)


def _unknown_document(document_id: str) -> UnknownDocumentError:
    return UnknownDocumentError(f"no document with the id {document_id[:128]!r} is stored")


def _pair_scores(text_a: str, texts: Sequence[str], embedded: Sequence[EmbeddedText]) -> list[PairScore]:
    import numpy as np  # noqa: PLC0415  # the model has imported it by now

    from ondol.similarity.scoring import cosines  # noqa: PLC0415  # imports numpy

    semantic = cosines(embedded[0].vector, np.stack([each.vector for each in embedded[1:]]))
    lexical = lexical_scores(text_a, texts)
    return [PairScore(meaning, wording) for meaning, wording in zip(semantic, lexical, strict=True)]
