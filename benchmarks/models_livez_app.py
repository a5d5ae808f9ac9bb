"""The server of benchmarks/models_livez.py: ondol's own, with five models that are hard to load.

python benchmarks/models_livez_app.py KIND ISOLATION SECONDS SWITCH_INTERVAL FOLDER
"""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import TYPE_CHECKING

from models_livez_loaders import KINDS
from models_server import serve
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ondol.models import ModelSpec
from ondol.server.app import create_app
from ondol.server.late_engine import LateEngine
from ondol.service import OptimizationService
from ondol.settings_reader import load_settings

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from ondol.models import Isolation

MODELS = 5


def make_app(kind: str, isolation: Isolation, seconds: float, folder: str) -> Starlette:
    """Return the server's app; its ``/load-all`` answers when all five are loaded."""
    settings = load_settings(dotenv_path=None).values
    service = OptimizationService(settings)
    service.models.configure(max_demand_loads=MODELS)
    names = [f"{kind}-{number}" for number in range(MODELS)]
    for name in names:
        load = functools.partial(KINDS[kind], seconds, folder)
        service.models.register(ModelSpec(name, load=load, isolation=isolation))

    async def load_all(_request: Request) -> Response:
        await asyncio.gather(*map(service.models.load, names))
        return PlainTextResponse("loaded")

    app = create_app(service, LateEngine(service, settings))
    app.router.routes.append(Route("/load-all", load_all))
    return app


if __name__ == "__main__":
    asked_kind, asked_isolation, asked_seconds, asked_interval, asked_folder = sys.argv[1:]
    sys.setswitchinterval(float(asked_interval))
    checked: Isolation = "process" if asked_isolation == "process" else "thread"
    serve(make_app(asked_kind, checked, float(asked_seconds), asked_folder))
