"""service: ``/v1/models`` in OpenAI's form, and ``/v1/stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from ondol.errors import UnknownModelError
from ondol.server.plain import to_plain
from ondol.server.schemas_control import ModelCard, ModelList, ModelStatus

if TYPE_CHECKING:
    from starlette.requests import Request

    from ondol.models import status as pool
    from ondol.server.ports import Engine, Service
    from ondol.similarity.embedders import EmbedderInfo

__all__ = ["get_model", "get_stats", "list_models"]


async def list_models(request: Request) -> Response:
    """Answer with every model that is known: the embedders, installed or not, and whatever else is registered."""
    return Response(msgspec.json.encode(ModelList(data=_cards(request))), media_type="application/json")


async def get_model(request: Request) -> Response:
    """Answer with one model."""
    name: str = request.path_params["model"]
    cards = {card.id: card for card in _cards(request)}
    if name not in cards:
        raise UnknownModelError(name, list(cards))
    return Response(msgspec.json.encode(cards[name]), media_type="application/json")


def _cards(request: Request) -> list[ModelCard]:
    """Return the embedders, installed or not, the default first, and after them what else is in the pool."""
    service: Service = request.app.state.service
    engine: Engine = request.app.state.engine
    statuses = {status.name: status for status in service.models.statuses()}
    created_s = int(request.app.state.created_at_s)
    default_model = service.settings.default_model
    embedders = engine.models()
    cards = [_embedder_card(info, statuses.pop(info.name, None), created_s, default_model) for info in embedders]
    return cards + [_card(status, created_s) for status in statuses.values()]


def _embedder_card(
    info: EmbedderInfo, status: pool.ModelStatus | None, created_s: int, default_model: str
) -> ModelCard:
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
        status=None if status is None else ModelStatus(**status.as_dict()),
    )


def _card(status: pool.ModelStatus, created_s: int) -> ModelCard:
    return ModelCard(
        id=status.name,
        created=created_s,
        owned_by="ondol",
        description="",
        dimension=None,
        max_batch=None,
        is_installed=True,
        is_default=False,
        state=str(status.state),
        ready=status.state == "ready",
        reason=status.reason,
        status=ModelStatus(**status.as_dict()),
    )


async def get_stats(request: Request) -> Response:
    """Answer with the statistics of the runtime and of the similarity engine."""
    service: Service = request.app.state.service
    engine: Engine = request.app.state.engine
    stats = {**service.get_stats(), "similarity": engine.get_stats()}
    return Response(msgspec.json.encode(to_plain(stats)), media_type="application/json")
