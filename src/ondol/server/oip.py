"""service: ``/v2``: the Open Inference Protocol's health, metadata and model repository calls.

The protocol's public clients list, load, check and unload models with these; inference itself is served under ``/v1``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeVar

import msgspec
from msgspec import UnsetType
from starlette.responses import Response

from ondol._version import __version__
from ondol.errors import UnknownModelError
from ondol.models.spec import ModelState
from ondol.server.control import operations_of
from ondol.server.decoding import decode, read_body
from ondol.server.problems import FieldError, InvalidRequestError
from ondol.server.schemas_oip import (
    OipIndexEntry,
    OipIndexRequest,
    OipLive,
    OipModel,
    OipModelReady,
    OipReady,
    OipRepositoryRequest,
    OipServer,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from ondol.models.status import ModelStatus
    from ondol.server.ports import Service
    from ondol.settings import Settings

__all__ = [
    "live",
    "load_model",
    "model_metadata",
    "model_ready",
    "ready",
    "repository_index",
    "server_metadata",
    "unload_model",
]

T = TypeVar("T")

FIRST_VERSION: Final = "1"
"""The version of a model whose specification names none."""

_NOT_READY: Final = 400  # the protocol: 4xx says no
_INDEX_DECODER: Final = msgspec.json.Decoder(OipIndexRequest)
_REPOSITORY_DECODER: Final = msgspec.json.Decoder(OipRepositoryRequest)
_COMING: Final = frozenset({ModelState.QUEUED, ModelState.LOADING, ModelState.WARMING, ModelState.BACKOFF})


async def server_metadata(_request: Request) -> Response:
    """Answer with the server's name, version and extensions."""
    return _json(OipServer(version=__version__, extensions=["model_repository"]))


async def live(_request: Request) -> Response:
    """Answer 200, whatever the models do."""
    return _json(OipLive())


async def ready(request: Request) -> Response:
    """Answer 200 when requests may be sent."""
    service: Service = request.app.state.service
    is_ready = bool(service.readiness()["ready"]) and not request.app.state.is_draining
    return _json(OipReady(ready=is_ready), 200 if is_ready else _NOT_READY)


async def model_metadata(request: Request) -> Response:
    """Answer with one model's name and version."""
    status = _status(request)
    return _json(OipModel(name=status.name, versions=[_version(status)]))


async def model_ready(request: Request) -> Response:
    """Answer 200 when the model is in memory and warm."""
    status = _status(request)
    is_ready = status.state is ModelState.READY and not request.app.state.is_draining
    return _json(OipModelReady(name=status.name, ready=is_ready), 200 if is_ready else _NOT_READY)


async def repository_index(request: Request) -> Response:
    """Answer with every model and its state, or with those that are ready."""
    body = await _read(request, _INDEX_DECODER, OipIndexRequest())
    service: Service = request.app.state.service
    entries = [
        OipIndexEntry(name=status.name, version=_version(status), state=_state(status), reason=status.reason)
        for status in service.models.statuses()
        if status.state is ModelState.READY or not body.ready
    ]
    return _json(entries)


async def load_model(request: Request) -> Response:
    """Load a model; answer when it is ready. One that is ready already stays as it is."""
    await _check_parameters(request)
    await operations_of(request).run("load", request.path_params["model"])
    return Response(status_code=200)


async def unload_model(request: Request) -> Response:
    """Unload a model; answer when it is gone."""
    await _check_parameters(request)
    await operations_of(request).run("unload", request.path_params["model"])
    return Response(status_code=200)


async def _check_parameters(request: Request) -> None:
    body = await _read(request, _REPOSITORY_DECODER, OipRepositoryRequest())
    parameters = {} if isinstance(body.parameters, UnsetType) else body.parameters
    asked = [name for name, value in parameters.items() if value is not False]
    if asked:
        message = f"the parameter {asked[0]!r} is not supported: models are loaded as they were registered"
        raise InvalidRequestError(message, *(FieldError(f"parameters.{name}", message) for name in asked))


async def _read(request: Request, decoder: msgspec.json.Decoder[T], empty: T) -> T:
    """Return the body; the protocol's clients leave out its type, and may leave out all of it."""
    settings: Settings = request.app.state.service.settings
    body = await read_body(request, settings.max_body_bytes)
    return decode(body, decoder) if body.strip() else empty


def _status(request: Request) -> ModelStatus:
    """Return the model of the path; a version in it must be the one there is."""
    service: Service = request.app.state.service
    name, version = request.path_params["model"], request.path_params.get("version")
    status = service.models.status(name)
    if version is not None and version != _version(status):
        raise UnknownModelError(f"{name}/versions/{version}", [f"{name}/versions/{_version(status)}"])
    return status


def _version(status: ModelStatus) -> str:
    return status.version or FIRST_VERSION


def _state(status: ModelStatus) -> Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]:
    if status.state is ModelState.READY:
        return "READY"
    if status.state in _COMING:
        return "LOADING"
    return "UNLOADING" if status.state is ModelState.DRAINING else "UNAVAILABLE"


def _json(answer: msgspec.Struct | Sequence[msgspec.Struct], status: int = 200) -> Response:
    return Response(msgspec.json.encode(answer), status, {"Cache-Control": "no-store"}, "application/json")
