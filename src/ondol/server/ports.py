"""decision: what the HTTP handlers need of the runtime and of the similarity engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ondol.models.actions import Controllable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ondol.models.status import ModelStatus
    from ondol.monitor import AlertEvent, MetricSnapshot
    from ondol.monitor.silences import Silence
    from ondol.preload.hint import HintStatus
    from ondol.recorder import Recorder
    from ondol.settings import Settings
    from ondol.similarity.embedders import EmbedderInfo
    from ondol.similarity.records import EmbeddingBatch, NewDocument, PairScore, SearchHit, StoredDocument
    from ondol.strategy import LoadingStrategy
    from ondol.tracing import SpanRelay

__all__ = ["Engine", "Hinting", "Monitor", "Pool", "Preloading", "Service"]


class Monitor(Protocol):
    """Takes and gives back measurements, and watches them."""

    @property
    def add_metric(self) -> Recorder:
        """Record one measurement."""
        ...

    def add_exemplar(self, name: str, value: float, leads_to: Mapping[str, str], /, **labels: str) -> None:
        """Let exporters show what leads to a measurement."""
        ...

    def collect(self) -> list[MetricSnapshot]:
        """Return every series, for the exposition formats."""
        ...

    def alert_stats(self) -> dict[str, Any]:
        """Return what fires, the silences, the counts and how the notices fare."""
        ...

    def alert_states(self) -> list[dict[str, Any]]:
        """Return each rule and where its alert is."""
        ...

    def alert_history(self) -> list[AlertEvent]:
        """Return the last transitions, newest last."""
        ...

    def silences(self) -> list[Silence]:
        """Return the silences that are active or still to come."""
        ...

    def silence_alerts(
        self, matchers: Mapping[str, str], duration_s: float, *, comment: str = "", created_by: str = ""
    ) -> Silence:
        """Hold back the notices of the alerts that match, for so long."""
        ...

    def end_silence(self, silence_id: str) -> bool:
        """End a silence; return whether there was one of that id."""
        ...


class Pool(Controllable, Protocol):
    """Knows the state of the models, and changes it."""

    def statuses(self) -> list[ModelStatus]:
        """Return the state of every registered model."""
        ...


class Hinting(Protocol):
    """Knows the hints on when models will be wanted."""

    def add(
        self,
        model: str,
        *,
        at: float | str | None = None,
        repeat: str | float | None = None,
        zone: str | None = None,
        hold_s: float = 300.0,
    ) -> HintStatus:
        """Take one more."""
        ...

    def remove(self, hint_id: str) -> bool:
        """Forget one; return whether there was one."""
        ...

    def list(self) -> Sequence[HintStatus]:
        """Return them all."""
        ...


class Preloading(Protocol):
    """Loads models ahead of use."""

    @property
    def hints(self) -> Hinting:
        """Its hints."""
        ...

    def forbid(self, name: str) -> None:
        """Never fetch a model ahead because of what is foreseen."""
        ...

    def allow(self, name: str) -> None:
        """Do so again."""
        ...

    def why(self, name: str) -> dict[str, Any]:
        """Return why a model is in memory or not, and what comes next."""
        ...

    def forecast(self) -> list[dict[str, Any]]:
        """Return what is foreseen of each model."""
        ...

    def get_plan(self) -> dict[str, Any]:
        """Return what is loaded now and next."""
        ...

    def get_stats(self) -> dict[str, Any]:
        """Return its figures."""
        ...


class Service(Protocol):
    """The runtime under the server."""

    @property
    def settings(self) -> Settings:
        """The settings it runs with."""
        ...

    @property
    def strategy(self) -> LoadingStrategy:
        """What the loading variables mean together."""
        ...

    @property
    def monitor(self) -> Monitor:
        """Its monitor."""
        ...

    @property
    def spans(self) -> SpanRelay:
        """Where traces go, when somebody listens."""
        ...

    @property
    def models(self) -> Pool:
        """Its models."""
        ...

    @property
    def preloader(self) -> Preloading:
        """What loads them ahead of use."""
        ...

    async def start(self) -> None:
        """Start it; returns before models are loaded."""
        ...

    async def stop(self) -> None:
        """Stop it."""
        ...

    def switch_strategy(
        self,
        *,
        environment: str | None = None,
        fast_startup: bool | None = None,
        lazy_loading_enabled: bool | None = None,
        preload_models: bool | None = None,
    ) -> LoadingStrategy:
        """Change the loading variables; return what they mean now."""
        ...

    def readiness(self) -> dict[str, Any]:
        """Return whether it may be sent requests, and the state of each model."""
        ...

    def get_stats(self) -> dict[str, Any]:
        """Return the statistics of every part."""
        ...


class Engine(Protocol):
    """Embeds, compares, stores and searches texts; every text it gets has been checked."""

    async def start(self) -> None:
        """Open the store and register the models."""
        ...

    async def stop(self) -> None:
        """Close the store."""
        ...

    def models(self) -> list[EmbedderInfo]:
        """Return every embedder there is, installed or not."""
        ...

    async def embed(self, texts: Sequence[str], *, model: str | None = None) -> EmbeddingBatch:
        """Return one vector a text."""
        ...

    async def compare(self, text_a: str, texts: Sequence[str], *, model: str | None = None) -> list[PairScore]:
        """Return the scores of ``text_a`` beside each of ``texts``."""
        ...

    async def add_documents(self, documents: Sequence[NewDocument], *, model: str | None = None) -> list[str]:
        """Store documents, all or none; return their ids."""
        ...

    async def get_document(self, document_id: str, /) -> StoredDocument:
        """Return one document."""
        ...

    async def delete_document(self, document_id: str, /) -> None:
        """Remove one document."""
        ...

    async def count_documents(self) -> int:
        """Return how many documents are stored."""
        ...

    async def search(self, query: str, *, limit: int = 10, model: str | None = None) -> list[SearchHit]:
        """Return the best documents for ``query``, best first."""
        ...

    def get_stats(self) -> Mapping[str, Any]:
        """Return its statistics."""
        ...
