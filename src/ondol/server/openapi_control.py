"""adapter: the operations of model control, as the OpenAPI description lists them."""

from __future__ import annotations

from typing import Final

from ondol.server import schemas_control as schemas
from ondol.server import schemas_oip as oip
from ondol.server.openapi_table import BODY_PROBLEMS, MODEL, Operation, Parameter

__all__ = ["CONTROL"]

_VERSION: Final = Parameter("version", "path", "The model's version; `1` where its specification names none.")
_ACTIONS: Final = (
    ("load", "Load a model", "Brings it into memory and warms it up. One that is ready already stays as it is."),
    ("unload", "Unload a model", "Once nobody uses it. Models that depend on it are unloaded before it."),
    ("pin", "Pin a model", "It is never evicted any more, and loaded now."),
    ("unpin", "Unpin a model", "It may be evicted again; it is not unloaded."),
    ("reload", "Load a model anew", "Beside the copy that serves, then they change places; nobody waits."),
    ("release", "Release a model", "Ends the wait after failed loads, or its quarantine; the next use loads it."),
)


def _action(action: str, summary: str, description: str) -> Operation:
    return Operation(
        "post",
        f"/v1/models/{{model}}/{action}",
        f"{action}Model",
        summary,
        f"{description} Answers at once; `Location` leads to the operation. The same action on the same model that "
        "runs already is that operation.",
        "models",
        {202: schemas.ModelOperation},
        problems=(404, 503),
        parameters=(MODEL,),
    )


_MODELS: Final = (
    Operation(
        "get",
        "/v1/models",
        "listModels",
        "List models",
        "Every model that is known, with its state: the embedders, and whatever else is registered.",
        "models",
        {200: schemas.ModelList},
    ),
    Operation(
        "get",
        "/v1/models/{model}",
        "getModel",
        "Read a model",
        "One model with its state.",
        "models",
        {200: schemas.ModelCard},
        problems=(404,),
        parameters=(MODEL,),
    ),
    *(_action(*row) for row in _ACTIONS),
    Operation(
        "get",
        "/v1/operations",
        "listOperations",
        "List operations",
        "The actions on models that run or have ended, the newest first. The last 256 are remembered.",
        "models",
        {200: schemas.OperationList},
    ),
    Operation(
        "get",
        "/v1/operations/{operation_id}",
        "getOperation",
        "Read an operation",
        "How far it is, or how it ended.",
        "models",
        {200: schemas.ModelOperation},
        problems=(404,),
        parameters=(Parameter("operation_id", "path", "The operation's id."),),
    ),
    Operation(
        "get",
        "/v1/strategy",
        "getStrategy",
        "Read the loading strategy",
        "The three loading variables, and what they mean together.",
        "models",
        {200: schemas.Strategy},
    ),
    Operation(
        "put",
        "/v1/strategy",
        "switchStrategy",
        "Switch the loading strategy",
        "Until the server ends. What is to be loaded ahead of use is loaded now; nothing is unloaded.",
        "models",
        {200: schemas.Strategy},
        schemas.StrategyRequest,
        BODY_PROBLEMS,
        example={"fast_startup": True},
    ),
)

_OIP: Final = (
    Operation("get", "/v2", "oipServer", "Server metadata", "", "oip", {200: oip.OipServer}),
    Operation("get", "/v2/health/live", "oipLive", "Is the process alive?", "", "oip", {200: oip.OipLive}),
    Operation(
        "get",
        "/v2/health/ready",
        "oipReady",
        "Is the server ready?",
        "As `/readyz`; 400 says no.",
        "oip",
        {200: oip.OipReady, 400: oip.OipReady},
    ),
    *(
        Operation(
            "get",
            f"/v2/models/{{model}}{version}{ready}",
            f"oipModel{'Version' if version else ''}{'Ready' if ready else ''}",
            "Is the model ready?" if ready else "Model metadata",
            "In memory and warm; 400 says no." if ready else "Without tensors: inference is served under `/v1`.",
            "oip",
            {200: oip.OipModelReady, 400: oip.OipModelReady} if ready else {200: oip.OipModel},
            problems=(404,),
            parameters=(MODEL, _VERSION) if version else (MODEL,),
        )
        for version in ("", "/versions/{version}")
        for ready in ("", "/ready")
    ),
    Operation(
        "post",
        "/v2/repository/index",
        "oipIndex",
        "List the repository",
        "Every model with its state; the body may be left out.",
        "oip",
        {200: list[oip.OipIndexEntry]},
        oip.OipIndexRequest,
        (400, 413, 422),
        example={"ready": True},
    ),
    *(
        Operation(
            "post",
            f"/v2/repository/models/{{model}}/{action}",
            f"oip{action.capitalize()}",
            f"{action.capitalize()} a model",
            f"Answers when it is {done}; whoever leaves before that cancels nothing. The body may be left out.",
            "oip",
            {200: None},
            oip.OipRepositoryRequest,
            (400, 404, 413, 422, 503),
            (MODEL,),
            {},
        )
        for action, done in (("load", "ready"), ("unload", "gone"))
    ),
)

CONTROL: Final[tuple[Operation, ...]] = (*_MODELS, *_OIP)
