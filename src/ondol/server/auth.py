"""adapter: the Authorization header: who may call ``/v1``: whoever sends the key, or everybody when none is set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ondol.server.problems import FieldError, UnauthorizedError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_key", "is_protected"]

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="ondol"'}


def is_protected(path: str) -> bool:
    """Tell whether ``path`` needs the key.

    >>> is_protected("/v1/models"), is_protected("/livez"), is_protected("/v10")
    (True, False, False)
    """
    return path == "/v1" or path.startswith("/v1/")


def check_key(headers: Iterable[tuple[bytes, bytes]], api_key: str) -> None:
    """Check the ``Authorization`` header, in a time that does not tell how much of the key was right.

    Raises:
        UnauthorizedError: the key is missing or wrong.
    """
    import hmac

    given = [value for name, value in headers if name == b"authorization"]
    if len(given) != 1:
        raise _refusal("the header Authorization: Bearer KEY is missing")
    scheme, _, key = given[0].strip().partition(b" ")
    if scheme.lower() != b"bearer" or not hmac.compare_digest(key.strip(), api_key.encode()):
        raise _refusal("the header Authorization must be Bearer, a space, and the server's key")


def _refusal(detail: str) -> UnauthorizedError:
    return UnauthorizedError(detail, FieldError("Authorization", detail), headers=_CHALLENGE)
