"""service: the similarity engine, made when a request first needs it, or a moment after the start.

Serve first, load after: the engine's imports are a tenth of the start, and no health check needs them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.service import OptimizationService
    from ondol.settings import Settings
    from ondol.similarity.embedders import EmbedderInfo
    from ondol.similarity.engine import SimilarityEngine
    from ondol.similarity.records import EmbeddingBatch, NewDocument, PairScore, SearchHit, StoredDocument

__all__ = ["LateEngine"]

logger = logging.getLogger("ondol.server")

START_DELAY_S: Final = 0.25
"""How long after the start the engine is made when no request has asked for it: interrupted indexing goes on then."""


class LateEngine:
    """The engine behind the HTTP API; :class:`ondol.similarity.engine.SimilarityEngine` once it is needed."""

    def __init__(self, service: OptimizationService, settings: Settings) -> None:
        """Remember what the engine is made of."""
        self._service = service
        self._settings = settings
        self._engine: SimilarityEngine | None = None
        self._starting: asyncio.Task[None] | None = None

    def _get(self) -> SimilarityEngine:
        if self._engine is None:
            from ondol.similarity.engine import SimilarityEngine

            service = self._service
            self._engine = SimilarityEngine(
                service.models,
                service.cache,
                self._settings,
                recorder=service.monitor.add_metric,
                spans=service.spans,
            )
        return self._engine

    async def start(self) -> None:
        """Let the engine start in a moment; returns at once."""
        self._starting = asyncio.create_task(self._start_soon(), name="ondol-engine-start")

    async def _start_soon(self) -> None:
        await asyncio.sleep(START_DELAY_S)
        try:
            await self._get().start()
        except Exception:
            # The same error meets the request that needs the store, and is answered there.
            logger.exception("the similarity engine could not be started")

    async def stop(self) -> None:
        """Stop the engine if there is one."""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.wait([starting])
        if self._engine is not None:
            await self._engine.stop()

    def models(self) -> list[EmbedderInfo]:
        """Return every embedder there is, the default first."""
        return self._get().models()

    async def embed(self, texts: Sequence[str], *, model: str | None = None) -> EmbeddingBatch:
        """Return one vector a text."""
        return await self._get().embed(texts, model=model)

    async def compare(self, text_a: str, texts: Sequence[str], *, model: str | None = None) -> list[PairScore]:
        """Return the scores of ``text_a`` beside each of ``texts``."""
        return await self._get().compare(text_a, texts, model=model)

    async def add_documents(self, documents: Sequence[NewDocument], *, model: str | None = None) -> list[str]:
        """Store documents, all or none; return their ids."""
        return await self._get().add_documents(documents, model=model)

    async def get_document(self, document_id: str, /) -> StoredDocument:
        """Return one document."""
        return await self._get().get_document(document_id)

    async def delete_document(self, document_id: str, /) -> None:
        """Remove one document."""
        await self._get().delete_document(document_id)

    async def count_documents(self) -> int:
        """Return how many documents are stored."""
        return await self._get().count_documents()

    async def search(self, query: str, *, limit: int = 10, model: str | None = None) -> list[SearchHit]:
        """Return the best documents for ``query``, best first."""
        return await self._get().search(query, limit=limit, model=model)

    def get_stats(self) -> dict[str, Any]:
        """Return the engine's statistics."""
        return self._get().get_stats()
