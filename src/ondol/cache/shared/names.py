"""decision: how keys and tags are called in a store that many programs may share.

Each name begins with the namespace and ends with the key itself, so that it can be read, and found by what it begins
with. Names are bytes, at most ``MAX_NAME_BYTES`` of them: of a longer key the first bytes and a digest stand there, and
the key itself in front of the value. The digest in braces makes a cluster keep a value and its lease together.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, NamedTuple

from ondol.cache.glob import Glob

__all__ = ["MAX_NAMESPACE_BYTES", "MAX_NAME_BYTES", "KeyNames", "Naming"]

MAX_NAME_BYTES: Final = 200
MAX_NAMESPACE_BYTES: Final = 48
_READABLE_BYTES: Final = 80
_MAX_KEY_BYTES: Final = MAX_NAME_BYTES - MAX_NAMESPACE_BYTES - len(":{01234567}:v:")
_HASHED: Final = b"\x00~"
_LENGTH_BYTES: Final = 4


class KeyNames(NamedTuple):
    """What is kept for one key."""

    value: bytes
    lease: bytes
    header: bytes
    """What stands in front of the value: nothing, or of a key too long for a name its length and the key."""

    def frame_of(self, stored: bytes | None) -> bytes | None:
        """Return the value without its header; ``None`` when it is another key's, whose digest happens to be equal."""
        if stored is None or not self.header:
            return stored
        return stored[len(self.header) :] if stored.startswith(self.header) else None


class Naming:
    """The names in one namespace."""

    def __init__(self, namespace: str) -> None:
        self._prefix = namespace.encode("utf-8", "surrogatepass")
        self.log = b"%b:{log}:lines" % self._prefix
        self.wakes = b"%b:{log}:wakes" % self._prefix
        self.sequence = b"%b:{log}:sequence" % self._prefix
        self.probe = b"%b:{log}:probe" % self._prefix

    def of_key(self, key: str) -> KeyNames:
        """Return the names for a canonical key."""
        raw = key.encode("utf-8", "surrogatepass")
        digest = blake2b(raw, digest_size=16).hexdigest().encode()
        header = b""
        if len(raw) > _MAX_KEY_BYTES or _HASHED in raw:
            header = len(raw).to_bytes(_LENGTH_BYTES, "big") + raw
            raw = raw[:_READABLE_BYTES].partition(b"\x00")[0] + _HASHED + digest
        place = b"%b:{%b}:" % (self._prefix, digest[:8])
        return KeyNames(b"%bv:%b" % (place, raw), b"%bl:%b" % (place, raw), header)

    def of_tag(self, tag: str) -> tuple[bytes, bytes]:
        """Return the names of the set of keys with a tag, and of the stamp of its latest invalidation."""
        raw = tag.encode("utf-8", "surrogatepass")
        digest = blake2b(raw, digest_size=16).hexdigest().encode()
        if len(raw) > _MAX_KEY_BYTES or _HASHED in raw:
            raw = raw[:_READABLE_BYTES] + _HASHED + digest
        place = b"%b:{%b}:" % (self._prefix, digest[:8])
        return b"%bt:%b" % (place, raw), b"%bs:%b" % (place, raw)

    def scan_glob(self, kinds: str, pattern: str = "*") -> bytes:
        """Return the server's glob for the names that may match ``pattern``: by what each match begins with."""
        literal = Glob(pattern).literal.encode("utf-8", "surrogatepass").partition(b"\x00")[0][:_READABLE_BYTES]
        return b"%b:{*}:[%b]:%b*" % (_escaped(self._prefix), kinds.encode(), _escaped(literal))

    def key_in(self, name: bytes) -> bytes:
        """Return what of the key stands in a name that ``scan_glob`` found."""
        return name[len(self._prefix) + len(b":{01234567}:v:") :]

    def is_value(self, name: bytes) -> bool:
        """Tell whether a name that ``scan_glob`` found is a value's; else it is a lease's."""
        return name[len(self._prefix) + len(b":{01234567}:")] == ord("v")

    @staticmethod
    def is_hashed(key: bytes) -> bool:
        """Tell whether this is only the beginning and the digest of a key."""
        return key.rpartition(b"\x00")[2].startswith(b"~")

    @staticmethod
    def key_in_header(stored: bytes) -> str | None:
        """Return the key in front of a value, or ``None`` when ``stored`` does not hold it to the end."""
        end = _LENGTH_BYTES + int.from_bytes(stored[:_LENGTH_BYTES], "big")
        return stored[_LENGTH_BYTES:end].decode("utf-8", "surrogatepass") if len(stored) >= end else None


def _escaped(text: bytes) -> bytes:
    """Return a server's glob that only ``text`` matches."""
    return b"".join(b"\\" + bytes((byte,)) if byte in b"*?[]\\^-" else bytes((byte,)) for byte in text)
