"""service: documents into the store, and vectors to their passages."""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ondol.errors import OndolError, StoreUnavailableError
from ondol.similarity.chunks import split_chunks
from ondol.similarity.embedders.info import find_embedder
from ondol.similarity.lexical import tokens
from ondol.similarity.store import PreparedDocument
from ondol.similarity.text import check_document_id, check_label, check_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from ondol.clock import Clock
    from ondol.similarity.embedders.info import EmbedderInfo
    from ondol.similarity.embedding import TextEmbedder
    from ondol.similarity.ports import ModelLeases
    from ondol.similarity.records import NewDocument, Progress
    from ondol.similarity.store import DocumentStore
    from ondol.similarity.store_thread import StoreThread

__all__ = ["Indexer"]

logger = logging.getLogger("ondol.similarity")

CHUNKS_PER_TRANSACTION: Final = 256
"""Passages embedded and stored at once: what a kill can cost of the work done, and how often progress is told."""


class Indexer:
    """Stores documents durably, then gives their passages vectors, batch by batch; resumes what was interrupted.

    Thread-safety: none; used on one event loop at a time.
    """

    def __init__(
        self,
        store: StoreThread,
        embedder: TextEmbedder,
        pool: ModelLeases,
        clock: Clock,
        *,
        find: Callable[[str], EmbedderInfo] = find_embedder,
    ) -> None:
        """Take the room's parts. Starts nothing."""
        self._store = store
        self._embedder = embedder
        self._pool = pool
        self._clock = clock
        self._find = find
        self._resuming: asyncio.Task[None] | None = None
        self._uploads: dict[object, tuple[str, int]] = {}  # model and last chunk before, of each upload under way
        self._counters: dict[str, Any] = {
            "documents_added": 0,
            "chunks_indexed": 0,
            "index_failures": 0,
            "last_index_error": None,
        }

    def get_stats(self) -> dict[str, Any]:
        """Return what was indexed, what failed, and whether interrupted work goes on."""
        return {**self._counters, "is_resuming": self._resuming is not None and not self._resuming.done()}

    def start(self) -> None:
        """Begin to index, at low urgency, what an earlier process left; returns at once."""
        if self._resuming is None or self._resuming.done():
            self._resuming = asyncio.create_task(self._resume(), name="ondol-index-resume")

    async def stop(self) -> None:
        """End the work in the background; what is left is resumed by the next start."""
        task, self._resuming = self._resuming, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    async def wait_resumed(self) -> None:
        """Return when the work in the background has ended, if there is any.

        Cancellation: ends the waiting only.
        """
        if self._resuming is not None and not self._resuming.done():
            await asyncio.wait([self._resuming])

    async def add(
        self, documents: Sequence[NewDocument], info: EmbedderInfo, progress: Progress | None = None
    ) -> list[str]:
        """Store ``documents`` and return their ids; when it returns they are durable and can be found.

        When giving them vectors fails after they were stored, that is logged and counted, not raised: the documents are
        kept, and the next search or start goes on.

        Raises:
            InvalidTextError: an id, a title or metadata is not allowed; nothing was stored.
            ModelError: the model cannot be loaded; nothing was stored.
            StoreUnavailableError: the store cannot be written; nothing was stored.
        """
        named = [_checked(document, index) for index, document in enumerate(documents)]
        async with self._pool.lease(info.name):
            pass  # a model that cannot be loaded is found out before anything is stored
        prepared = await asyncio.to_thread(lambda: [_prepared(key, document) for key, document in named])
        added_at_s = self._clock.wall()

        upload = object()

        def write(store: DocumentStore) -> int:
            store.vectors.use_model(info.name, info.dimension)
            self._uploads[upload] = (info.name, store.last_chunk_id())
            store.write_documents(prepared, info.name, added_at_s)
            return store.last_chunk_id()

        try:
            last_chunk_id = await self._store.run(write)
            self._counters["documents_added"] += len(prepared)
            await self._index_upload(info, last_chunk_id, len(prepared), progress)
        finally:
            self._uploads.pop(upload, None)
        return [key for key, _document in named]

    async def _index_upload(
        self, info: EmbedderInfo, last_chunk_id: int, count: int, progress: Progress | None
    ) -> None:
        try:
            await self.index_pending(info, last_chunk_id, progress=progress)
        except OndolError as exc:
            self._count_failure(exc)
            logger.exception("%d documents are stored, but not all of their passages are indexed yet", count)

    def settled_chunk_id(self, model: str, last_chunk_id: int) -> int:
        """Return up to which passage a search has to wait for vectors: not for those of an upload under way.

        Who uploads is told when the documents can be found; nobody else's search waits for that.
        """
        return min([last_chunk_id, *(before for name, before in list(self._uploads.values()) if name == model)])

    async def index_pending(
        self,
        info: EmbedderInfo,
        last_chunk_id: int,
        *,
        is_urgent: bool = True,
        progress: Progress | None = None,
    ) -> int:
        """Give every passage up to ``last_chunk_id`` a vector of the model; return how many were missing.

        Raises:
            ModelError: the model cannot be loaded or does not work.
            StoreUnavailableError: the store cannot be used.
        """
        total = await self._store.run(lambda store: store.vectors.count_pending(info.name, last_chunk_id))
        done = 0
        while chunks := await self._store.run(
            lambda store: store.vectors.pending(info.name, CHUNKS_PER_TRANSACTION, last_chunk_id)
        ):
            texts = [chunk.text for chunk in chunks]
            embedded = await self._embedder.embed(info, texts, "passage", is_urgent=is_urgent, is_kept=False)
            numbered = [(chunk.chunk_id, each.vector) for chunk, each in zip(chunks, embedded, strict=True)]
            await self._store.run(partial(_put_vectors, info.name, numbered))
            done += len(chunks)
            self._counters["chunks_indexed"] += len(chunks)
            if progress is not None:
                # Another caller may be at the same passages, so that fewer are left than there were.
                progress(done, max(done, total))
        return done

    async def _resume(self) -> None:
        # A store that was never made is not made now.
        if not await asyncio.to_thread(self._store.path.exists):
            return
        try:
            for model in await self._store.run(_wanted_models):
                await self._resume_model(model)
        except StoreUnavailableError as exc:
            self._count_failure(exc)
            logger.exception("interrupted indexing cannot be resumed")

    async def _resume_model(self, model: str) -> None:
        try:
            info = self._find(model)
            await self._pool.load(model, is_background=True)
            last_chunk_id = await self._store.run(_last_chunk_id)
            done = await self.index_pending(info, last_chunk_id, is_urgent=False)
        except Exception as exc:
            self._count_failure(exc)
            logger.exception("interrupted indexing for %s cannot be resumed; the next search or start tries", model)
        else:
            logger.info("indexing resumed: %d passages got their vectors of %s", done, model)

    def _count_failure(self, error: Exception) -> None:
        self._counters["index_failures"] += 1
        self._counters["last_index_error"] = f"{type(error).__name__}: {error}"


