"""The server of benchmarks/models_load.py: a FastAPI app with ondol under it and ten models of 200 MB.

python benchmarks/models_load_app.py FOLDER NUMBER_OF_MODELS [--unsized]
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from models_load_weights import MODEL_BYTES, Model, name_of
from models_server import serve

from ondol.asgi import install
from ondol.models import ModelSpec, ModelState


def make_app(folder: Path, count: int, *, is_sized: bool) -> FastAPI:
    """Return the app."""
    app = FastAPI()
    ondol = install(app)
    pool = ondol.models
    events: list[tuple[float, str, str]] = []

    def note(event: str, name: str) -> None:
        if event in {"ready", "unloaded", "failed"}:
            events.append((time.monotonic(), event, name))

    pool.add_listener(note)
    for number in range(count):
        load = functools.partial(Model, folder / name_of(number))
        size_bytes = MODEL_BYTES if is_sized else None
        pool.register(ModelSpec(name_of(number), load=load, size_bytes=size_bytes))

    @app.get("/hits/{name}")
    async def hit(name: str, begin: int) -> dict[str, Any]:
        is_ready = pool.status(name).state is ModelState.READY
        async with pool.lease(name) as model:
            total = await asyncio.to_thread(model.add, begin)
        return {"total": total, "was_ready": is_ready}

    @app.get("/report")
    async def report() -> dict[str, Any]:
        return {"pool": pool.get_stats(), "events": events}

    @app.post("/unload-all")
    async def unload_all() -> dict[str, Any]:
        await asyncio.gather(*map(pool.unload, pool.names()))
        return {"used_bytes": pool.get_stats()["used_bytes"]}

    return app


if __name__ == "__main__":
    serve(make_app(Path(sys.argv[1]), int(sys.argv[2]), is_sized="--unsized" not in sys.argv[3:]))
