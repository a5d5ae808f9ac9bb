"""decision: numbers for likeness: cosine, normalisation, and the weighted sum of meaning and wording.

**Hybrid score.** ``score = 0.7 · meaning + 0.3 · wording``, both from 0 to 1, so that it is from 0 to 1 too:

- *meaning* is the cosine of query and passage, with the model's *cosine floor* brought to 0 and 1 kept at 1. The floor
  is the cosine that two unrelated texts have on average: 0.15 for one model, 0.83 for another, so that the bare cosines
  of different models do not mean the same.
- *wording* is BM25 as a share of what a passage of average length would get that holds every word of the query once:
  the sum of the words' inverse document frequencies. More than that counts as 1.

Both normalisations are fixed: a document's score does not depend on what else was found.

Source: Bruch, Gai, Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (TOIS 2023): a convex sum with
theoretical bounds beats rank fusion. Ours differs in BM25's upper bound, which there is the best score found.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

__all__ = [
    "SEMANTIC_WEIGHT",
    "Candidate",
    "Ranked",
    "cosines",
    "fixed_normalised",
    "hybrid",
    "inverse_document_frequency",
    "rank_documents",
    "unit_rows",
    "wording_reference",
    "wording_share",
]

SEMANTIC_WEIGHT: Final = 0.7


def unit_rows(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return ``vectors`` ``(n, d)`` with every row of length 1, as float32; a row of zeros stays one.

    Raises:
        ValueError: a number is not finite, or the shape is not ``(n, d)``.
    """
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.ndim != 2:
        raise ValueError(f"vectors must have the shape (n, d), not {rows.shape}")
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    if not np.isfinite(lengths).all():
        raise ValueError("vectors hold numbers that are not finite")
    lengths[lengths == 0] = 1.0
    unit: npt.NDArray[np.float32] = (rows / lengths[:, None]).astype(np.float32)
    return unit


def cosines(vector: npt.NDArray[np.float32], rows: npt.NDArray[np.float32]) -> list[float]:
    """Return the cosine of ``vector`` ``(d,)`` with each of ``rows`` ``(n, d)``, from -1 to 1; 0 beside a zero vector.

    Computed in float64, so that ranks do not depend on rounding.
    """
    a, b = vector.astype(np.float64), rows.astype(np.float64)
    lengths = np.linalg.norm(a) * np.linalg.norm(b, axis=1)
    lengths[lengths == 0] = np.inf
    return [float(value) for value in np.clip((b @ a) / lengths, -1.0, 1.0)]


def fixed_normalised(cosine: float, floor: float) -> float:
    """Return ``cosine`` on a scale on which ``floor`` (and less) is 0 and 1 is 1.

    >>> fixed_normalised(0.75, 0.5), fixed_normalised(-0.2, 0.5)
    (0.5, 0.0)
    """
    return min(1.0, max(0.0, (cosine - floor) / (1.0 - floor)))


def inverse_document_frequency(matching: int, total: int) -> float:
    """Return a word's weight in BM25 as SQLite's FTS5 computes it: rare words weigh more, none less than 1e-6."""
    return max(1e-6, math.log((total - matching + 0.5) / (matching + 0.5)))


def wording_reference(frequencies: Iterable[int], total: int) -> float:
    """Return the BM25 score of a passage of average length that holds every word of a query once.

    Args:
        frequencies: for each word of the query, how many of the passages hold it.
        total: how many passages there are.
    """
    return sum(inverse_document_frequency(count, total) for count in frequencies)


def wording_share(bm25: float, reference: float) -> float:
    """Return ``bm25`` (higher is better) as a share of ``reference``, from 0 to 1."""
    return min(1.0, max(0.0, bm25 / reference)) if reference > 0 else 0.0


def hybrid(semantic: float, lexical: float, weight: float = SEMANTIC_WEIGHT) -> float:
    """Return the weighted sum of two scores from 0 to 1.

    >>> hybrid(1.0, 0.5)
    0.85
    """
    return weight * semantic + (1.0 - weight) * lexical


class Candidate(NamedTuple):
    """A passage that may be found: whose it is, its cosine, and its BM25 score (0 without any word in common)."""

    chunk_id: int
    document_key: int
    cosine: float
    bm25: float


class Ranked(NamedTuple):
    """A document's best passage and its scores."""

    chunk_id: int
    document_key: int
    score: float
    cosine: float
    lexical: float


def rank_documents(candidates: Iterable[Candidate], *, floor: float, reference: float, limit: int) -> list[Ranked]:
    """Return the ``limit`` documents with the best passages, best first.

    Of equal scores (all below the floor are 0) the nearer in meaning comes first, then the older document.
    """
    best: dict[int, Ranked] = {}
    for chunk_id, document_key, cosine, bm25 in candidates:
        lexical = wording_share(bm25, reference)
        score = hybrid(fixed_normalised(cosine, floor), lexical)
        held = best.get(document_key)
        if held is None or (score, cosine, -chunk_id) > (held.score, held.cosine, -held.chunk_id):
            best[document_key] = Ranked(chunk_id, document_key, score, cosine, lexical)
    return sorted(best.values(), key=lambda ranked: (-ranked.score, -ranked.cosine, ranked.document_key))[:limit]
