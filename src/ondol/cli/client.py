"""adapter: asks a running server over HTTP."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ondol.errors import ConfigurationError, ServerError, ServerUnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ondol.settings import Settings

__all__ = ["ServerClient", "client_of", "server_url"]

_MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # only read here, to find the server that listens there


def server_url(settings: Settings) -> str:
    """Return the address at which a server with these settings is reached from this machine.

    Raises:
        ConfigurationError: the port is 0, so only the server knows which one it took.
    """
    if settings.port == 0:
        message = "ONDOL_PORT=0 lets the server take any free port; say where it is: --url http://127.0.0.1:PORT"
        raise ConfigurationError(message)
    host = _ANY_ADDRESS.get(settings.host.strip("[]"), settings.host.strip("[]"))
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def client_of(url: str | None, timeout_s: float, *, is_admin: bool = False) -> ServerClient:
    """Return the client of the server at ``url``, or of the one that the settings describe.

    It sends ``ONDOL_ADMIN_KEY``, else ``ONDOL_API_KEY``; an administrator of a server on this machine that asks for
    neither sends the token that the server has put into ``ONDOL_DATA_DIR``.

    Raises:
        ConfigurationError: settings that are not allowed, or a port that only the server knows.
    """
    from ondol.settings_reader import load_settings

    settings = load_settings().values
    address = url or server_url(settings)
    key = settings.admin_key or settings.api_key
    if key is None and is_admin and urlsplit(address).hostname in _LOOPBACK:  # it is no other machine's to know
        key = _read_token(settings)
    return ServerClient(address, api_key=key, timeout_s=timeout_s)


def _read_token(settings: Settings) -> str | None:
    from ondol.server.admin_token import token_path

    try:
        return token_path(settings).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None  # the server says where it is


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects are answers like any other: the API key is for the named server alone."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Follow none."""


@dataclass(frozen=True, slots=True)
class ServerClient:
    """One server, and how it is asked."""

    url: str
    api_key: str | None = None
    timeout_s: float = 5.0

    def get(self, path: str, *, accepted: tuple[int, ...] = ()) -> dict[str, Any]:
        """Return the JSON document at ``path``; as ``send`` does."""
        return self.send("GET", path, accepted=accepted)

    def send(
        self, method: str, path: str, content: Mapping[str, Any] | None = None, *, accepted: tuple[int, ...] = ()
    ) -> dict[str, Any]:
        """Return the JSON document that ``path`` answers.

        Args:
            method: of HTTP.
            path: from the root, such as ``/v1/models``; names in it are quoted already.
            content: sent as JSON.
            accepted: further statuses than 200, 201, 202 and 204 (an empty one) whose body is an answer, not an error.

        Raises:
            ServerUnreachableError: nothing answers at the address within the time limit.
            ServerError: the answer is an error, or no JSON object.
        """
        status, body = self._exchange(method, path, content)
        try:
            document = json.loads(body, parse_constant=lambda _name: None)
        except ValueError:
            document = None
        if status == http.HTTPStatus.NO_CONTENT:
            return {}
        if status not in {200, 201, 202, *accepted}:
            raise ServerError(_refusal(self.url + path, status, document))
        if not isinstance(document, dict):
            message = f"{self.url}{path} did not answer with the expected JSON; is that an ondol server?"
            raise ServerError(message)
        return document

    def _exchange(self, method: str, path: str, content: Mapping[str, Any] | None) -> tuple[int, bytes]:
        body = None if content is None else json.dumps(content).encode("ascii")
        headers = {"Accept": "application/json"} | ({} if body is None else {"Content-Type": "application/json"})
        request = urllib.request.Request(self.url + path, body, headers, method=method)  # noqa: S310  # the option's check and server_url allow http and https alone
        if self.api_key:
            request.add_unredirected_header("Authorization", f"Bearer {self.api_key}")
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if urlsplit(self.url).hostname in _LOOPBACK:
            handlers.append(urllib.request.ProxyHandler({}))  # a proxy would look for it on its own machine
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=self.timeout_s) as response:
                return response.status, response.read(_MAX_ANSWER_BYTES)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read(_MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise ServerUnreachableError(self._unreachable(exc)) from exc

    def _unreachable(self, exc: Exception) -> str:
        reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
        if isinstance(reason, TimeoutError):
            why = f"no answer within {self.timeout_s:g} s"
        elif isinstance(reason, ConnectionRefusedError):
            why = "nothing listens there"
        else:
            why = str(reason) or type(reason).__name__
        return f"no server reachable at {self.url}: {why}; start one with `ondol serve`, or name another with --url"


def _refusal(url: str, status: int, document: Any) -> str:
    detail = ""
    if isinstance(document, dict):
        detail = str(document.get("detail") or document.get("title") or "")
    if status in {401, 403}:
        return f"{url} answered {status}: {detail or 'not allowed'}{_key_hint(detail)}"
    return f"{url} answered {status}: {detail or http.client.responses.get(status, 'unknown status')}"


def _key_hint(detail: str) -> str:
    if "admin token" in detail:
        return "; set ONDOL_ADMIN_KEY to it, or ONDOL_DATA_DIR to the server's folder"
    return "" if "ONDOL_" in detail else "; set ONDOL_API_KEY to the server's key"
