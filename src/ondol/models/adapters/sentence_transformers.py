"""adapter: embedding models of the package sentence-transformers."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ondol.errors import AlreadyClosedError, ConfigurationError, ModelError, ModelLoadError
from ondol.extras import import_extra
from ondol.models.allocator import give_back

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

__all__ = ["SentenceTransformerModel", "sentence_transformer"]

_Result = TypeVar("_Result")

_PROMPTS: Final = {"passage": ("passage", "document", "corpus")}  # as the package itself looks for them


class SentenceTransformerModel:
    """An embedder over a ``SentenceTransformer``; made by :func:`sentence_transformer`.

    Thread-safety: safe; calls wait for each other. One call computes with all of torch's threads, and tokenizers
    refuse to be used twice at the same time.
    """

    def __init__(self, model: Any, name: str, *, max_batch: int) -> None:
        """Wrap a loaded model."""
        self._model = model
        self._lock = threading.Lock()
        self.name = name
        self.max_batch = max_batch
        self.size_bytes = _parameter_bytes(model)
        """Bytes of its parameters, what it counts in a budget; ``None`` where they cannot be counted."""
        self.dimension = _dimension(model) or int(self._encode(model, [""], None).shape[1])

    def embed(self, texts: Sequence[str], kind: str = "passage") -> npt.NDArray[np.float32]:
        """Return the unit vectors of ``texts``, ``(n, dimension) float32``.

        ``kind`` picks the model's own prompt of that name, where it has one: ``query`` or ``passage`` (which some
        models call ``document`` or ``corpus``).

        Raises:
            AlreadyClosedError: the model was closed.
            ModelError: the package failed; ``__cause__`` is its own error.
        """
        return self._call(lambda model: self._encode(model, list(texts), kind))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens the model reads of each text.

        Raises:
            AlreadyClosedError: the model was closed.
            ModelError: the package failed; ``__cause__`` is its own error.
        """
        return self._call(lambda model: _token_counts(model.tokenizer, list(texts)))

    def close(self) -> None:
        """Wait for the call under way, let the model go, and give its memory back, as far as torch returns it."""
        with self._lock:
            is_first = self._model is not None
            self._model = None
        if is_first:
            gc.collect()  # the package's models refer to themselves
            give_back()

    def _call(self, work: Callable[[Any], _Result]) -> _Result:
        with self._lock:
            if self._model is None:
                message = f"model {self.name!r} is closed"
                raise AlreadyClosedError(message)
            try:
                return work(self._model)
            except Exception as exc:
                message = f"model {self.name!r} could not compute: {exc}"
                raise ModelError(message) from exc

    def _encode(self, model: Any, texts: list[str], kind: str | None) -> npt.NDArray[np.float32]:
        prompts = getattr(model, "prompts", None) or {}
        names = _PROMPTS.get(kind, (kind,)) if kind is not None else ()
        vectors: npt.NDArray[np.float32] = model.encode(
            texts,
            batch_size=self.max_batch,
            prompt_name=next((name for name in names if name in prompts), None),
            convert_to_numpy=True,
            normalize_embeddings=True,
            show_progress_bar=False,
        ).astype("float32", copy=False)
        return vectors if texts else vectors.reshape(0, self.dimension)


def sentence_transformer(
    name_or_path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    max_batch: int = 32,
    is_download_allowed: bool = False,
) -> SentenceTransformerModel:
    """Load a model; a function for ``ModelSpec(load=functools.partial(…), unload=SentenceTransformerModel.close)``.

    Python files that come with a model are never run. torch keeps much of its memory after an unload:
    ``isolation="process"`` gives back all of it.

    Args:
        name_or_path: a folder, or a name on the hub that is on this machine already.
        device: torch's name of where to compute.
        max_batch: most texts in one pass.
        is_download_allowed: fetch what is not on this machine.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        ConfigurationError: ``max_batch`` is no positive number.
        ModelLoadError: it cannot be loaded; ``__cause__`` holds the package's error.
    """
    given: object = max_batch
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        message = f"max_batch must be a number from 1 on, not {max_batch!r}"
        raise ConfigurationError(message)
    package = import_extra(
        "sentence_transformers",
        package="sentence-transformers",
        extra="sentence-transformers",
        purpose=f"the model {str(name_or_path)!r}",
    )
    try:
        model = package.SentenceTransformer(
            str(name_or_path), device=device, local_files_only=not is_download_allowed, trust_remote_code=False
        )
        return SentenceTransformerModel(model, str(name_or_path), max_batch=max_batch)
    except Exception as exc:
        message = f"the sentence-transformers model {str(name_or_path)!r} cannot be loaded: {exc}"
        raise ModelLoadError(message) from exc


def _dimension(model: Any) -> int | None:
    # Renamed in version 5 of the package; a few kinds of models (of pictures and texts) do not know it.
    get = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    found = get()
    return None if found is None else int(found)


def _parameter_bytes(model: Any) -> int | None:
    if not hasattr(model, "parameters"):
        return None
    tensors = (*model.parameters(), *model.buffers())
    return sum(int(tensor.numel()) * int(tensor.element_size()) for tensor in tensors)


def _token_counts(tokenizer: Any, texts: list[str]) -> list[int]:
    if not texts:
        return []  # the package's tokenizers fail on none
    if not callable(tokenizer):  # that of a static model, straight from the package tokenizers
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
    return [len(ids) for ids in tokenizer(texts, truncation=True)["input_ids"]]
