"""service: ``POST /v1/embeddings``, OpenAI's call."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from ondol.errors import UnknownModelError
from ondol.server.decoding import check_texts, read_request
from ondol.server.problems import FieldError, InvalidRequestError
from ondol.server.schemas import EmbeddingItem, EmbeddingsRequest, EmbeddingsResponse, Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from starlette.requests import Request

    from ondol.server.ports import Engine
    from ondol.settings import Settings

__all__ = ["create_embeddings"]

_DECODER = msgspec.json.Decoder(EmbeddingsRequest)
_HINTS = {"input": "lists of token ids are not accepted, send the text itself"}


async def create_embeddings(request: Request) -> Response:
    """Answer with one vector a text."""
    body = await read_request(request, _DECODER, hints=_HINTS)
    settings: Settings = request.app.state.service.settings
    engine: Engine = request.app.state.engine
    texts = [body.input] if isinstance(body.input, str) else body.input
    if isinstance(body.input, str):
        texts = [_check_one(body.input, settings)]
    else:
        texts = check_texts(
            body.input, field="input", max_chars=settings.max_text_chars, max_texts=settings.max_batch_texts
        )
    model = body.model or settings.default_model
    _check_dimensions(engine, model, body.dimensions)
    batch = await engine.embed(texts, model=model)
    to_json = _to_base64 if body.encoding_format == "base64" else _to_floats
    tokens = sum(batch.token_counts)
    answer = EmbeddingsResponse(
        data=[EmbeddingItem(index=index, embedding=to_json(vector)) for index, vector in enumerate(batch.vectors)],
        model=batch.model,
        usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
    )
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _check_one(text: str, settings: Settings) -> str:
    from ondol.similarity.text import check_text

    return check_text(text, field="input", max_chars=settings.max_text_chars)


def _check_dimensions(engine: Engine, model: str, dimensions: int | None) -> None:
    """Refuse other dimensions than the model's: a cut vector is a worse vector, and nobody would be told."""
    if dimensions is None:
        return
    known = {info.name: info.dimension for info in engine.models()}
    if model not in known:
        raise UnknownModelError(model, list(known))
    if known[model] != dimensions:
        message = f"the model {model!r} has {known[model]} dimensions, {dimensions} were asked for"
        raise InvalidRequestError(message, FieldError("dimensions", message, allowed=[known[model]]))


def _to_base64(vector: npt.NDArray[np.float32]) -> str:
    little_endian = vector if sys.byteorder == "little" and vector.dtype == "float32" else vector.astype("<f4")
    return base64.b64encode(little_endian.tobytes()).decode("ascii")


def _to_floats(vector: npt.NDArray[np.float32]) -> list[float]:
    values: list[float] = vector.tolist()
    return values
