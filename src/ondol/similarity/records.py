"""decision: what goes into the similarity room and what comes out of it, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import numpy.typing as npt

__all__ = [
    "EmbeddedText",
    "EmbeddingBatch",
    "Kind",
    "NewDocument",
    "PairScore",
    "Progress",
    "SearchHit",
    "StoredDocument",
]

Kind = Literal["query", "passage"]
"""What a text is used for: asymmetric models embed a question and a text that may answer it differently."""

Progress: TypeAlias = "Callable[[int, int], None]"
"""Called on the event loop with (done, total) as long work goes on."""


class EmbeddedText(NamedTuple):
    """One text's vector and token count, in one row of numbers: what the cache keeps is the row as it is."""

    row: npt.NDArray[np.float32]
    """``(d + 1,) float32``, read-only: the vector, then the token count, which is exact up to 16,777,216."""

    @property
    def vector(self) -> npt.NDArray[np.float32]:
        """The vector, ``(d,) float32``, read-only and of length 1."""
        return self.row[:-1]

    @property
    def token_count(self) -> int:
        """How many tokens the model read."""
        return int(self.row.item(-1))


@dataclass(frozen=True, slots=True)
class EmbeddingBatch:
    """The vectors of some texts, ``(n, d) float32`` in the order of the texts, and each one's token count."""

    model: str
    vectors: npt.NDArray[np.float32]
    token_counts: list[int]


@dataclass(frozen=True, slots=True)
class PairScore:
    """How alike two texts are: by meaning (cosine, -1 to 1) and by wording (Dice, 0 to 1)."""

    semantic_score: float
    lexical_score: float


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document to store; without an ``id`` it gets one."""

    text: str
    id: str | None = None
    title: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as it is stored; ``added_at_s`` is seconds since the Unix epoch."""

    id: str
    title: str
    text: str
    metadata: dict[str, str]
    added_at_s: float
    chunk_count: int


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One found document with its best passage; :func:`ondol.similarity.scoring.hybrid` explains ``score``."""

    id: str
    title: str
    score: float
    semantic_score: float
    lexical_score: float
    passage: str
    metadata: dict[str, str]
