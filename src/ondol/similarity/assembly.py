"""service: puts a similarity engine on a runtime: registers the embedders as its models and hands it their cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ondol.similarity.embedders import embedder_specs
from ondol.similarity.engine import SimilarityEngine

if TYPE_CHECKING:
    from ondol.service import OptimizationService

__all__ = ["build_engine"]


def build_engine(service: OptimizationService) -> SimilarityEngine:
    """Return an engine on ``service``'s models and cache; call it before ``service.start()``.

    Registered first, the embedders are preloaded with everything else where the profile says so.

    Raises:
        UnknownModelError: the default model of the settings is none of the known ones.
        MissingExtraError: it is known, but its package is not installed.
    """
    for spec in embedder_specs(service.settings):
        service.models.register(spec)
    return SimilarityEngine(
        service.models, service.cache, service.settings, recorder=service.monitor.add_metric, spans=service.spans
    )
