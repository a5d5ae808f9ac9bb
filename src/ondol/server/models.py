"""service: ``/v1/models`` in OpenAI's form, and ``/v1/stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from ondol.errors import UnknownModelError
from ondol.server.plain import to_plain
from ondol.server.schemas import ModelCard, ModelList

if TYPE_CHECKING:
    from starlette.requests import Request

    from ondol.models import ModelStatus
    from ondol.server.ports import Engine, Service
    from ondol.similarity.embedders import EmbedderInfo

__all__ = ["get_model", "get_stats", "list_models"]


async def list_models(request: Request) -> Response:
    """Answer with every model that is known, installed or not."""
    return Response(msgspec.json.encode(ModelList(data=_cards(request))), media_type="application/json")


async def get_model(request: Request) -> Response:
    """Answer with one model."""
    name: str = request.path_params["model"]
    cards = {card.id: card for card in _cards(request)}
    if name not in cards:
        raise UnknownModelError(name, list(cards))
    return Response(msgspec.json.encode(cards[name]), media_type="application/json")


def _cards(request: Request) -> list[ModelCard]:
    service: Service = request.app.state.service
    engine: Engine = request.app.state.engine
    statuses = {status.name: status for status in service.models.statuses()}
    created_s = int(request.app.state.created_at_s)
    default_model = service.settings.default_model
    return [_card(info, statuses.get(info.name), created_s, default_model) for info in engine.models()]


def _card(info: EmbedderInfo, status: ModelStatus | None, created_s: int, default_model: str) -> ModelCard:
    is_installed = info.is_installed()
    absent = f"not loaded; the package {info.package} is {'installed' if is_installed else 'not installed'}"
    state = "unavailable" if status is None else str(status.state)
    return ModelCard(
        id=info.name,
        created=created_s,
        owned_by=info.package,
        description=info.description,
        dimension=info.dimension,
        max_batch=info.max_batch,
        is_installed=is_installed,
        is_default=info.name == default_model,
        state=state,
        ready=state == "ready",
        reason=absent if status is None else status.reason,
    )


async def get_stats(request: Request) -> Response:
    """Answer with the statistics of the runtime and of the similarity engine."""
    service: Service = request.app.state.service
    engine: Engine = request.app.state.engine
    stats = {**service.get_stats(), "similarity": engine.get_stats()}
    return Response(msgspec.json.encode(to_plain(stats)), media_type="application/json")
