"""adapter: request bodies: read within the limit, decoded and checked, with errors that name the field."""

from __future__ import annotations

import json
import math
import re
import typing
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from ondol.server.problems import (
    BodyTooLargeError,
    FieldError,
    InvalidRequestError,
    MalformedJsonError,
    MediaTypeError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from starlette.requests import Request

    from ondol.settings import Settings

__all__ = ["ClientGoneError", "check_batch_size", "check_texts", "decode", "read_body", "read_limit", "read_request"]

T = TypeVar("T")

_PLACE: Final = re.compile(r" - at `\$\.?(.*)`\Z", re.DOTALL)
_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(.*)`\Z", re.DOTALL)
_MISSING_FIELD: Final = re.compile(r"Object missing required field `(.*)`\Z", re.DOTALL)
_SKIPPER: Final = msgspec.json.Decoder(msgspec.Raw)  # reads syntax only and builds nothing
_MAX_EXPLAINED_BYTES: Final = 1_000_000
_LIMIT: Final = re.compile(r"(?:<=|>=) (\d+)")
_WRONG_CHOICE: Final = re.compile(r"Invalid enum value (.*)\Z", re.DOTALL)


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete."""


async def read_request(
    request: Request, decoder: msgspec.json.Decoder[T], *, hints: Mapping[str, str] | None = None
) -> T:
    """Return the body of ``request`` as the decoder's type.

    Args:
        request: the request, its body not yet read.
        decoder: of the expected type.
        hints: a sentence by field name, added to a message about a wrong type of that field.

    Raises:
        MediaTypeError: the body is not declared as JSON.
        BodyTooLargeError: it is larger than the settings allow.
        MalformedJsonError: it is not JSON.
        InvalidRequestError: it is JSON of another shape.
        ClientGoneError: the client left.
    """
    _check_media_type(request)
    settings: Settings = request.app.state.service.settings
    return decode(await read_body(request, settings.max_body_bytes), decoder, hints=hints)


def _check_media_type(request: Request) -> None:
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.partition("charset=")[2].partition(";")[0].strip().strip('"').lower()
    if kind.strip().lower() != "application/json" or charset not in {"", "utf-8", "utf8"}:
        got = request.headers.get("content-type") or "nothing"
        detail = f"Content-Type must be application/json (in UTF-8), got {got}"
        raise MediaTypeError(detail, FieldError("Content-Type", detail, allowed=["application/json"]))
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        detail = f"Content-Encoding {encoding!r} is not supported; send the body as it is"
        raise MediaTypeError(detail, FieldError("Content-Encoding", detail, allowed=["identity"]))


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the whole body; no more than ``max_bytes`` are ever held.

    Raises:
        BodyTooLargeError: as soon as it is known to be larger.
        ClientGoneError: the client left before the end.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size_bytes = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(max_bytes: int) -> BodyTooLargeError:
    detail = f"the body is larger than the {max_bytes} bytes that ONDOL_MAX_BODY_MB allows; send less at once"
    return BodyTooLargeError(detail, FieldError("body", detail, limit=max_bytes))


def decode(body: bytes, decoder: msgspec.json.Decoder[T], *, hints: Mapping[str, str] | None = None) -> T:
    """Return ``body`` as the decoder's type.

    Raises:
        MalformedJsonError: it is not JSON in UTF-8, or holds NaN, Infinity or half a surrogate pair.
        InvalidRequestError: it is JSON of another shape.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        _check_syntax(body)  # what stands behind the first wrong field may not even be JSON
        raise _invalid(str(exc), hints or {}, decoder.type) from exc
    except UnicodeDecodeError as exc:
        detail = f"the body is not UTF-8: byte 0x{exc.object[exc.start]:02x} cannot stand where it does"
        raise MalformedJsonError(detail, FieldError("body", detail)) from exc
    except msgspec.DecodeError as exc:
        raise _malformed(body, str(exc)) from exc
    except RecursionError as exc:
        raise _too_deep() from exc


def _check_syntax(body: bytes) -> None:
    try:
        _SKIPPER.decode(body)
    except msgspec.DecodeError as exc:
        raise _malformed(body, str(exc)) from exc
    except RecursionError as exc:
        raise _too_deep() from exc


def _too_deep() -> MalformedJsonError:
    detail = "the body is nested too deeply"
    return MalformedJsonError(detail, FieldError("body", detail))


def _invalid(message: str, hints: Mapping[str, str], expected: Any) -> InvalidRequestError:
    place = _PLACE.search(message)
    path = place.group(1) if place else ""
    message = message[: place.start()] if place else message
    own_field = _UNKNOWN_FIELD.match(message) or _MISSING_FIELD.match(message)
    if own_field is not None:
        path = f"{path}.{own_field.group(1)}" if path else own_field.group(1)
    hint = hints.get(re.split(r"[.\[]", path, maxsplit=1)[0])
    if hint and message.startswith("Expected"):
        message = f"{message}; {hint}"
    path = path or "body"
    limit = _LIMIT.search(message)
    allowed = _allowed(message, path, expected)
    if allowed:
        message = f"{message}; allowed: {', '.join(allowed)}"
    field_error = FieldError(path, message, limit=int(limit.group(1)) if limit else None, allowed=allowed)
    return InvalidRequestError(f"{path}: {message}", field_error)


def _allowed(message: str, path: str, expected: Any) -> list[str] | None:
    """Return the values, or the names of the fields, that could stand where the message found something else."""
    structs = [kind for kind in (expected, *typing.get_args(expected)) if _is_struct(kind)]
    fields = {field.encode_name: field for kind in structs for field in msgspec.structs.fields(kind)}
    if _UNKNOWN_FIELD.match(message):
        return list(fields) if "." not in path and "[" not in path else None
    if _WRONG_CHOICE.match(message) and path in fields:
        kinds = (fields[path].type, *typing.get_args(fields[path].type))
        return [
            str(value) for kind in kinds if typing.get_origin(kind) is typing.Literal for value in typing.get_args(kind)
        ]
    return None


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _malformed(body: bytes, message: str) -> MalformedJsonError:
    """Say more than the parser does where JSON's usual extensions were used."""
    path, reason = next(_oddities(body), ("body", message.removeprefix("JSON is malformed: ")))
    return MalformedJsonError(f"{path}: {reason}", FieldError(path, reason))


def _oddities(body: bytes) -> Iterator[tuple[str, str]]:
    """Yield what the standard library's laxer parser takes, but JSON in UTF-8 does not."""
    if len(body) > _MAX_EXPLAINED_BYTES:
        return  # the laxer parser takes many times the memory of the body
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            pending += [(f"{path}.{name}" if path else name, item) for name, item in reversed(value.items())]
        elif isinstance(value, list):
            pending += [(f"{path}[{index}]", item) for index, item in reversed(list(enumerate(value)))]
        elif isinstance(value, float) and not math.isfinite(value):
            yield path or "body", "NaN and Infinity are not JSON"
        elif isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
            yield path or "body", "half a surrogate pair (\\ud800 to \\udfff) is not a character"


def check_texts(texts: Sequence[str], *, field: str, max_chars: int, max_texts: int) -> list[str]:
    """Return the texts in their normal form.

    Raises:
        InvalidRequestError: there are none, or more than ``max_texts``.
        InvalidTextError: one of them cannot be analysed; its field is like ``texts[3]``.
    """
    from ondol.similarity.text import check_text

    check_batch_size(len(texts), field=field, max_count=max_texts)
    return [check_text(text, field=f"{field}[{index}]", max_chars=max_chars) for index, text in enumerate(texts)]


def check_batch_size(count: int, *, field: str, max_count: int) -> None:
    """Refuse an empty list and one of more than ``max_count``.

    Raises:
        InvalidRequestError: it is one of these.
    """
    if count == 0:
        raise InvalidRequestError(
            f"{field} is empty", FieldError(field, f"must hold 1 to {max_count} items", limit=max_count)
        )
    if count > max_count:
        message = f"holds {count} items, at most {max_count} are allowed in one request (ONDOL_MAX_BATCH_TEXTS)"
        raise InvalidRequestError(f"{field} {message}", FieldError(field, message, limit=max_count))


def read_limit(text: str | None, *, default: int, most: int) -> int:
    """Return the query parameter ``limit``: a whole number from 1 to ``most``, ``default`` when it is not given.

    Raises:
        InvalidRequestError: it is none.
    """
    if text is None:
        return default
    if text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and 1 <= int(text) <= most:
        return int(text)
    message = f"must be a whole number from 1 to {most}, not {text!r:.50}"
    raise InvalidRequestError(f"limit {message}", FieldError("limit", message, limit=most))
