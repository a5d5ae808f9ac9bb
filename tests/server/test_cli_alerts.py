"""`ondol alerts` against a server of fixed answers, against the real thing, and over a file."""

from __future__ import annotations

import getpass
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


def rule(name: str, state: str, severity: str = "warning", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": state,
        "severity": severity,
        "since_seconds": 75.0,
        "value": 92.1234567,
        "condition": f"{name} > 90",
        "message": f"mend {name}",
        "labels": {"alertname": name},
        **changes,
    }


SILENCE = {
    "id": "8d4f0051",
    "matchers": {"alertname": "disk", "severity": "*"},
    "state": "active",
    "ends_at": 1_749_980_000.0,
    "created_by": "kim",
    "comment": "a planned\x1b[31m import",
    "rules": ["disk"],
}
OVERVIEW = {
    "rules": [
        rule("calm", "inactive", since_seconds=5.4, value=None),
        rule("soon", "pending", "critical", since_seconds=4.0),
        rule("disk", "firing", "warning"),
        rule("memory", "firing", "critical"),
    ],
    "active": [{"name": "disk", "silenced_by": "8d4f0051"}, {"name": "memory", "silenced_by": None}],
    "silences": [SILENCE],
    "notices": {},
}
EVENTS = [
    {"name": "disk", "state": "resolved", "severity": "warning", "at": 1_749_980_000.0, "value": None}
    | {"active_seconds": 125.0, "reason": "no value came"},
    {"name": "disk", "state": "fired", "severity": "warning", "at": 1e300, "value": 97.0, "active_seconds": 30.0},
]


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    (tmp_path / ".ondol").mkdir()
    (tmp_path / ".ondol" / "admin-token").write_text("token-of-the-server\n")
    with running_stub() as server:
        server.answers["/v1/alerts"] = (200, OVERVIEW)
        yield server


@pytest.fixture(autouse=True)
def clean_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.chdir(tmp_path)


