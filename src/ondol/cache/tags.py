"""decision: which entries carry which tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ondol.cache.entry import Entry

__all__ = ["MAX_TAGS", "MAX_TAG_CHARS", "TAG_OVERHEAD_BYTES", "TagIndex", "checked_tags"]

MAX_TAGS: Final = 32
MAX_TAG_CHARS: Final = 256
TAG_OVERHEAD_BYTES: Final = 130
"""What the index keeps for an entry and one of its tags."""


def checked_tags(tags: Any) -> tuple[str, ...]:
    """Return the tags of an entry, each once.

    Raises:
        ValueError: more than 32 of them, or one that is empty or longer than 256 characters.
        TypeError: one that is no ``str``, or a plain ``str`` in place of several.
    """
    if isinstance(tags, (str, bytes)):
        raise TypeError(f"tags={tags!r} is not allowed: it must be several strings, such as tags=({tags!r},)")
    tags = tuple(tags)
    for tag in tags:
        if not isinstance(tag, str):
            raise TypeError(f"the tag {tag!r} is not allowed: it must be a str")
    found = tuple(dict.fromkeys(tags))
    for tag in found:
        if not 0 < len(tag) <= MAX_TAG_CHARS:
            raise ValueError(f"the tag {tag[:40]!r} is not allowed: it must have 1 to {MAX_TAG_CHARS} characters")
    if len(found) > MAX_TAGS:
        raise ValueError(f"{len(found)} tags are not allowed: an entry has at most {MAX_TAGS}")
    return found


class TagIndex:
    """Finds the entries of a tag without looking at any other. Cost: O(tags of the entry) to add and to discard."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[str, set[Entry]] = {}

    def add(self, entry: Entry) -> None:
        """Take note of an entry with tags."""
        for tag in entry.tags:
            self._entries.setdefault(tag, set()).add(entry)

    def discard(self, entry: Entry) -> None:
        """Forget an entry."""
        for tag in entry.tags:
            held = self._entries[tag]
            held.discard(entry)
            if not held:
                del self._entries[tag]

    def having(self, tags: Iterable[str]) -> list[Entry]:
        """Return the entries that carry any of ``tags``, each once."""
        found: dict[Entry, None] = {}
        for tag in tags:
            found.update(dict.fromkeys(self._entries.get(tag, ())))
        return list(found)

    def __len__(self) -> int:
        """Return the number of tags in use."""
        return len(self._entries)
