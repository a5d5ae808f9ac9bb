"""service: texts to vectors, through the cache and the batcher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from ondol.recorder import discard
from ondol.similarity.batching import TextBatcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.clock import Clock
    from ondol.recorder import Recorder
    from ondol.similarity.batching import ComputedText
    from ondol.similarity.embedders.info import EmbedderInfo
    from ondol.similarity.ports import EmbeddingCache, ModelLeases
    from ondol.similarity.records import EmbeddedText, Kind

__all__ = ["CACHE_NAME", "TextEmbedder"]

CACHE_NAME: Final = "embedding"
"""Name of the cache entries; their parts are model, kind and text."""


class TextEmbedder:
    """Gives each text's vector: from the cache, else computed in a batch with what others ask for.

    Thread-safety: none; used on one event loop at a time.
    """

    def __init__(
        self,
        pool: ModelLeases,
        cache: EmbeddingCache,
        *,
        clock: Clock | None = None,
        recorder: Recorder = discard,
    ) -> None:
        """Take models from ``pool`` and keep vectors in ``cache``. Starts nothing."""
        self._cache = cache
        self._batcher = TextBatcher(pool, keep=self._store, clock=clock, recorder=recorder)
        self._cached_texts = 0

    async def embed(
        self, info: EmbedderInfo, texts: Sequence[str], kind: Kind, *, is_urgent: bool = True, is_kept: bool = True
    ) -> list[EmbeddedText]:
        """Return the embeddings of ``texts`` in their order; equal texts are computed once.

        Args:
            info: the model.
            texts: any number of texts.
            kind: what they are used for; no difference for models that make none.
            is_urgent: whether they go before texts that are not.
            is_kept: whether new results are put into the cache. Passages are not: the store keeps their vectors.

        Raises:
            ModelError: the model cannot be loaded or does not work.
        """
        kind = info.effective_kind(kind)
        found: dict[str, EmbeddedText] = {}
        missing: dict[str, None] = {}
        for text in texts:
            if text in found or text in missing:
                continue
            held = self._cache.get_nowait(CACHE_NAME, info.name, kind, text)
            if held is None:
                missing[text] = None
            else:
                found[text] = cast("EmbeddedText", held)
        self._cached_texts += len(found)
        computed = await self._batcher.embed(info, list(missing), kind, is_urgent=is_urgent, is_kept=is_kept)
        found.update((text, each.embedded) for text, each in zip(missing, computed, strict=True))
        return [found[text] for text in texts]

    async def close(self) -> None:
        """End the work under way. Usable again afterwards."""
        await self._batcher.close()

    def get_stats(self) -> dict[str, Any]:
        """Return how many texts were computed, in how many batches, and how many came from the cache."""
        return {**self._batcher.get_stats(), "cached_texts": self._cached_texts}

    def _store(self, info: EmbedderInfo, kind: Kind, text: str, computed: ComputedText) -> None:
        self._cache.set_nowait(CACHE_NAME, computed.embedded, info.name, kind, text, cost_seconds=computed.cost_seconds)
