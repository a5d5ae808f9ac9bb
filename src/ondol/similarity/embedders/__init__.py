"""facade: the names of the embedders' package."""

from __future__ import annotations

from ondol.similarity.embedders.info import EMBEDDERS, EmbedderInfo, find_embedder
from ondol.similarity.embedders.specs import embedder_specs

__all__ = ["EMBEDDERS", "EmbedderInfo", "embedder_specs", "find_embedder"]
