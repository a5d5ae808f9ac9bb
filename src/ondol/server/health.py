"""service: ``/livez`` (the process answers) and ``/readyz`` (it may be sent requests; model by model)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.responses import Response

from ondol.errors import UnknownModelError

if TYPE_CHECKING:
    from starlette.requests import Request

    from ondol.server.ports import Service

__all__ = ["livez", "readyz"]

_ALIVE = b'{"status":"alive"}'
_NO_STORE = {"Cache-Control": "no-store"}
_SHOWN = ("name", "state", "ready", "reason", "since_s", "progress", "eta_s", "last_error")


async def livez(_request: Request) -> Response:
    """Answer 200, whatever the models do."""
    return Response(_ALIVE, 200, _NO_STORE, "application/json")


async def readyz(request: Request) -> Response:
    """Answer 200 when requests may be sent (with ``?model=``: when that model is in memory and warm), else 503."""
    service: Service = request.app.state.service
    report = service.readiness()
    models = [{name: model[name] for name in _SHOWN} for model in report["models"]]
    is_ready = bool(report["ready"]) and not request.app.state.is_draining
    wanted = request.query_params.get("model")
    if wanted is not None:
        models = [model for model in models if model["name"] == wanted]
        if not models:
            raise UnknownModelError(wanted, [model["name"] for model in report["models"]])
        is_ready = models[0]["ready"] and not request.app.state.is_draining
    body = json.dumps({"ready": is_ready, "models": models}, ensure_ascii=False, default=str).encode()
    return Response(body, 200 if is_ready else 503, _NO_STORE, "application/json")
