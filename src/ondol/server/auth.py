"""adapter: who may call: whoever sends the key; without one all of this machine, but no foreign web page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ondol.server.problems import FieldError, MisdirectedError, UnauthorizedError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_host", "check_key", "is_protected"]

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


def check_host(headers: Iterable[tuple[bytes, bytes]], own_host: str) -> None:
    """Check the ``Host`` header of a server that asks for no key.

    A web page anywhere may let its own name lead to 127.0.0.1 (DNS rebinding); to the browser this server is then that
    page's own, to be read and written. So a name that others can own is none of ours: addresses and names without a dot
    are let in, and what the server was told to listen on.

    Raises:
        MisdirectedError: the request was meant for another host.
    """
    for name, value in headers:
        host = value.decode("latin-1").strip().lower()
        if name == b"host" and not _is_own(host, own_host.lower()):
            detail = (
                f"the host {host!r} is not this server; use its address, or set ONDOL_API_KEY to serve under a name"
            )
            raise MisdirectedError(detail, FieldError("Host", detail))


def _is_own(host: str, own_host: str) -> bool:
    if host.startswith("["):  # an IPv6 address; names hold no bracket
        return True
    name = host.partition(":")[0]
    is_address = name.replace(".", "").isdecimal()
    return "." not in name or is_address or name.endswith(".localhost") or name == own_host


def _refusal(detail: str) -> UnauthorizedError:
    return UnauthorizedError(detail, FieldError("Authorization", detail), headers=_CHALLENGE)
