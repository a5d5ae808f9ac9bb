"""Your own FastAPI app on ondol: a model that loads on first use, its answers cached, both watched.

pip install 'ondol[server]' fastapi
uvicorn examples.fastapi_app:app
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

from ondol import ModelSpec
from ondol.asgi import install

app = FastAPI(title="sentiment of reviews")
ondol = install(app)


def load_lexicon() -> dict[str, int]:
    """Load the "model": a tiny word list here, your weights there."""
    return {"good": 1, "great": 2, "bad": -1, "좋다": 1, "최고": 2, "별로": -1}


ondol.models.register(ModelSpec(name="lexicon", load=load_lexicon, priority=8))


@app.get("/sentiment")
async def sentiment(text: str) -> dict[str, Any]:
    """Score ``text``; the same text is computed once."""

    async def compute() -> int:
        async with ondol.models.lease("lexicon") as lexicon:
            return sum(lexicon.get(word, 0) for word in text.lower().split())

    return {"text": text, "score": await ondol.cache.get_or_compute("sentiment", text, compute=compute)}


@app.get("/warm")
async def warm(request: Request) -> dict[str, Any]:
    """Say which models are loaded and how often the cache answered."""
    stats = request.app.state.ondol.get_stats()
    return {"models": stats["models"]["ready"], "hit_rate": str(stats["cache"]["hit_rate"])}
