"""adapter: reads the address of a Redis or Valkey server, and never shows its password."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from ondol.errors import InvalidSettingError

__all__ = ["SETTING", "RedisAddress", "masked", "read_url"]

SETTING: Final = "CACHE_REDIS_URL"

_SCHEMES: Final[dict[str, tuple[str, bool]]] = {
    "redis": ("redis", False),
    "rediss": ("rediss", False),
    "unix": ("unix", False),
    "valkey": ("redis", False),
    "valkeys": ("rediss", False),
    "redis+cluster": ("redis", True),
    "rediss+cluster": ("rediss", True),
}
_SECRET_OPTIONS: Final = frozenset({"password", "ssl_password"})
_OWN_OPTIONS: Final = frozenset(
    {"decode_responses", "encoding", "encoding_errors", "protocol", "retry", "retry_on_timeout", "socket_timeout"}
)
"""Options of the client that the store sets itself."""


class RedisAddress(NamedTuple):
    """Where a server is: as the client takes it, and as people may see it."""

    client_url: str
    is_cluster: bool
    shown: str


def masked(url: str) -> str:
    """Return ``url`` without its passwords.

    >>> masked("redis://user:secret@cache:6379/0?ssl_password=x")
    'redis://user:***@cache:6379/0?ssl_password=***'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    place = parts.netloc
    if "@" in place:
        user, colon, _password = place.rpartition("@")[0].partition(":")
        place = f"{user}{':***' if colon else ''}@{place.rpartition('@')[2]}"
    query = "&".join(
        f"{name}={'***' if name in _SECRET_OPTIONS else quote(value, safe='/:,')}"
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    return _joined(parts.scheme, place, parts.path, query)


def read_url(url: str) -> RedisAddress:
    """Return what ``url`` says.

    Raises:
        InvalidSettingError: it cannot be the address of a server; the message says why, without the password.
    """
    try:
        parts = urlsplit(url)
        port_number = parts.port
    except ValueError as exc:
        raise _refused(url, str(exc)) from None
    if parts.scheme not in _SCHEMES:
        raise _refused(url, "it must begin with one of " + ", ".join(f"{scheme}://" for scheme in _SCHEMES))
    scheme, is_cluster = _SCHEMES[parts.scheme]
    if scheme == "unix" and not parts.path.strip("/"):
        raise _refused(url, "it must name the socket's file: unix:///path/to/redis.sock")
    if scheme != "unix":
        if not parts.hostname:
            raise _refused(url, "it must name a host: redis://host:6379/0")
        if port_number == 0:
            raise _refused(url, "the port must be from 1 to 65535")
        _check_database(url, parts.path, is_cluster=is_cluster)
    options = parse_qsl(parts.query, keep_blank_values=True)
    if own := sorted({name for name, _value in options} & _OWN_OPTIONS):
        raise _refused(url, f"the option {own[0]!r} is set by ondol itself; leave it out")
    client_url = _joined(scheme, parts.netloc, parts.path, urlencode(options))
    return RedisAddress(client_url, is_cluster, masked(url))


def _joined(scheme: str, place: str, path: str, query: str) -> str:
    # urlunsplit would leave the slashes of unix:///path out.
    return f"{scheme}://{place}{path}{'?' if query else ''}{query}"


def _check_database(url: str, path: str, *, is_cluster: bool) -> None:
    database = path.strip("/")
    if database and not (database.isascii() and database.isdigit()):
        raise _refused(url, f"the path must be the number of a database, not {path!r}")
    if is_cluster and database not in {"", "0"}:
        raise _refused(url, "a cluster has only database 0")


def _refused(url: str, reason: str) -> InvalidSettingError:
    return InvalidSettingError([f"{SETTING}={masked(url)!r} is not allowed: {reason}"])
