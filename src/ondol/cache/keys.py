r"""decision: canonical cache keys: one string per name and parts, free of collisions, readable up to its signature.

A key is ``name:part:part`` + NUL + a signature that holds the type and the length of every part::

    make_key("user", (1,))    -> "user:1\x00i1"
    make_key("user", ("1",))  -> "user:1\x00s1"

The part before the NUL is what people see and what globs match. The lengths make it certain where each part
begins, so ``("a", "b:c")`` and ``("a:b", "c")`` differ although they read the same.

Within the process, entries lie on a shelf by name, and there under a *shelf key*: short strings and whole numbers as
they are, which costs nothing to make; everything else as the rest of the canonical key, in bytes. The two forms
can be made from each other.
"""

from __future__ import annotations

import dataclasses
import re
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from ondol.errors import UnstableKeyError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

__all__ = [
    "MAX_DEPTH",
    "MAX_PART_CHARS",
    "canonical_key",
    "key_text",
    "make_key",
    "plain_name",
    "shelf_key",
    "split_key",
    "tail_text",
]

MAX_PART_CHARS: Final = 96
"""A part whose text is longer is kept as its first characters and a 128-bit BLAKE2b digest."""

MAX_DEPTH: Final = 24
"""Deepest nesting of containers in one part; a container that holds itself ends here as an error."""

_PREFIX_CHARS: Final = 32
_DIGEST_BYTES: Final = 16
_NUL: Final = "\x00"
_RAW_INT_LIMIT: Final = 1 << 128
_SIGNATURE: Final = re.compile(r"([a-zA-Z])(\d+)")


class _NoStableFormError(Exception):
    """Inside this module: says which type has no stable form."""


def make_key(name: str, parts: tuple[object, ...], labels: Sequence[str] | None = None) -> str:
    """Return the canonical key of ``name`` and ``parts``.

    Parts may be ``str``, ``bytes``, ``int``, ``float``, ``complex``, ``bool``, ``None``, ``Enum``, ``UUID``,
    ``Decimal``, the types of ``datetime``, and tuples (also named), lists, dicts, sets, frozensets and dataclasses of
    these. Types matter: ``1``, ``"1"``, ``True``, ``1.0`` and ``b"1"`` give five keys. The order of a dict or a set
    does not matter, nor do dataclass fields declared with ``compare=False``. Classes are told apart by module and
    qualified name.

    Args:
        name: what the entry is; the first word of the readable form.
        parts: what tells this entry from the others of its name.
        labels: what to call each part in an error; default "part 1", "part 2".

    Raises:
        UnstableKeyError: a part has no stable form; the message names it.

    Cost: O(length of the parts); well under a microsecond for one short string.
    """
    if type(name) is not str:
        name = plain_name(name)
    if not parts:
        return name + _NUL
    if len(parts) == 1:
        # By far the most frequent form: spelt out because it lies on the path of every hit.
        part = parts[0]
        if type(part) is str and len(part) <= MAX_PART_CHARS:
            return f"{name}:{part}{_NUL}s{len(part)}"
    texts, signature = [name], []
    for position, part in enumerate(parts):
        try:
            tag, text = _tagged_text(part)
        except _NoStableFormError as exc:
            raise _unstable(name, position, labels, exc) from None
        if len(text) > MAX_PART_CHARS:
            tag, text = tag.upper(), _shortened(text)
        texts.append(text)
        signature.append(f"{tag}{len(text)}")
    return f"{':'.join(texts)}{_NUL}{''.join(signature)}"


def key_text(key: str) -> str:
    """Return the readable form of a key, which globs match: ``name:part:part``; what is no key, as it is.

    >>> key_text(make_key("user", (7, "a"))), key_text("plain")
    ('user:7:a', 'plain')
    """
    text, nul, _signature = key.rpartition(_NUL)
    return text if nul else key


def shelf_key(name: str, parts: tuple[object, ...], labels: Sequence[str] | None = None) -> Hashable:
    """Return the key of ``parts`` on the shelf of ``name``; two are equal exactly when their canonical keys are.

    Raises:
        UnstableKeyError: a part has no stable form; the message names it.

    Cost: well under a microsecond for short strings and whole numbers.
    """
    for part in parts:
        kind = type(part)
        if kind is str:
            if len(part) > MAX_PART_CHARS:  # type: ignore[arg-type]  # it is a str: checked by identity for speed
                break
        elif kind is not int or not -_RAW_INT_LIMIT < part < _RAW_INT_LIMIT:  # type: ignore[operator]  # an int here
            break
    else:
        return parts[0] if len(parts) == 1 else parts
    return make_key(name, parts, labels)[len(plain_name(name)) :].encode("utf-8", "surrogatepass")


def canonical_key(name: str, key: Hashable) -> str:
    """Return the canonical key of what lies under ``key`` on the shelf of ``name``."""
    if type(key) is bytes:
        return plain_name(name) + key.decode("utf-8", "surrogatepass")
    return make_key(name, key if type(key) is tuple else (key,))


def tail_text(key: Hashable) -> str:
    """Return the readable form of a shelf key: what stands after the name, with its colon; empty without parts.

    >>> tail_text(shelf_key("user", (7, "a")))
    ':7:a'
    """
    if type(key) is bytes:
        return key_text(key.decode("utf-8", "surrogatepass"))
    return "".join(f":{part}" for part in key) if type(key) is tuple else f":{key}"


