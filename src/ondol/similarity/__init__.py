"""decision: the similarity room's public names, loaded when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ondol.similarity.chunks import Chunk, split_chunks
    from ondol.similarity.corpus import sample_documents
    from ondol.similarity.embedders import EMBEDDERS, EmbedderInfo, embedder_specs, find_embedder
    from ondol.similarity.engine import STORE_FILE, SimilarityEngine
    from ondol.similarity.lexical import lexical_score, tokens
    from ondol.similarity.ports import Embedder
    from ondol.similarity.records import EmbeddingBatch, NewDocument, PairScore, SearchHit, StoredDocument
    from ondol.similarity.text import check_document_id, check_label, check_metadata, check_text

_HOMES = {
    "EMBEDDERS": "embedders",
    "STORE_FILE": "engine",
    "Chunk": "chunks",
    "Embedder": "ports",
    "EmbedderInfo": "embedders",
    "EmbeddingBatch": "records",
    "NewDocument": "records",
    "PairScore": "records",
    "SearchHit": "records",
    "SimilarityEngine": "engine",
    "StoredDocument": "records",
    "check_document_id": "text",
    "check_label": "text",
    "check_metadata": "text",
    "check_text": "text",
    "embedder_specs": "embedders",
    "find_embedder": "embedders",
    "lexical_score": "lexical",
    "sample_documents": "corpus",
    "split_chunks": "chunks",
    "tokens": "lexical",
}

__all__ = [
    "EMBEDDERS",
    "STORE_FILE",
    "Chunk",
    "Embedder",
    "EmbedderInfo",
    "EmbeddingBatch",
    "NewDocument",
    "PairScore",
    "SearchHit",
    "SimilarityEngine",
    "StoredDocument",
    "check_document_id",
    "check_label",
    "check_metadata",
    "check_text",
    "embedder_specs",
    "find_embedder",
    "lexical_score",
    "sample_documents",
    "split_chunks",
    "tokens",
]


def __getattr__(name: str) -> Any:
    """Import the module that holds ``name`` and return it (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        message = f"module 'ondol.similarity' has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(f"ondol.similarity.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
