"""service: the plan of preloading, what is foreseen, and the hints, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from ondol.errors import ConfigurationError, UnknownHintError
from ondol.server.decoding import read_limit, read_request
from ondol.server.plain import to_plain
from ondol.server.problems import FieldError, InvalidRequestError
from ondol.server.schemas_preload import PreloadHint, PreloadHintList, PreloadHintRequest, PreloadOutlook

if TYPE_CHECKING:
    from starlette.requests import Request

    from ondol.preload.hint import HintStatus
    from ondol.server.ports import Preloading

__all__ = [
    "add_hint",
    "allow_model",
    "delete_hint",
    "forbid_model",
    "get_forecast",
    "get_model",
    "get_plan",
    "list_hints",
]

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 10_000
_HINT_DECODER = msgspec.json.Decoder(PreloadHintRequest)
_NO_STORE = {"Cache-Control": "no-store"}


async def get_plan(request: Request) -> Response:
    """Answer with what is loaded now and next, and with the figures."""
    preloader = _preloader(request)
    return _json({**preloader.get_plan(), "statistics": preloader.get_stats()})


async def get_forecast(request: Request) -> Response:
    """Answer with what is foreseen of each model."""
    limit = read_limit(request.query_params.get("limit"), default=DEFAULT_LIMIT, most=MAX_LIMIT)
    rows = _preloader(request).forecast()
    return _json({"data": rows[:limit], "total": len(rows)})


async def get_model(request: Request) -> Response:
    """Answer why a model is in memory or not, and what comes next."""
    return _outlook(request)


async def forbid_model(request: Request) -> Response:
    """Never fetch a model ahead; answer with what is foreseen of it now."""
    preloader, name = _preloader(request), _known(request)
    preloader.forbid(name)
    return _outlook(request)


async def allow_model(request: Request) -> Response:
    """Let a model be fetched ahead again; answer with what is foreseen of it now."""
    preloader, name = _preloader(request), _known(request)
    preloader.allow(name)
    return _outlook(request)


async def list_hints(request: Request) -> Response:
    """Answer with every hint, the one that acts next first."""
    hints = _preloader(request).hints.list()
    return _json(PreloadHintList(data=[_shown(hint) for hint in hints]))


async def add_hint(request: Request) -> Response:
    """Take a hint; the same again is that hint."""
    body = await read_request(request, _HINT_DECODER)
    try:
        hint = _preloader(request).hints.add(
            body.model, at=body.at, repeat=body.repeat, zone=body.zone, hold_s=body.hold_seconds
        )
    except ConfigurationError as exc:
        raise InvalidRequestError(str(exc), FieldError("body", str(exc))) from exc
    return _json(_shown(hint), 201)


async def delete_hint(request: Request) -> Response:
    """Forget a hint."""
    hint_id: str = request.path_params["hint_id"]
    if not _preloader(request).hints.remove(hint_id):
        message = (
            f"no preload hint has the id {hint_id!r:.100}; GET /v1/preload/hints or `ondol preload hints` lists them"
        )
        raise UnknownHintError(message)
    return Response(status_code=204, headers=_NO_STORE)


def _preloader(request: Request) -> Preloading:
    preloader: Preloading = request.app.state.service.preloader
    return preloader


def _known(request: Request) -> str:
    """Return the model's name, once it is certain that somebody has heard of it."""
    name: str = request.path_params["model"]
    _preloader(request).why(name)
    return name


def _outlook(request: Request) -> Response:
    found = to_plain(_preloader(request).why(request.path_params["model"]))
    return _json(msgspec.convert(found, PreloadOutlook))


def _shown(hint: HintStatus) -> PreloadHint:
    return PreloadHint(**hint.as_dict())


def _json(answer: Any, status: int = 200) -> Response:
    body = answer if isinstance(answer, msgspec.Struct) else to_plain(answer)
    return Response(msgspec.json.encode(body), status, _NO_STORE, "application/json")
