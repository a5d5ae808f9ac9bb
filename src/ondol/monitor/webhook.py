"""adapter: notices to an HTTP address, in Alertmanager's webhook format, with the standard library's client."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import socket
import ssl
import threading
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ondol._version import __version__
from ondol.errors import MonitorError
from ondol.monitor.daemon_threads import DaemonThreads
from ondol.monitor.notice_ports import DeliveryTerms, NoticeRejectedError
from ondol.monitor.webhook_body import SIGNATURE_HEADER, encode_notice, sign

if TYPE_CHECKING:
    from ondol.clock import Clock
    from ondol.monitor.notice import Notice
    from ondol.monitor.targets import WebhookTarget

__all__ = ["WebhookNotifier", "masked"]

MAX_ANSWER_BYTES: Final = 64 * 1024
SHOWN_CHARACTERS: Final = 200
RETRIED: Final = frozenset({408, 425, 429})
SAFE_IN_PATH: Final = "/%:@!$&'()*+,;=~-._"
HINTS: Final = {
    400: "the receiver does not accept the body: is it made for Alertmanager's webhook format?",
    401: "check the user and password in the address",
    403: "check the secret and what the receiver allows",
    404: "check the path of the address",
    405: "check the path of the address: it takes no POST",
    410: "the address is no longer served: take it out of the targets",
    413: "raise the receiver's limit of the body's size",
}


class _Answer(NamedTuple):
    status: int
    retry_after: str | None
    text: str


def masked(url: str) -> str:
    """Return the address without what may be secret: user, password, path, query and fragment.

    >>> masked("https://bot:geheim@hooks.example.org:8443/services/T0/B1/x?token=1")
    'https://hooks.example.org:8443/…'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "…"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}/…"


class WebhookNotifier:
    """Posts each notice to a :class:`~ondol.monitor.targets.WebhookTarget`.

    Redirects are not followed: the signature and the alerts are meant for the address that was given. Proxies of the
    environment are not used. Certificates are verified against the system's authorities.

    Raises:
        MonitorError: the address is no ``http`` or ``https`` URL with a host.
    """

    def __init__(
        self, target: WebhookTarget, clock: Clock, *, external_url: str = "", tls: ssl.SSLContext | None = None
    ) -> None:
        """Send nothing yet.

        Args:
            target: address, secret and patience.
            clock: dates the signature.
            external_url: where a reader can look at this service, if it has such a place.
            tls: what verifies ``https`` addresses, instead of the system's authorities.
        """
        self.name = target.name
        self.terms = DeliveryTerms(target.timeout_s, target.retry_for_s, target.sends_resolved)
        self._secret = target.secret
        self._clock = clock
        self._external_url = external_url
        self._url = _checked(target.url, target.name)
        self._shown = masked(target.url)
        self._tls = tls
        self._threads = DaemonThreads(f"ondol-webhook-{target.name}")

    async def send(self, notice: Notice) -> None:
        """Post ``notice``.

        Cancellation: the connection is closed and its thread left alone.

        Raises:
            NoticeRejectedError: any answer but 2xx.
            OSError: no connection, or no answer.
        """
        body = encode_notice(notice, self.name, self._external_url)
        request = _Request(self._connection(), self._path(), self._headers(body), body)
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, request.perform)
        except http.client.HTTPException as exc:
            if isinstance(exc, OSError):
                raise
            raise OSError(f"{self._shown} gave no valid HTTP answer: {type(exc).__name__}") from exc
        finally:
            request.abort()
        if not 200 <= answer.status < 300:
            raise self._rejection(answer)

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self.terms.timeout_s)
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=self.terms.timeout_s, context=self._tls)

    def _path(self) -> str:
        path = quote(self._url.path, safe=SAFE_IN_PATH) or "/"
        return f"{path}?{quote(self._url.query, safe=SAFE_IN_PATH + '?')}" if self._url.query else path

    def _headers(self, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": f"ondol/{__version__}", "Connection": "close"}
        if self._url.username is not None:
            pair = f"{unquote(self._url.username)}:{unquote(self._url.password or '')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        if self._secret is not None:
            headers[SIGNATURE_HEADER] = sign(self._secret, body, self._clock.wall())
        return headers

    def _rejection(self, answer: _Answer) -> NoticeRejectedError:
        is_permanent = 300 <= answer.status < 500 and answer.status not in RETRIED
        text = f"{self._shown} answered {answer.status}"
        if 300 <= answer.status < 400:
            text += ": redirects are not followed, give the address it leads to"
        elif answer.status in HINTS:
            text += f": {HINTS[answer.status]}"
        elif is_permanent:
            text += ": check the address and what the receiver expects"
        if answer.text:
            text += f" (it said: {answer.text})"
        retry_after_s = _seconds(answer.retry_after, self._clock.wall()) if answer.status in {429, 503} else None
        return NoticeRejectedError(text, is_permanent=is_permanent, retry_after_s=retry_after_s)


class _Request:
    """One POST, performed in a thread and aborted from the event loop."""

    def __init__(self, connection: http.client.HTTPConnection, path: str, headers: dict[str, str], body: bytes) -> None:
        self._connection = connection
        self._path = path
        self._headers = headers
        self._body = body
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_aborted = False

    def perform(self) -> _Answer:
        try:
            self._connection.connect()
            with self._lock:
                if self._is_aborted:  # nobody waits any more: a body sent now would be told twice
                    raise ConnectionAbortedError("given up before the connection stood")
                self._socket = self._connection.sock
            self._connection.request("POST", self._path, self._body, self._headers)
            response = self._connection.getresponse()
            retry_after = response.headers.get("Retry-After")
            # What is said with a success is not waited for: the notice has been taken.
            text = "" if 200 <= response.status < 300 else _shown(response.read(MAX_ANSWER_BYTES))
            return _Answer(response.status, retry_after, text)
        finally:
            with self._lock:
                self._socket = None
            self._connection.close()

    def abort(self) -> None:
        """End the request if it still runs: a read that waits for the receiver comes back."""
        with self._lock:
            self._is_aborted = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _shown(body: bytes) -> str:
    text = body[: SHOWN_CHARACTERS * 4].decode("utf-8", errors="replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:SHOWN_CHARACTERS]


def _checked(url: str, name: str) -> SplitResult:
    allowed = "http:// or https://, a host, and no control characters"
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")  # as the client will: what has no such form is a ValueError
    except ValueError:
        is_valid = False
    if not is_valid or not url.isprintable() or " " in url:
        raise MonitorError(f"the address of the webhook {name!r} is not valid: it must have {allowed}")
    return parts


def _seconds(retry_after: str | None, wall_s: float) -> float | None:
    """Return the seconds that a Retry-After header asks for, as a number or as a date."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - wall_s)
