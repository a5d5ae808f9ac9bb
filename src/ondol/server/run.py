"""service: `ondol serve`: checks the settings, takes the port, and runs the server in this process.

The port is taken before anything heavy is imported: a port in use is told at once, and a client that comes early waits
instead of failing.
"""

from __future__ import annotations

import gc
import json
import socket
import sys
from typing import TYPE_CHECKING, Final

from ondol._version import __version__
from ondol.errors import ConfigurationError

if TYPE_CHECKING:
    from ondol.settings import ResolvedSettings, Settings

__all__ = ["check_exposure", "serve"]

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_SAMPLE: Final = {"text_a": "The room is warm.", "text_b": "방이 따뜻하다."}


def serve(settings: ResolvedSettings) -> int:
    """Serve until a signal (Ctrl-C, SIGTERM) comes; then let the requests under way finish.

    Returns:
        0 after a clean end, requests that outlived ``shutdown_grace_s`` having been cut off; 1 when the server could
        not start, when a second Ctrl-C asked not to wait, or when something held on to the process beyond the grace.

    Raises:
        ConfigurationError: the settings would open the server to the network without a key, or name a default model
            that is not there.
    """
    values = settings.values
    check_exposure(values)
    try:
        listener = _listen(values.host, values.port)
    except OSError as exc:
        sys.stderr.write(f"ondol: {_listen_problem(exc, values)}\n")
        return 1
    gc.disable()  # as in ondol.cli.main, for those who call this; the server turns it on again when it serves
    try:
        from ondol.server.process import run_server

        return run_server(listener, values, _greeting(listener, values))
    finally:
        gc.enable()
        listener.close()


def check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond this machine without an API key.

    Raises:
        ConfigurationError: that is what the settings ask for.
    """
    if settings.api_key is not None or _is_loopback(settings.host):
        return
    message = (
        f"ONDOL_HOST={settings.host} opens the server to other machines, and ONDOL_API_KEY is not set: anybody there "
        "could use it and read what is stored. Set ONDOL_API_KEY, or listen on 127.0.0.1."
    )
    raise ConfigurationError(message)


def _is_loopback(host: str) -> bool:
    if host in _LOOPBACK:
        return True
    import ipaddress

    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(addresses) and all(ipaddress.ip_address(address.split("%")[0]).is_loopback for address in addresses)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # Inherited by every accepted connection. asyncio sets it only on sockets that say they are TCP, and these leave
    # their protocol open; with Nagle's algorithm on, each answer waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _listen_problem(exc: OSError, settings: Settings) -> str:
    import errno

    place = f"{settings.host}:{settings.port}"
    if exc.errno == errno.EADDRINUSE:
        return f"{place} is in use: stop what listens there, or set ONDOL_PORT (0 takes a free port)"
    if exc.errno == errno.EACCES:
        return f"listening on {place} is not permitted: ports below 1024 belong to root; set ONDOL_PORT"
    return f"cannot listen on {place}: {exc.strerror or exc}; check ONDOL_HOST and ONDOL_PORT"


def _greeting(listener: socket.socket, settings: Settings) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # a comparison: nothing is bound here
    url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    key = "" if settings.api_key is None else " -H 'Authorization: Bearer '$ONDOL_API_KEY"
    sample = json.dumps(_SAMPLE, ensure_ascii=False)
    return (
        f"ondol {__version__}: {url}  API docs: {url}/docs  "
        f"try: curl {url}/v1/similarity{key} -H 'Content-Type: application/json' -d '{sample}'\n"
    )