def test_what_fires_comes_first_and_then_what_may_fire_soon(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alerts", "--url", stub.url]) == 0
    captured = capsys.readouterr()
    title, *rows = captured.out.splitlines()
    assert title.split() == ["alert", "state", "severity", "for", "value", "condition", "what", "to", "do"]
    assert [row.split()[0] for row in rows] == ["memory", "disk", "soon"]
    assert rows[0].split() == [
        "memory",
        "firing",
        "critical",
        "1",
        "min",
        "15",
        "s",
        "92.1235",
        "memory",
        ">",
        "90",
        "mend",
        "memory",
    ]
    assert "firing, silenced until 2025-06-15" in rows[1]
    assert "pending" in rows[2]
    assert captured.err == "2 of 4 rules firing, silences: 1\n"
    assert "Authorization" not in stub.asked[0][1]  # reading needs no administrator


def test_a_server_without_trouble_says_so(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/v1/alerts"] = (200, {"rules": [rule("calm", "inactive")], "active": [], "silences": []})
    assert main(["alerts", "--url", stub.url]) == 0
    assert capsys.readouterr().out == "No alert is active.\n"


def test_a_server_that_watches_nothing_says_so(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    off = {"is_enabled": False, "rules": [rule("calm", "inactive")], "active": [], "silences": []}
    stub.answers["/v1/alerts"] = (200, off)
    assert main(["alerts", "--url", stub.url]) == 0
    assert capsys.readouterr().out.startswith("Monitoring is off (ENABLE_PERFORMANCE_MONITORING): the rules are not")
    assert main(["alerts", "rules", "--url", stub.url]) == 0
    captured = capsys.readouterr()
    assert "calm" in captured.out
    assert captured.err.startswith("warning: Monitoring is off")
    assert main(["alerts", "rules", "--url", stub.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_enabled"] is False


def test_how_notices_fare_is_shown_when_there_are_notifiers(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    notices = {"webhook": {"sent": 3, "failed": 1, "queued": 0, "last_error": "HTTP\n500"}, "mail": {}}
    stub.answers["/v1/alerts"] = (200, {**OVERVIEW, "notices": notices})
    assert main(["alerts", "--url", stub.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "notices by webhook: 3 sent, 1 failed, last error: HTTP 500",
        "notices by mail: 0 sent",
    ]


def test_alerts_in_json_are_what_the_server_said(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alerts", "--url", stub.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"url": stub.url, **OVERVIEW}
    assert main(["alerts", "--json", "rules", "--url", stub.url]) == 0
    assert json.loads(capsys.readouterr().out) == {"url": stub.url, "is_enabled": True, "data": OVERVIEW["rules"]}
    assert main(["alerts", "--url", stub.url, "silences", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"url": stub.url, "data": [SILENCE]}


def test_every_rule_is_listed_in_the_order_of_the_server(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alerts", "rules", "--url", stub.url]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[:2] for row in rows] == [
        ["calm", "inactive"],
        ["soon", "pending"],
        ["disk", "firing"],
        ["memory", "firing"],
    ]
    assert rows[0].split()[3:6] == ["5", "s", "-"]


def test_the_history_is_a_table(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/v1/alerts/history?limit=2"] = (200, {"data": EVENTS, "total": 9})
    assert main(["alerts", "history", "--limit", "2", "--url", stub.url]) == 0
    title, over, fired = capsys.readouterr().out.splitlines()
    assert title.split() == ["when", "alert", "what", "severity", "value", "lasted", "why"]
    assert over.startswith("2025-06-15")
    assert " ".join(over.split()[2:]) == "disk resolved warning - 2 min 5 s no value came"
    assert fired.split() == ["-", "disk", "fired", "warning", "97"]
    stub.answers["/v1/alerts/history?limit=100"] = (200, {"data": [], "total": 0})
    assert main(["alerts", "history", "--url", stub.url]) == 0
    assert capsys.readouterr().out == "No alert has fired.\n"


@pytest.mark.parametrize(
    ("words", "matchers"),
    [
        (["memory_high"], {"alertname": "memory_high"}),
        (["disk_*", "severity=info"], {"alertname": "disk_*", "severity": "info"}),
        (["note=a=b"], {"note": "a=b"}),
        (["alertname=x=y"], {"alertname": "x=y"}),
        (["메모리 부족"], {"alertname": "메모리 부족"}),
    ],
)
@pytest.mark.parametrize(("duration", "sent"), [("2h", "2h"), ("90", 90.0)])
def test_alerts_are_silenced_by_name_or_label(
    words: list[str],
    matchers: dict[str, str],
    duration: str,
    sent: object,
    stub: Stub,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stub.answers["POST /v1/alerts/silences"] = (201, SILENCE)
    assert main(["alerts", "silence", *words, "--for", duration, "--comment", "why", "--url", stub.url]) == 0
    user = getpass.getuser()
    assert stub.bodies == [{"matchers": matchers, "duration_seconds": sent, "comment": "why", "created_by": user}]
    assert stub.asked[0][1]["Authorization"] == "Bearer token-of-the-server"
    captured = capsys.readouterr()
    assert captured.out.startswith("8d4f0051: silent until 2025-06-15")
    assert captured.out.endswith(": disk\n")
    assert captured.err == ""


def test_a_silence_that_fits_no_rule_is_made_with_a_warning(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["POST /v1/alerts/silences"] = (201, {**SILENCE, "rules": []})
    assert main(["alerts", "silence", "dsik", "--for", "2h", "--by", "lee", "--url", stub.url]) == 0
    assert stub.bodies[0]["created_by"] == "lee"
    assert capsys.readouterr().err.startswith("warning: no rule of the server fits")


def test_a_user_without_a_name_is_nobody(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr(getpass, "getuser", nameless)
    stub.answers["POST /v1/alerts/silences"] = (201, SILENCE)
    assert main(["alerts", "silence", "disk", "--for", "2h", "--url", stub.url]) == 0
    assert stub.bodies[0]["created_by"] == ""


def test_a_silence_that_is_refused_is_code_2(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["POST /v1/alerts/silences"] = (422, {"code": "invalid-request", "detail": "duration_seconds must be"})
    assert main(["alerts", "silence", "disk", "--for", "soon", "--url", stub.url]) == 2
    assert capsys.readouterr().err == "error: duration_seconds must be\n"


@pytest.mark.parametrize("field", ["body", "duration_seconds"])
def test_a_duration_that_is_refused_is_called_as_it_was_typed(
    stub: Stub, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    refusal = {"code": "invalid-request", "detail": "the server's words", "errors": [{"field": field}]}
    stub.answers["POST /v1/alerts/silences"] = (422, refusal)
    assert main(["alerts", "silence", "disk", "--for", "400d", "--url", stub.url]) == 2
    typed = (
        "--for 400d is not allowed: it must be a time above 0 and of at most 365d, such as 45m, 2h, 1d12h, or seconds"
    )
    assert capsys.readouterr().err == f"error: {typed if field == 'duration_seconds' else refusal['detail']}\n"


def test_silences_are_listed_and_nothing_in_them_steers_the_terminal(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["alerts", "silences", "--url", stub.url]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.startswith("8d4f0051  alertname=disk severity=*  active  2025-06-15 ")
    assert row.endswith("  kim  a planned\ufffd[31m import")


def test_a_silence_is_ended(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    path = "DELETE /v1/alerts/silences/a%2Fb"
    stub.answers[path] = (404, {"code": "unknown-silence", "detail": "no silence has the id 'a/b'"})
    assert main(["alerts", "unsilence", "a/b", "--url", stub.url]) == 2
    assert capsys.readouterr().err == "error: no silence has the id 'a/b'\n"
    stub.answers[path] = (404, {"code": "not-found"})
    assert main(["alerts", "unsilence", "a/b", "--url", stub.url]) == 1
    stub.answers[path] = (204, b"")
    capsys.readouterr()
    assert main(["alerts", "unsilence", "a/b", "--url", stub.url]) == 0
    assert capsys.readouterr().out == "a/b: removed\n"
    assert main(["alerts", "unsilence", "a/b", "--url", stub.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"url": stub.url, "removed": "a/b"}


@pytest.mark.parametrize("arguments", [[], ["rules"], ["history"], ["silences"], ["silence", "disk", "--for", "2h"]])
def test_an_answer_of_another_server_is_code_1_and_none_is_code_3(
    arguments: list[str], stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("/v1/alerts", "/v1/alerts/history?limit=100", "POST /v1/alerts/silences"):
        stub.answers[path] = (200, {"other": 1})
    assert main(["alerts", "--url", stub.url, *arguments]) == 1
    assert "of this version?" in capsys.readouterr().err
    assert main(["alerts", "--url", "http://127.0.0.1:1", *arguments]) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["rulse"],
        ["history", "--limit", "0"],
        ["history", "--limit", "1001"],
        ["silence", "--for", "2h"],
        ["silence", "disk"],
        ["silence", "=x", "--for", "2h"],
        ["silence", "severity=", "--for", "2h"],
        ["silence", "disk", "alertname=other", "--for", "2h"],
        ["unsilence"],
    ],
)
def test_wrong_usage_is_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alerts", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_commands_are_completed(tmp_path: Path) -> None:
    assert set(complete("ondol alerts si", tmp_path)) == {"silence", "silences"}


# The file


RULES = """
[[rules]]
name = "slow"
metric_name = "http.request_seconds"
threshold = 0.5
operator = ">"
aggregate = "p99"
message = "look at the slowest model"

[[webhooks]]
url = "https://alerts.example/hook"

[defaults]
disable = ["disk_full"]
"""


def test_a_file_that_is_right_shows_the_rules_there_will_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ondol-alerts.toml").write_text(RULES)
    assert main(["alerts", "check"]) == 0
    title, *rows, end = capsys.readouterr().out.splitlines()
    assert title.split()[:2] == ["alert", "from"]
    assert rows[-1].startswith("slow ")
    assert rows[-1].split()[1:3] == ["file", "warning"]
    assert "p99 of http.request_seconds over 60 s > 0.5" in rows[-1]
    assert [row.split()[1] for row in rows[:-1]] == ["default"] * (len(rows) - 1)
    assert "disk_full" not in {row.split()[0] for row in rows}
    assert end == "notices go to: webhook; silences: 0"


def test_a_file_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    assert main(["alerts", "check", "rules.toml", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["is_valid"], found["problems"], found["notifiers"]) == (True, [], ["webhook"])
    assert found["rules"][-1]["name"] == "slow"
    assert found["disabled"] == ["disk_full"]


def test_every_mistake_of_a_file_is_told_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.toml").write_text('[[rules]]\nname = "x"\nthreshhold = 3\n\n[gruping]\n')
    assert main(["alerts", "check", "bad.toml"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: 3 problems\n")
    for part in ("bad.toml:1:", "bad.toml:3:", "did you mean 'threshold'?", "bad.toml:5:", "did you mean 'grouping'?"):
        assert part in captured.err
    assert main(["alerts", "--json", "check", "bad.toml"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["is_valid"], len(found["problems"])) == (False, 3)


def test_a_file_that_is_not_there_is_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alerts", "check"]) == 2
    assert "ondol-alerts.toml: cannot be read" in capsys.readouterr().err


# The real server


@pytest.mark.server
def test_a_real_server_is_silenced_and_unsilenced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = LiveServer(tmp_path / "one")
    try:
        assert server.url, server.errors()
        monkeypatch.chdir(server.folder)  # where its token is
        here = ["--url", server.url]
        assert main(["alerts", "rules", *here]) == 0
        assert "memory_high" in capsys.readouterr().out
        assert main(["alerts", "silence", "memory_*", "--for", "1h30m", "--comment", "계획된 작업", *here]) == 0
        silence_id, _, rest = capsys.readouterr().out.partition(":")
        assert "memory_high" in rest
        assert main(["alerts", "silences", "--json", *here]) == 0
        (silence,) = json.loads(capsys.readouterr().out)["data"]
        assert (silence["id"], silence["comment"]) == (silence_id, "계획된 작업")
        assert main(["alerts", "history", *here]) == 0
        assert main(["alerts", *here]) == 0
        assert main(["alerts", "unsilence", silence_id, *here]) == 0
        assert main(["alerts", "unsilence", silence_id, *here]) == 2
        capsys.readouterr()
        for duration in ("2x", "400d", "0"):
            assert main(["alerts", "silence", "memory_high", "--for", duration, *here]) == 2
            assert capsys.readouterr().err.startswith(f"error: --for {duration} is not allowed: it must be a time")
    finally:
        server.close()
