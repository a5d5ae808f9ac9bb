"""decision: canonical keys as the store's keys (at most 511 bytes), and what an invalidation means among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ondol.cache.glob import Glob
from ondol.cache.keys import key_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ondol.cache.ports import Invalidation

__all__ = ["Barrier", "glob_prefix", "is_cut", "key_of", "store_key", "tag_digest"]

_WHOLE_BYTES: Final = 480
"""Longer keys are cut; LMDB takes at most 511 bytes."""
_CUT_BYTES: Final = 440
_CUT_MARK: Final = b"\xff"
"""Never part of UTF-8, so that no cut key equals a whole one."""
_EMPTY: Final = b"\xfe"
_DIGEST_BYTES: Final = 16


def store_key(key: str) -> bytes:
    """Return the key of the store: the text itself, or its beginning and a 128-bit digest of all of it."""
    try:
        raw = key.encode()
    except UnicodeEncodeError:
        raw = _encoded(key)
    if 0 < len(raw) <= _WHOLE_BYTES:
        return raw
    return raw[:_CUT_BYTES] + _CUT_MARK + _digest(raw) if raw else _EMPTY


def is_cut(raw: bytes) -> bool:
    """Whether a key of the store does not hold all of its canonical key."""
    return raw[_CUT_BYTES : _CUT_BYTES + 1] == _CUT_MARK


def key_of(raw: bytes) -> str:
    """Return the canonical key of a key of the store that is not cut."""
    return "" if raw == _EMPTY else str(raw, "utf-8", "surrogatepass")


def glob_prefix(glob: Glob) -> bytes:
    """Return with what the store's keys of everything that matches begin.

    >>> glob_prefix(Glob("user:7*:a")), glob_prefix(Glob("*"))
    (b'user:7', b'')
    """
    return _encoded(glob.literal)[:_CUT_BYTES]


def tag_digest(tag: str) -> bytes:
    """Return the 128 bits under which the entries of a tag are listed."""
    return _digest(_encoded(tag))


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _digest(raw: bytes) -> bytes:
    from hashlib import blake2b  # noqa: PLC0415  # loads OpenSSL, which programs without tags need not wait for

    return blake2b(raw, digest_size=_DIGEST_BYTES).digest()


class Barrier:
    """Invalidations by tag, by glob and of everything: which entries they mean, and since when each stands.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._tags: dict[str | bytes, int] = {}
        self._patterns: dict[str, tuple[int, Glob]] = {}
        self._all = 0

    def __len__(self) -> int:
        """Return how many invalidations stand."""
        return len(self._tags) + len(self._patterns) + bool(self._all)

    def add(self, invalidation: Invalidation, number: int) -> None:
        """Raise it for ``invalidation``, the ``number``-th thing that was asked for."""
        for value in invalidation.values:
            if invalidation.kind == "tag":
                self._tags[value] = self._tags[tag_digest(value)] = number
            elif invalidation.kind == "pattern":
                self._patterns[value] = (number, Glob(value))
        if invalidation.kind == "all":
            self._all = number

    def lower(self, number: int) -> None:
        """Take away what was asked for up to ``number``: it has been done."""
        self._tags = {tag: since for tag, since in self._tags.items() if since > number}
        self._patterns = {glob: entry for glob, entry in self._patterns.items() if entry[0] > number}
        if self._all <= number:
            self._all = 0

    def stops(self, key: str, tags: Iterable[str | bytes]) -> bool:
        """Whether one of the invalidations means the entry with this key and these tags, or digests of tags."""
        if self._all or (self._tags and not self._tags.keys().isdisjoint(tags)):
            return True
        text = key_text(key) if self._patterns else ""
        return any(glob.matches(text) for _, glob in self._patterns.values())
