"""service: ``GET /metrics``: every measurement in Prometheus' exposition format."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

from ondol.monitor.prometheus import PrometheusExporter

if TYPE_CHECKING:
    from starlette.requests import Request

    from ondol.server.ports import Service

__all__ = ["metrics"]


async def metrics(request: Request) -> Response:
    """Answer in the format that the scraper's ``Accept`` header asks for."""
    state = request.app.state
    if state.exporter is None:
        service: Service = state.service
        state.exporter = PrometheusExporter(service.monitor.collect)
    exporter: PrometheusExporter = state.exporter
    # Some hundred series take some hundred milliseconds, in which other requests go on.
    body, media_type = await asyncio.to_thread(exporter.render, ",".join(request.headers.getlist("accept")))
    return Response(body, headers={"Content-Type": media_type, "Cache-Control": "no-store"})
