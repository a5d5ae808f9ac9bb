"""adapter: the package wordllama (static English word vectors)."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from ondol.similarity.embedders.info import EMBEDDERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from ondol.similarity.records import Kind

__all__ = ["WordLlamaEmbedder"]

# The package pads all texts of a call to the longest: the product of both bounds the memory of a call
# (2 KiB a token, at most three tokens a character).
_MAX_PADDED_CHARS: Final = 16_384


@contextmanager
def _untouched_root_logger() -> Iterator[None]:
    """Let ``logging.basicConfig`` do nothing: the package calls it on import, and logging is the application's.

    It leaves a root logger alone that has a handler already, so it is shown one that drops everything.
    """
    root, guard = logging.getLogger(), logging.NullHandler()
    root.addHandler(guard)
    try:
        yield
    finally:
        root.removeHandler(guard)


class WordLlamaEmbedder:
    """An :class:`~ondol.similarity.ports.Embedder`; constructing it loads the model.

    Thread-safety: calls may overlap.
    """

    name = "wordllama"
    dimension = EMBEDDERS[name].dimension

    def __init__(self) -> None:
        """Load tokenizer and weights from the package's own folder; nothing is downloaded."""
        from pathlib import Path  # noqa: PLC0415  # together with what needs it

        with _untouched_root_logger():
            import wordllama  # noqa: PLC0415  # imports numpy and more: only when the model is loaded

        folder = Path(wordllama.__file__).parent
        self._model: Any = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)

    def embed(self, texts: Sequence[str], kind: Kind) -> npt.NDArray[np.float32]:  # noqa: ARG002  # the port's signature
        """Return the vectors of ``texts``; the model makes no difference between the kinds."""
        import numpy as np  # noqa: PLC0415  # the model has imported it by now

        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for group in _groups(texts):
            raw = self._model.embed([texts[index] for index in group])
            lengths = np.linalg.norm(raw, axis=1, keepdims=True)
            # The package divides by the length as well, but makes NaN of a text without any token.
            vectors[group] = raw / np.where(lengths > 0, lengths, 1.0)
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens the model reads of each text."""
        return [
            sum(encoding.attention_mask)  # 0 for padding
            for group in ([text] for text in texts)
            for encoding in self._model.tokenize(group)
        ]


def _groups(texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield the places of texts of like length, few enough at a time that padding them stays cheap."""
    group: list[int] = []
    for index in sorted(range(len(texts)), key=lambda place: len(texts[place])):
        if group and (len(group) + 1) * len(texts[index]) > _MAX_PADDED_CHARS:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
