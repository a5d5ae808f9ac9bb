"""service: search by meaning and wording over the stored passages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ondol.similarity.lexical import tokens
from ondol.similarity.records import SearchHit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ondol.similarity.embedders.info import EmbedderInfo
    from ondol.similarity.scoring import Candidate, Ranked
    from ondol.similarity.store import DocumentStore
    from ondol.similarity.vector_index import VectorIndex

__all__ = ["Searcher"]

_MOST_QUERY_WORDS: Final = 256
_MOST_MATCHED_WORDS: Final = 64
_LEAST_CANDIDATES: Final = 50
_CANDIDATES_PER_RESULT: Final = 4
_WORD_MATCHES: Final = 2000


class Searcher:
    """Keeps each model's vectors in memory and ranks passages; exact for meaning, BM25 for wording.

    Wording counts for the 2,000 passages that are best by it.

    Thread-safety: ``find`` runs in the store's thread only.
    """

    def __init__(self) -> None:
        """Begin with nothing in memory."""
        self._indexes: dict[str, tuple[VectorIndex, int]] = {}

    def find(
        self, store: DocumentStore, info: EmbedderInfo, query: str, vector: npt.NDArray[np.float32], limit: int
    ) -> list[SearchHit]:
        """Return the ``limit`` best documents for ``query``, whose vector is ``vector``, best first.

        Cost: O(passages) for meaning, and O(passages that hold a word of the query) for wording.
        """
        from ondol.similarity.scoring import (  # noqa: PLC0415  # imports numpy: not before the first search
            rank_documents,
            wording_reference,
        )

        with store.snapshot():
            index = self._refreshed(store, info)
            frequencies = store.word_frequencies(dict.fromkeys(tokens(query)[:_MOST_QUERY_WORDS]))
            candidates = _candidates(store, index, vector, _matched_words(frequencies), limit)
            reference = wording_reference(frequencies.values(), store.count_chunks())
            ranked = rank_documents(candidates, floor=info.cosine_floor, reference=reference, limit=limit)
            return _with_passages(store, ranked)

    def memory_bytes(self) -> int:
        """Return how much memory the vectors take."""
        return sum(index.nbytes for index, _removals in list(self._indexes.values()))

    def clear(self) -> None:
        """Forget the vectors; the next search reads them again."""
        self._indexes.clear()

    def _refreshed(self, store: DocumentStore, info: EmbedderInfo) -> VectorIndex:
        """Return the model's vectors with what was added and removed since, here or by another process."""
        from ondol.similarity.vector_index import VectorIndex  # noqa: PLC0415  # imports numpy

        index, seen_removals = self._indexes.get(info.name, (VectorIndex(info.dimension), 0))
        removals = store.vectors.count_removals(info.name)
        if removals != seen_removals and len(index):
            index.keep(store.vectors.live_vector_ids(info.name))
        for rows in store.vectors.vectors_after(info.name, index.last_vector_id):
            index.append(rows)
        self._indexes[info.name] = (index, removals)
        return index


def _matched_words(frequencies: dict[str, int]) -> list[str]:
    """Return the words to look for: those that occur at all, the rarest first, not endlessly many."""
    present = [word for word, count in frequencies.items() if count]
    return sorted(present, key=lambda word: (frequencies[word], word))[:_MOST_MATCHED_WORDS]


def _candidates(
    store: DocumentStore,
    index: VectorIndex,
    vector: npt.NDArray[np.float32],
    words: list[str],
    limit: int,
) -> list[Candidate]:
    """Return the passages nearest in meaning and those nearest in wording, each with both scores."""
    from ondol.similarity.scoring import Candidate  # noqa: PLC0415  # imports numpy

    cosines = index.cosines(vector)
    near = index.best_documents(cosines, max(_LEAST_CANDIDATES, _CANDIDATES_PER_RESULT * limit))
    matches = {match.chunk_id: match for match in store.match_words(words, _WORD_MATCHES)}
    found = {
        hit.chunk_id: Candidate(
            hit.chunk_id, hit.document_key, hit.cosine, matches[hit.chunk_id].bm25 if hit.chunk_id in matches else 0.0
        )
        for hit in near
    }
    # A passage that another caller has just added has no vector yet: this search began before it.
    for chunk_id, cosine in index.cosines_of(list(matches), cosines).items():
        match = matches[chunk_id]
        found[chunk_id] = Candidate(chunk_id, match.document_key, cosine, match.bm25)
    return list(found.values())


def _with_passages(store: DocumentStore, ranked: list[Ranked]) -> list[SearchHit]:
    passages = store.passages(each.chunk_id for each in ranked)
    return [
        SearchHit(
            id=passage.document_id,
            title=passage.title,
            score=each.score,
            semantic_score=each.cosine,
            lexical_score=each.lexical,
            passage=passage.text,
            metadata=passage.metadata,
        )
        for each in ranked
        if (passage := passages.get(each.chunk_id)) is not None
    ]
