"""adapter: the OpenAPI 3.1 description of the HTTP API, made from one table of operations and the message types."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ondol._version import __version__
from ondol.server import schemas, schemas_oip
from ondol.server.openapi_alerts import ALERTS
from ondol.server.openapi_control import CONTROL
from ondol.server.openapi_preload import PRELOAD
from ondol.server.openapi_table import OPERATIONS as TABLE
from ondol.server.problems import MEDIA_TYPE, PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ondol.server.openapi_table import Operation, Parameter

__all__ = ["OPERATIONS", "openapi_bytes"]

_REF: Final = "#/components/schemas/{name}"

OPERATIONS: Final = (*TABLE, *CONTROL, *PRELOAD, *ALERTS)

_TAGS: Final = {
    "similarity": "Vectors and scores of texts.",
    "documents": "Store texts and find them again.",
    "models": "The models: their state, and what may be done with them.",
    "preloading": "What is loaded ahead of use, why, and the hints on when models will be wanted.",
    "alerts": "What is wrong and what to do about it, what was, and silences.",
    "oip": "The Open Inference Protocol (KServe v2): health, metadata, the model repository. Errors are "
    '`{"error": text}`.',
    "operation": "Health, figures, this description.",
}


def openapi_bytes(*, is_key_needed: bool) -> bytes:
    """Return the description as JSON.

    Args:
        is_key_needed: whether ``/v1`` asks for the API key.
    """
    types = _message_types()
    found, components = msgspec.json.schema_components(types, ref_template=_REF)
    # "Exactly one of these" has no form in the types.
    components["SimilarityRequest"]["oneOf"] = [{"required": ["text_b"]}, {"required": ["texts"]}]
    components["DocumentsRequest"]["oneOf"] = [{"required": ["text"]}, {"required": ["documents"]}]
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "ondol",
            "version": __version__,
            "summary": "Similarity analysis of Korean and English texts.",
            "description": "Errors are RFC 9457 problem documents; `errors` names the fields.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": _Paths(dict(zip(types, found, strict=True)), is_key_needed=is_key_needed).all(),
        "components": {
            "schemas": components,
            "responses": _problem_responses(),
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "ONDOL_API_KEY"},
                "adminKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "ONDOL_ADMIN_KEY, else ONDOL_API_KEY, else the token in ONDOL_DATA_DIR/admin-token.",
                },
            },
        },
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _message_types() -> list[Any]:
    found: dict[Any, None] = {schemas.Problem: None, schemas_oip.OipError: None}
    for operation in OPERATIONS:
        if operation.request is not None:
            found[operation.request] = None
        found.update({body: None for body in operation.answers.values() if body and not isinstance(body, str)})
    return list(found)


class _Paths:
    """Writes the operations, with the schema of each type of message at hand."""

    def __init__(self, types: Mapping[Any, Any], *, is_key_needed: bool) -> None:
        self._types = types
        self._is_key_needed = is_key_needed

    def all(self) -> dict[str, dict[str, Any]]:
        """Return every path with its methods."""
        paths: dict[str, dict[str, Any]] = {}
        for operation in OPERATIONS:
            paths.setdefault(operation.path, {})[operation.method] = self._operation(operation)
        return paths

    def _operation(self, operation: Operation) -> dict[str, Any]:
        members: dict[str, Any] = {
            "operationId": operation.name,
            "summary": operation.summary,
            "description": operation.description,
            "tags": [operation.tag],
            "responses": {
                **{str(status): self._answer(status, body) for status, body in operation.answers.items()},
                **self._problems(operation),
            },
        }
        if operation.parameters:
            members["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
        if operation.request is not None:
            content = {**self._content(operation.request), "example": operation.example}
            is_required = operation.tag != "oip"
            members["requestBody"] = {"required": is_required, "content": {"application/json": content}}
        if operation.is_admin_action:
            members["security"] = [{"adminKey": []}]
        elif operation.is_protected and self._is_key_needed:
            members["security"] = [{"apiKey": []}]
        return members

    def _problems(self, operation: Operation) -> dict[str, Any]:
        statuses = set(operation.problems) | {500}
        if operation.is_protected:
            statuses |= {503, 401 if self._is_key_needed else 421}
        if operation.is_admin_action:
            statuses.add(401)
        name = "Oip{status}" if operation.tag == "oip" else "Problem{status}"
        return {
            str(status): {"$ref": f"#/components/responses/{name.format(status=status)}"}
            for status in sorted(statuses - set(operation.answers))
        }

    def _answer(self, status: int, body: Any) -> dict[str, Any]:
        description = {201: "Stored.", 202: "Begun.", 204: "Removed.", 400: "Not ready.", 503: "Not ready."}
        answer: dict[str, Any] = {"description": description.get(status, "The answer.")}
        if body is None:
            return answer
        if isinstance(body, str):
            schema = {"type": "string"} if body.startswith("text/") else {"type": "object"}
            return {**answer, "content": {body: {"schema": schema}}}
        return {**answer, "content": {"application/json": self._content(body)}}

    def _content(self, body: Any) -> dict[str, Any]:
        return {"schema": self._types[body]}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.description,
        "schema": {"type": parameter.kind},
    }


def _problem_responses() -> dict[str, Any]:
    titles: dict[int, list[str]] = {}
    for kind in PROBLEMS.values():
        titles.setdefault(kind.status, []).append(f"`{kind.code}`: {kind.title}.")
    problems = {
        f"Problem{status}": {
            "description": " ".join(lines),
            "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name=schemas.Problem.__name__)}}},
        }
        for status, lines in sorted(titles.items())
    }
    error = {"schema": {"$ref": _REF.format(name=schemas_oip.OipError.__name__)}}
    return problems | {
        f"Oip{status}": {"description": f"{HTTPStatus(status).phrase}.", "content": {"application/json": error}}
        for status in sorted(titles)
    }
