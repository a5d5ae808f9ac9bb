"""service: the table of routes that show and steer models and alerts, and of those of the Open Inference Protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Route

from ondol.models.actions import ACTIONS
from ondol.server import alerts, control, oip, preload
from ondol.server.models import get_model

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from ondol.models.actions import Action

__all__ = ["control_routes"]


def control_routes() -> list[BaseRoute]:
    """Return the routes. Those with an action come first: a model's name may hold slashes."""
    return [
        *(Route(f"/v1/models/{{model:path}}/{action}", _acting(action), methods=["POST"]) for action in ACTIONS),
        Route("/v1/models/{model:path}", get_model, methods=["GET"]),
        Route("/v1/alerts", alerts.get_alerts, methods=["GET"]),
        Route("/v1/alerts/history", alerts.get_history, methods=["GET"]),
        Route("/v1/alerts/silences", alerts.add_silence, methods=["POST"]),
        Route("/v1/alerts/silences/{silence_id}", alerts.delete_silence, methods=["DELETE"]),
        Route("/v1/operations", control.list_operations, methods=["GET"]),
        Route("/v1/operations/{operation_id}", control.get_operation, methods=["GET"]),
        Route("/v1/preload", preload.get_plan, methods=["GET"]),
        Route("/v1/preload/forecast", preload.get_forecast, methods=["GET"]),
        Route("/v1/preload/hints", preload.list_hints, methods=["GET"]),
        Route("/v1/preload/hints", preload.add_hint, methods=["POST"]),
        Route("/v1/preload/hints/{hint_id}", preload.delete_hint, methods=["DELETE"]),
        Route("/v1/preload/models/{model:path}/forbid", preload.forbid_model, methods=["POST"]),
        Route("/v1/preload/models/{model:path}/allow", preload.allow_model, methods=["POST"]),
        Route("/v1/preload/models/{model:path}", preload.get_model, methods=["GET"]),
        Route("/v1/strategy", control.get_strategy, methods=["GET"]),
        Route("/v1/strategy", control.put_strategy, methods=["PUT"]),
        Route("/v2", oip.server_metadata, methods=["GET"]),
        Route("/v2/health/live", oip.live, methods=["GET"]),
        Route("/v2/health/ready", oip.ready, methods=["GET"]),
        Route("/v2/models/{model:path}/versions/{version}/ready", oip.model_ready, methods=["GET"]),
        Route("/v2/models/{model:path}/versions/{version}", oip.model_metadata, methods=["GET"]),
        Route("/v2/models/{model:path}/ready", oip.model_ready, methods=["GET"]),
        Route("/v2/models/{model:path}", oip.model_metadata, methods=["GET"]),
        Route("/v2/repository/index", oip.repository_index, methods=["POST"]),
        Route("/v2/repository/models/{model:path}/load", oip.load_model, methods=["POST"]),
        Route("/v2/repository/models/{model:path}/unload", oip.unload_model, methods=["POST"]),
    ]


def _acting(action: Action) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await control.start_action(request, action)

    return endpoint
