"""decision: what the similarity room asks of the world, as protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    import numpy as np
    import numpy.typing as npt

    from ondol.similarity.records import Kind

__all__ = ["Embedder", "EmbeddingCache", "ModelLeases"]


class Embedder(Protocol):
    """A loaded model; called in a thread, one call at a time."""

    name: str
    dimension: int

    def embed(self, texts: Sequence[str], kind: Kind) -> npt.NDArray[np.float32]:
        """Return the vectors of ``texts``, ``(n, dimension) float32``, each of length 1."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens the model reads of each text."""
        ...


class ModelLeases(Protocol):
    """What the room needs of :class:`ondol.models.ModelPool`."""

    def lease(self, name: str) -> AbstractAsyncContextManager[Any]:
        """Return the loaded model for the time of an ``async with`` block."""
        ...

    async def load(self, name: str, *, is_background: bool = False) -> None:
        """Return when the model is ready."""
        ...


class EmbeddingCache(Protocol):
    """What the room needs of :class:`ondol.cache.Cache`."""

    async def get(self, name: str, /, *parts: object, default: Any = None) -> Any:
        """Return the entry's value, or ``default``; does not wait for what is in memory."""
        ...

    async def get_many(self, name: str, parts: Iterable[Any]) -> dict[Any, Any]:
        """Return the values of those entries that there are, by their parts; does not wait for what is in memory."""
        ...

    def set_nowait(
        self, name: str, value: Any, /, *parts: object, cost_seconds: float = 0.0, is_announced: bool = True
    ) -> None:
        """Store ``value``, which took ``cost_seconds``; tell other processes that it changed if ``is_announced``."""
        ...
