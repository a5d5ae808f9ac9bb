"""service: actions on models, the operations they become, and the loading strategy, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from ondol.clock import SystemClock
from ondol.models.operations import Operations
from ondol.server.decoding import read_request
from ondol.server.problems import advised
from ondol.server.schemas_control import ModelOperation, OperationList, Strategy, StrategyRequest

if TYPE_CHECKING:
    from starlette.requests import Request

    from ondol.models.actions import Action, Operation
    from ondol.server.ports import Service

__all__ = ["get_operation", "get_strategy", "list_operations", "operations_of", "put_strategy", "start_action"]

_STRATEGY_DECODER = msgspec.json.Decoder(StrategyRequest)
_NO_STORE = {"Cache-Control": "no-store"}


def operations_of(request: Request) -> Operations:
    """Return the app's operations; made by the first action."""
    state = request.app.state
    if state.operations is None:
        state.operations = Operations(state.service.models, SystemClock())
    operations: Operations = state.operations
    return operations


async def start_action(request: Request, action: Action) -> Response:
    """Begin an action on one model; answer where it can be followed."""
    operation = operations_of(request).start(action, request.path_params["model"])
    location = f"{request.scope.get('root_path', '')}/v1/operations/{operation.id}"
    return _json(_shown(operation), 202, Location=location)


async def get_operation(request: Request) -> Response:
    """Answer with one operation."""
    return _json(_shown(operations_of(request).get(request.path_params["operation_id"])))


async def list_operations(request: Request) -> Response:
    """Answer with every operation that is remembered, the newest first."""
    return _json(OperationList(data=[_shown(operation) for operation in operations_of(request).all()]))


async def get_strategy(request: Request) -> Response:
    """Answer with the loading variables and what they mean together."""
    return _json(_strategy(request.app.state.service))


async def put_strategy(request: Request) -> Response:
    """Change loading variables; answer with what they mean now."""
    body = await read_request(request, _STRATEGY_DECODER)
    service: Service = request.app.state.service
    service.switch_strategy(
        environment=body.environment,
        fast_startup=body.fast_startup,
        lazy_loading_enabled=body.lazy_loading_enabled,
        preload_models=body.preload_models,
    )
    return _json(_strategy(service))


def _shown(operation: Operation) -> ModelOperation:
    error = operation.error and advised(operation.error, operation.error_type)
    return ModelOperation(**operation.as_dict() | {"error": error})


def _strategy(service: Service) -> Strategy:
    settings, strategy = service.settings, service.strategy
    return Strategy(
        fast_startup=settings.fast_startup,
        lazy_loading_enabled=settings.lazy_loading_enabled,
        preload_models=settings.preload_models,
        is_preloading_all=strategy.is_preloading_all,
        is_ready_after_preload=strategy.is_ready_after_preload,
        is_lazy_loading_enabled=strategy.is_lazy_loading_enabled,
        meaning=strategy.meaning,
        warnings=list(strategy.warnings),
    )


def _json(answer: msgspec.Struct, status: int = 200, **headers: str) -> Response:
    return Response(msgspec.json.encode(answer), status, {**_NO_STORE, **headers}, "application/json")