def _put_vectors(model: str, vectors: list[tuple[int, npt.NDArray[np.float32]]], store: DocumentStore) -> None:
    store.vectors.put_vectors(model, vectors)


def _wanted_models(store: DocumentStore) -> list[str]:
    return store.vectors.wanted_models()


def _last_chunk_id(store: DocumentStore) -> int:
    return store.last_chunk_id()


def _checked(document: NewDocument, index: int) -> tuple[str, NewDocument]:
    place = f"documents[{index}]"
    check_label(document.title, field=f"{place}.title")
    check_metadata(document.metadata, field=f"{place}.metadata")
    if document.id is None:
        # What uuid4().hex gives, but for the version's bits and three milliseconds of import.
        return os.urandom(16).hex(), document
    return check_document_id(document.id, field=f"{place}.id"), document


def _prepared(key: str, document: NewDocument) -> PreparedDocument:
    chunks = split_chunks(document.text)
    words = [tokens(document.text[chunk.start : chunk.end]) for chunk in chunks]
    # Who searches for the words of a title finds the document by its first passage.
    words[0] = tokens(document.title) + words[0]
    return PreparedDocument(
        id=key,
        title=document.title,
        text=document.text,
        metadata=document.metadata,
        chunks=tuple((chunk.start, chunk.end, " ".join(each)) for chunk, each in zip(chunks, words, strict=True)),
    )
