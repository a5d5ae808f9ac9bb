"""adapter: the JSON forms of the requests and responses of the HTTP API; the OpenAPI description is made from these."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ondol.similarity.text import DOCUMENT_ID_RULE, MAX_METADATA_ENTRIES, MAX_TITLE_CHARS

__all__ = [
    "Document",
    "DocumentCount",
    "DocumentInput",
    "DocumentsCreated",
    "DocumentsRequest",
    "EmbeddingItem",
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "Liveness",
    "OpenAIError",
    "Problem",
    "ProblemField",
    "SearchRequest",
    "SearchResponse",
    "SearchResult",
    "SimilarityRequest",
    "SimilarityResponse",
    "SimilarityResult",
    "Usage",
]

Model = Annotated[
    Annotated[str, Meta(max_length=200)] | None,
    Meta(description="Name of an embedding model; the default model when absent.", examples=["wordllama"]),
]
Score = Annotated[float, Meta(description="How well it fits: meaning and wording together, 0 to 1.", examples=[0.71])]
SemanticScore = Annotated[
    float,
    Meta(description="Nearness in meaning, -1 to 1: the cosine of the model's vectors. Works across languages."),
]
LexicalScore = Annotated[
    float, Meta(description="Wording in common (words, and pairs of Hangul syllables), 0 to 1.", examples=[0.25])
]
# Ids, titles and metadata are checked by the same functions as on the command line (ondol.similarity.text); the
# limits here only describe them.
Metadata = Annotated[
    dict[str, str],
    Meta(
        description="Your own names and values; kept and given back.",
        examples=[{"kind": "resume"}],
        extra_json_schema={"maxProperties": MAX_METADATA_ENTRIES},
    ),
]
DocumentId = Annotated[
    str,
    Meta(description=f"Your own id, {DOCUMENT_ID_RULE}; one is made when absent.", examples=["cv-17"]),
]
Title = Annotated[
    str,
    Meta(
        description="A title, searched too.",
        examples=["백엔드 개발자 이력서"],
        extra_json_schema={"maxLength": MAX_TITLE_CHARS},
    ),
]


class _Request(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A request takes the fields it knows, and no others: a misspelt option is told, not ignored."""


class EmbeddingsRequest(_Request):
    """What OpenAI's ``POST /v1/embeddings`` takes; texts only, no token ids."""

    input: Annotated[
        str | list[str],
        Meta(
            description="One text or a list of texts.",
            examples=["따뜻한 방", ["a warm room", "따뜻한 방"]],
        ),
    ]
    model: Model = None
    encoding_format: Annotated[
        Literal["float", "base64"],
        Meta(description="`float`: a list of numbers; `base64`: little-endian float32, a quarter of the size."),
    ] = "float"
    dimensions: Annotated[
        int | None, Meta(description="Must be the model's own dimension when given; vectors are never cut.")
    ] = None
    user: Annotated[str | None, Meta(description="Accepted for OpenAI's clients; not used.")] = None


class EmbeddingItem(msgspec.Struct, kw_only=True):
    """The vector of one text."""

    object: Literal["embedding"] = "embedding"
    index: Annotated[int, Meta(description="Place of the text in `input`.")]
    embedding: Annotated[list[float] | str, Meta(description="Numbers, or their base64 form.")]


class Usage(msgspec.Struct, kw_only=True):
    """How many tokens the model read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(msgspec.Struct, kw_only=True):
    """One vector a text, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[EmbeddingItem]
    model: Annotated[str, Meta(description="The model that computed the vectors.")]
    usage: Usage


class SimilarityRequest(_Request):
    """One text and what it is compared with: exactly one of `text_b` and `texts`."""

    text_a: Annotated[str, Meta(description="The text that the others are compared with.", examples=["따뜻한 방"])]
    text_b: Annotated[
        str | UnsetType, Meta(description="One text to compare `text_a` with.", examples=["a warm room"])
    ] = UNSET
    texts: Annotated[
        list[str] | UnsetType,
        Meta(description="Several texts to compare `text_a` with.", examples=[["a warm room", "a cold beer"]]),
    ] = UNSET
    model: Model = None


class SimilarityResult(msgspec.Struct, kw_only=True):
    """The scores of one pair."""

    index: Annotated[int, Meta(description="Place of the text in `texts`; 0 for `text_b`.")]
    semantic_score: SemanticScore
    lexical_score: LexicalScore


class SimilarityResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One result a pair; for `text_b` its scores stand at the top too."""

    model: str
    results: list[SimilarityResult]
    semantic_score: SemanticScore | UnsetType = UNSET
    lexical_score: LexicalScore | UnsetType = UNSET


class DocumentInput(_Request):
    """A document to store."""

    text: Annotated[str, Meta(description="The whole text.", examples=["백엔드 개발자 5년, 파이썬과 Go."])]
    id: DocumentId | None = None
    title: Title = ""
    metadata: Metadata = {}


class DocumentsRequest(_Request):
    """One document (`text` with `id`, `title`, `metadata`) or several (`documents`)."""

    text: Annotated[str | UnsetType, Meta(description="The text of the one document.")] = UNSET
    id: DocumentId | UnsetType | None = UNSET
    title: Title | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    documents: Annotated[
        list[DocumentInput] | UnsetType, Meta(description="Several documents; all are stored, or none.")
    ] = UNSET
    model: Model = None


class DocumentsCreated(msgspec.Struct, kw_only=True):
    """What was stored."""

    ids: Annotated[list[str], Meta(description="The ids, in the order of the documents.")]


class Document(msgspec.Struct, kw_only=True):
    """A stored document."""

    id: str
    title: str
    text: str
    metadata: dict[str, str]
    added_at: Annotated[float, Meta(description="When it was stored, in seconds since 1970.")]
    chunk_count: Annotated[int, Meta(description="Passages it was split into.")]


class DocumentCount(msgspec.Struct, kw_only=True):
    """How many documents are stored."""

    count: int


class SearchRequest(_Request):
    """What to search for."""

    query: Annotated[str, Meta(description="What to search for, in any language.", examples=["파이썬 백엔드 개발자"])]
    limit: Annotated[int, Meta(ge=1, description="Most results to return.")] = 10
    model: Model = None


class SearchResult(msgspec.Struct, kw_only=True):
    """A document that was found."""

    id: str
    title: str
    score: Score
    semantic_score: SemanticScore
    lexical_score: LexicalScore
    passage: Annotated[str, Meta(description="The passage of the document that fits best.")]
    metadata: dict[str, str]


class SearchResponse(msgspec.Struct, kw_only=True):
    """The documents found, best first."""

    model: str
    results: list[SearchResult]


class Liveness(msgspec.Struct, kw_only=True):
    """The process answers."""

    status: Literal["alive"] = "alive"


class ProblemField(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is wrong with one field."""

    field: Annotated[str, Meta(examples=["texts[3]"])]
    message: str
    limit: float | UnsetType = UNSET
    allowed: list[str | int] | UnsetType = UNSET


class OpenAIError(msgspec.Struct, kw_only=True):
    """The error once more, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None
    code: str


class Problem(msgspec.Struct, kw_only=True):
    """An error, as RFC 9457 describes it."""

    type: Annotated[str, Meta(examples=["urn:ondol:problem:invalid-text"])]
    title: str
    status: int
    detail: str
    instance: Annotated[str, Meta(description="The path that was asked for.")]
    code: Annotated[str, Meta(description="The last part of `type`.", examples=["invalid-text"])]
    request_id: Annotated[str, Meta(description="Finds the request in the server's log.")]
    errors: list[ProblemField]
    error: OpenAIError
