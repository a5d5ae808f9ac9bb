"""service: ``POST /v1/similarity``: how alike are two texts, in meaning and in wording."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from ondol.server.decoding import check_texts, read_request
from ondol.server.problems import FieldError, InvalidRequestError
from ondol.server.schemas import SimilarityRequest, SimilarityResponse, SimilarityResult
from ondol.similarity.text import check_text

if TYPE_CHECKING:
    from starlette.requests import Request

    from ondol.server.ports import Engine
    from ondol.settings import Settings

__all__ = ["compare_texts"]

_DECODER = msgspec.json.Decoder(SimilarityRequest)


async def compare_texts(request: Request) -> Response:
    """Answer with the scores of ``text_a`` beside each other text."""
    body = await read_request(request, _DECODER)
    settings: Settings = request.app.state.service.settings
    engine: Engine = request.app.state.engine
    text_a = check_text(body.text_a, field="text_a", max_chars=settings.max_text_chars)
    texts = _other_texts(body, settings)
    model = body.model or settings.default_model
    scores = await engine.compare(text_a, texts, model=model)
    results = [
        SimilarityResult(index=index, semantic_score=score.semantic_score, lexical_score=score.lexical_score)
        for index, score in enumerate(scores)
    ]
    answer = SimilarityResponse(model=model, results=results)
    if not isinstance(body.text_b, UnsetType):
        answer.semantic_score, answer.lexical_score = results[0].semantic_score, results[0].lexical_score
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _other_texts(body: SimilarityRequest, settings: Settings) -> list[str]:
    if (body.text_b is UNSET) == (body.texts is UNSET):
        message = "give exactly one of text_b (one text) and texts (a list of texts)"
        given = FieldError("text_b", message), FieldError("texts", message)
        raise InvalidRequestError(message, *given)
    if not isinstance(body.text_b, UnsetType):
        return [check_text(body.text_b, field="text_b", max_chars=settings.max_text_chars)]
    assert not isinstance(body.texts, UnsetType)
    return check_texts(body.texts, field="texts", max_chars=settings.max_text_chars, max_texts=settings.max_batch_texts)
