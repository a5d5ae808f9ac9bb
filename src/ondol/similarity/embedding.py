"""service: texts to vectors, through the cache and the batcher."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ondol.recorder import discard
from ondol.similarity.batching import TextBatcher
from ondol.similarity.records import EmbeddedText
from ondol.tracing import NO_SPAN, SpanRelay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.clock import Clock
    from ondol.recorder import Recorder
    from ondol.similarity.batching import ComputedText
    from ondol.similarity.embedders.info import EmbedderInfo
    from ondol.similarity.ports import EmbeddingCache, ModelLeases
    from ondol.similarity.records import Kind
    from ondol.tracing import Span, Value

__all__ = ["CACHE_NAME", "CacheParts", "TextEmbedder", "cache_parts"]

CACHE_NAME: Final = "embedding"
"""Name of the cache entries; :func:`cache_parts` tells them apart."""

CacheParts: TypeAlias = "tuple[str, Kind, str]"
_Wanted: TypeAlias = "dict[CacheParts, EmbeddedText | None]"

_new: Final = tuple.__new__
"""Makes a named tuple in half the time that its own constructor takes."""


def cache_parts(info: EmbedderInfo, kind: Kind, text: str) -> CacheParts:
    """Return under which parts the cache keeps a text's row: model and its version, kind, text.

    Entries outlive this process, and others share them: another version of a model may give other vectors.
    """
    return _versioned(info.name, info.package), info.effective_kind(kind), text


class TextEmbedder:
    """Gives each text's vector: from the cache, else computed in a batch with what others ask for.

    What the cache keeps are plain rows of numbers, which its tiers below the memory take as well: texts that another
    process embedded, or this one before a restart, are not computed again.

    Thread-safety: none; used on one event loop at a time.
    """

    def __init__(
        self,
        pool: ModelLeases,
        cache: EmbeddingCache,
        *,
        clock: Clock | None = None,
        recorder: Recorder = discard,
        spans: SpanRelay | None = None,
    ) -> None:
        """Take models from ``pool`` and keep vectors in ``cache``. Starts nothing."""
        self._spans = spans if spans is not None else SpanRelay()
        self._cache = cache
        self._batcher = TextBatcher(pool, keep=self._store, clock=clock, recorder=recorder, spans=self._spans)
        self._cached_texts = 0
        self._lookups: dict[int, _Wanted] = {}

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
        found = await self._find(info, texts, kind)
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            with self._span(info, len(missing), len(found)) as span:
                computed = await self._batcher.embed(
                    info, missing, kind, is_urgent=is_urgent, is_kept=is_kept, span=span
                )
            found.update((text, each.embedded) for text, each in zip(missing, computed, strict=True))
        elif self._spans.is_on:
            self._spans.event("similarity.embed", _span_attributes(info, 0, len(found)))
        return [found[text] for text in texts]

    def _span(self, info: EmbedderInfo, missing_count: int, cached_count: int) -> Span:
        if not self._spans.is_on:
            return NO_SPAN
        return self._spans.span("similarity.embed", _span_attributes(info, missing_count, cached_count))

    async def close(self) -> None:
        """End the work under way. Usable again afterwards."""
        await self._batcher.close()

    def get_stats(self) -> dict[str, Any]:
        """Return how many texts were computed, in how many batches, and how many came from the cache."""
        return {**self._batcher.get_stats(), "cached_texts": self._cached_texts}

    async def _find(self, info: EmbedderInfo, texts: Sequence[str], kind: Kind) -> dict[str, EmbeddedText]:
        """Return what the cache has, and what was computed while its tiers were asked; for its memory nobody waits."""
        model, shape = _versioned(info.name, info.package), (info.dimension + 1,)
        wanted: _Wanted = {(model, kind, text): None for text in texts}
        self._lookups[id(wanted)] = wanted
        try:
            if len(wanted) > 1:
                held = await self._cache.get_many(CACHE_NAME, wanted)
            else:  # by far the most frequent; this is faster
                held = {parts: await self._cache.get(CACHE_NAME, *parts) for parts in wanted}
        finally:
            del self._lookups[id(wanted)]
        found = {
            parts[2]: _new(EmbeddedText, (row,))
            for parts, row in held.items()
            # What lies in a shared tier may be anybody's.
            if getattr(row, "shape", None) == shape and row.dtype.char == "f"
        }
        self._cached_texts += len(found)
        if len(found) < len(wanted):
            found |= {parts[2]: computed for parts, computed in wanted.items() if computed is not None}
        return found

    def _store(self, info: EmbedderInfo, kind: Kind, text: str, computed: ComputedText) -> None:
        parts = cache_parts(info, kind, text)
        # Not announced: what others hold of this text is as good.
        self._cache.set_nowait(
            CACHE_NAME, computed.embedded.row, *parts, cost_seconds=computed.cost_seconds, is_announced=False
        )
        for wanted in self._lookups.values():
            if parts in wanted:
                wanted[parts] = computed.embedded


def _span_attributes(info: EmbedderInfo, missing_count: int, cached_count: int) -> dict[str, Value]:
    return {"model.name": info.name, "similarity.texts": missing_count, "similarity.cached_texts": cached_count}


@cache
def _versioned(name: str, package: str) -> str:
    """Return a model's name with the version of the package that it ships in."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  # not before the first embedding

    try:
        return f"{name}@{version(package)}"
    except PackageNotFoundError:  # a module that nobody installed as a package
        return name
