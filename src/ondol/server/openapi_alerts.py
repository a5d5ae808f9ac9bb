"""adapter: the operations on alerts, as the OpenAPI description lists them."""

from __future__ import annotations

from typing import Final

from ondol.server import schemas_alerts as schemas
from ondol.server.openapi_table import BODY_PROBLEMS, Operation, Parameter

__all__ = ["ALERTS"]

_TAG: Final = "alerts"

ALERTS: Final[tuple[Operation, ...]] = (
    Operation(
        "get",
        "/v1/alerts",
        "getAlerts",
        "Read alerts",
        "Each rule and where its alert is, the alerts that fire, the silences, and how the notices fare.",
        _TAG,
        {200: schemas.AlertOverview},
    ),
    Operation(
        "get",
        "/v1/alerts/history",
        "getAlertHistory",
        "Read the history of alerts",
        "What fired and what was resolved, newest first; the last 1000 transitions since the start.",
        _TAG,
        {200: schemas.AlertHistory},
        problems=(422,),
        parameters=(Parameter("limit", "query", "Most transitions to return, 1 to 1000; 100 when absent.", "integer"),),
    ),
    Operation(
        "post",
        "/v1/alerts/silences",
        "addAlertSilence",
        "Silence alerts",
        "Holds back the notices of alerts whose labels fit, for a while; the alerts go on and are shown. At most 200, "
        "and they end with the server.",
        _TAG,
        {201: schemas.AlertSilence},
        schemas.AlertSilenceRequest,
        BODY_PROBLEMS,
        example={"matchers": {"alertname": "memory_high"}, "duration_seconds": "2h", "comment": "a planned import"},
    ),
    Operation(
        "delete",
        "/v1/alerts/silences/{silence_id}",
        "deleteAlertSilence",
        "End a silence",
        "Before its time: notices of the alerts it fitted are sent again.",
        _TAG,
        {204: None},
        problems=(404,),
        parameters=(Parameter("silence_id", "path", "The silence's id."),),
    ),
)
