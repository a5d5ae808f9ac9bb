"""Who asks the server of benchmarks/load.py: clients at once, each with its next request as soon as it is answered."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from load_texts import Request, Traffic

__all__ = ["FOUND_HEADER", "Answer", "ask", "run_clients"]

FOUND_HEADER = "x-texts-found"
"""How the app says how many of the texts that a request needed were in the cache: ``found/needed``."""
ANSWER_LIMIT_S = 60.0


class Answer(NamedTuple):
    """One request: its number, how long it took, how many texts were found; ``fault`` is empty when all was well."""

    number: int
    kind: str
    taken_s: float
    found: int = 0
    needed: int = 0
    fault: str = ""

    @property
    def is_hit(self) -> bool:
        """Whether nothing had to be computed."""
        return not self.fault and self.found == self.needed


class Connection:
    """One kept connection to the server."""

    def __init__(self, port: int) -> None:
        """Connect with the first request."""
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_LIMIT_S)

    def send(self, number: int, request: Request) -> Answer:
        """Return what came of a request; never raises for what the server or the network does."""
        body = json.dumps(request.body).encode()
        begun_s = time.perf_counter()
        try:
            self._http.request("POST", request.path, body, {"Content-Type": "application/json"})
            response = self._http.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException) as exc:
            self._http.close()
            return Answer(number, request.kind, time.perf_counter() - begun_s, fault=repr(exc))
        taken_s = time.perf_counter() - begun_s
        if response.status != 200:
            return Answer(number, request.kind, taken_s, fault=f"{response.status}: {raw[:300]!r}")
        found, _, needed = response.getheader(FOUND_HEADER, "0/0").partition("/")
        return Answer(number, request.kind, taken_s, int(found), int(needed))

    def close(self) -> None:
        """Disconnect."""
        self._http.close()


def ask(port: int, method: str, path: str, body: object = None) -> dict[str, object]:
    """Return the server's answer to one request of the benchmark itself.

    Raises:
        RuntimeError: it is no success.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_LIMIT_S)
    payload = None if body is None else json.dumps(body)
    connection.request(method, path, payload, {"Content-Type": "application/json"} if payload else {})
    response = connection.getresponse()
    raw = response.read()
    connection.close()
    if response.status >= 300:
        message = f"{method} {path}: {response.status}: {raw[:300]!r}"
        raise RuntimeError(message)
    answer: dict[str, object] = json.loads(raw)
    return answer


def run_clients(port: int, traffic: Traffic, *, clients: int, seconds: float) -> list[Answer]:
    """Let so many clients ask for so long; return what came of all requests."""
    answers: list[Answer] = []
    end_s = time.monotonic() + seconds

    def work() -> None:
        connection = Connection(port)
        while time.monotonic() < end_s:
            answers.append(connection.send(*traffic.take()))
        connection.close()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
