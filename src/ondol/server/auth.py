"""adapter: who may call what: whoever sends the key; without one all of this machine, but no foreign web page.

What changes models, preloading, silences or the loading strategy always needs a key: ``ONDOL_ADMIN_KEY``, else
``ONDOL_API_KEY``, else the token that the server has put into its data folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from ondol.server.problems import FieldError, MisdirectedError, UnauthorizedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ondol.server.admin_token import AdminToken
    from ondol.settings import Settings

    Headers = Iterable[tuple[bytes, bytes]]

__all__ = ["HasKeys", "api_keys", "check_host", "check_key", "check_request", "is_admin_action", "is_protected"]

_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="ondol"'}
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ADMIN_PREFIXES: Final = ("/v1/models/", "/v1/alerts/", "/v1/preload/", "/v1/strategy", "/v2/repository/models/")


def check_request(method: str, path: str, headers: Headers, settings: Settings, token: AdminToken | None) -> None:
    """Check that a request may be answered.

    Raises:
        MisdirectedError: no key is set, and it was meant for another host.
        UnauthorizedError: the key it needs is missing or wrong.
    """
    if settings.api_key is None:
        check_host(headers, settings.host)
    if is_admin_action(method, path):
        _check_admin_key(headers, settings, token)
    elif is_protected(path):
        check_key(headers, api_keys(settings))


def is_admin_action(method: str, path: str) -> bool:
    """Tell whether a request changes models, preloading, silences or the loading strategy.

    >>> is_admin_action("POST", "/v1/models/a/load"), is_admin_action("GET", "/v1/models/a")
    (True, False)
    >>> is_admin_action("POST", "/v2/repository/models/a/unload"), is_admin_action("POST", "/v2/repository/index")
    (True, False)
    """
    return method not in _READING and path.startswith(_ADMIN_PREFIXES)


def is_protected(path: str) -> bool:
    """Tell whether ``path`` needs the key.

    >>> [is_protected(path) for path in ("/v1/models", "/v2", "/livez", "/v10", "/v2/health/live")]
    [True, True, False, False, False]
    """
    return path in {"/v1", "/v2"} or (path.startswith(("/v1/", "/v2/")) and not path.startswith("/v2/health/"))


class HasKeys(Protocol):
    """The keys among the settings."""

    @property
    def api_key(self) -> str | None:
        """Opens the API."""
        ...

    @property
    def admin_key(self) -> str | None:
        """Opens what changes models, too."""
        ...


def api_keys(settings: HasKeys) -> list[str]:
    """Return the keys that open the API; none when it is open."""
    if settings.api_key is None:
        return []
    return [settings.api_key] if settings.admin_key is None else [settings.api_key, settings.admin_key]


def check_key(headers: Headers, keys: Iterable[str], *, needed: str = "the server's key (ONDOL_API_KEY)") -> None:
    """Check that the ``Authorization`` header holds one of ``keys``; without any nothing is asked for.

    The time it takes does not tell how much of a key was right.

    Raises:
        UnauthorizedError: the key is missing or wrong.
    """
    accepted = [key.encode() for key in keys]
    if not accepted:
        return
    given = [value for name, value in headers if name == b"authorization"]
    if len(given) != 1:
        raise _refusal(f"the header Authorization: Bearer KEY is missing; KEY is {needed}")
    scheme, _, key = given[0].strip().partition(b" ")
    if scheme.lower() != b"bearer" or not _is_one_of(key.strip(), accepted):
        raise _refusal(f"the header Authorization must be Bearer, a space, and {needed}")


def _is_one_of(given: bytes, keys: list[bytes]) -> bool:
    import hmac

    return any([hmac.compare_digest(given, key) for key in keys])  # noqa: C419  # a list: all are compared, always


def _check_admin_key(headers: Headers, settings: Settings, token: AdminToken | None) -> None:
    if settings.admin_key is not None:
        check_key(headers, [settings.admin_key], needed="the server's admin key (ONDOL_ADMIN_KEY)")
    elif settings.api_key is not None:
        check_key(headers, [settings.api_key])
    elif token is not None and token.is_written:
        check_key(headers, [token.value], needed=f"the server's admin token, to be found in {token.path}")
    else:
        raise _refusal("the server has no admin key: set ONDOL_ADMIN_KEY and start it again")


def check_host(headers: Headers, own_host: str) -> None:
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