def split_key(canonical: str) -> tuple[str, Hashable]:
    """Return name and shelf key of a canonical key.

    Raises:
        ValueError: it is none.
    """
    text, nul, signature = canonical.rpartition(_NUL)
    parts = [(tag, int(length)) for tag, length in _SIGNATURE.findall(signature)]
    if not nul or "".join(f"{tag}{length}" for tag, length in parts) != signature:
        raise ValueError(f"not a cache key: {canonical!r}")
    name_end = len(text) - sum(length + 1 for _, length in parts)
    raw: list[str | int] = []
    start = name_end
    for tag, length in parts:
        word = text[start + 1 : start + 1 + length]
        if tag == "s" and length <= MAX_PART_CHARS:
            raw.append(word)
        elif tag == "i" and not word.lstrip("-").startswith("0x"):
            raw.append(int(word))
        else:
            return text[:name_end], canonical[name_end:].encode("utf-8", "surrogatepass")
        start += 1 + length
    return text[:name_end], raw[0] if len(raw) == 1 else tuple(raw)


def plain_name(name: object) -> str:
    """Return the name of an entry as a plain string.

    Raises:
        UnstableKeyError: it is no string.
    """
    if type(name) is str:
        return name
    if isinstance(name, str):
        return str.__str__(name)
    raise UnstableKeyError(f"the name of a cache entry must be a str, not {_class_name(type(name))}: {name!r}")


def _unstable(name: str, position: int, labels: Sequence[str] | None, reason: _NoStableFormError) -> UnstableKeyError:
    label = labels[position] if labels is not None else f"part {position + 1}"
    return UnstableKeyError(
        f"{label} of {name!r} {reason}: it cannot be part of a cache key; pass something stable instead, "
        "such as an id (str, bytes, int, float, bool, None, Enum, UUID, Decimal, date and time, "
        "or tuples, lists, dicts, sets and dataclasses of these)"
        + ("" if labels is None else ", or leave it out of the key with ignore=...")
    )


def _shortened(text: str) -> str:
    from hashlib import blake2b  # noqa: PLC0415  # loads OpenSSL, which a start without long keys need not wait for

    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{text[:_PREFIX_CHARS]}~{digest}"


def _tagged_text(part: object) -> tuple[str, str]:
    """Return the tag (one lower-case letter) and the text of one part; together they are unique."""
    if type(part) is str:
        return "s", part
    scalar = _SCALARS.get(type(part))
    if scalar is not None:
        tag, text_of = scalar
        return tag, text_of(part)
    named = _NAMED.get((type(part).__module__, type(part).__qualname__))
    if named is not None:
        tag, text_of = named
        return tag, text_of(part)
    return "c", _literal(part, MAX_DEPTH)


def _int_text(value: int) -> str:
    # Decimal text of huge integers is slow, and refused by the interpreter beyond 4,300 digits.
    return str(value) if -(1 << 128) < value < 1 << 128 else hex(value)


_SCALARS: Final[dict[type, tuple[str, Callable[[Any], str]]]] = {
    int: ("i", _int_text),
    bool: ("b", repr),
    float: ("f", repr),
    complex: ("x", repr),
    bytes: ("y", repr),
    type(None): ("n", repr),
}


def _moment_text(moment: Any) -> str:
    return f"{moment.isoformat()}{'~' * moment.fold}"


# By name, so that these modules are not imported for programs that have no such keys.
_NAMED: Final[dict[tuple[str, str], tuple[str, Callable[[Any], str]]]] = {
    ("uuid", "UUID"): ("u", str),
    ("decimal", "Decimal"): ("m", str),
    ("datetime", "datetime"): ("d", _moment_text),
    ("datetime", "time"): ("t", _moment_text),
    ("datetime", "date"): ("a", str),
    ("datetime", "timedelta"): ("p", lambda span: f"{span.days}d{span.seconds}s{span.microseconds}us"),
}


def _literal(value: Any, depth: int) -> str:
    """Return a self-delimiting text, as Python's literals are: two different values never share one."""
    kind = type(value)
    if kind is str:
        return repr(value)
    scalar = _SCALARS.get(kind)
    if scalar is not None:
        return scalar[1](value)
    named = _NAMED.get((kind.__module__, kind.__qualname__))
    if named is not None:
        return f"{kind.__qualname__}({named[1](value)})"
    if isinstance(value, Enum):
        member: Any = value.name
        if member is None:  # a flag without a name, such as 0
            member = value.value
        return f"enum({_class_name(kind)!r},{_literal(member, depth)})"
    if depth == 0:
        raise _NoStableFormError(f"is nested deeper than {MAX_DEPTH} levels")
    return _container_literal(value, kind, depth - 1)


def _container_literal(value: Any, kind: type, depth: int) -> str:
    if kind is tuple:
        return f"({_joined(value, depth)})"
    if kind is list:
        return f"[{_joined(value, depth)}]"
    if kind is dict:
        items = sorted(f"{_literal(key, depth)}:{_literal(item, depth)}" for key, item in value.items())
        return f"{{{','.join(items)}}}"
    if kind is frozenset or kind is set:
        return f"{kind.__name__}({','.join(sorted(_literal(item, depth) for item in value))})"
    if dataclasses.is_dataclass(kind):
        compared = [field.name for field in dataclasses.fields(kind) if field.compare]
        fields = ",".join(f"{name}={_literal(getattr(value, name), depth)}" for name in compared)
        return f"dataclass({_class_name(kind)!r},{fields})"
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return f"namedtuple({_class_name(kind)!r},{_joined(value, depth)})"
    raise _NoStableFormError(f"is or holds an object of type {_class_name(kind)}, which has no stable form")


def _joined(values: Iterable[object], depth: int) -> str:
    return ",".join(_literal(value, depth) for value in values)


def _class_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
