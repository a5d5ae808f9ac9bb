"""`ondol stats --watch` at a terminal of its own: the keys that end it, and what is left behind."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING

import pytest

from ondol.cli.watch_terminal import keys_of
from ondol.setting_specs import SETTINGS
from tests.server.test_cli_client import Stub, running_stub
from tests.server.test_cli_watch import READY, STATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT_S = 20.0
AT_TERMINAL = "import os; os.login_tty(0); from ondol.cli.main import main; raise SystemExit(main())"
"""As a shell starts it: with a terminal that sends it signals."""


class Release(threading.Event):
    """What a request that hangs waits for; it tells when one does."""

    def __init__(self) -> None:
        super().__init__()
        self.is_waited_for = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.is_waited_for.set()
        return super().wait(timeout)


class Terminal:
    """`ondol stats --watch` at a terminal of its own."""

    def __init__(self, url: str, folder: Path, *arguments: str, rows: int = 60, columns: int = 100) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._kept = theirs  # so that its settings can be read when the program has ended
        self.settings = termios.tcgetattr(theirs)
        self.seen = ""
        names = {setting.variable for setting in SETTINGS}
        environment = {name: value for name, value in os.environ.items() if name not in names}
        self.process = subprocess.Popen(
            [sys.executable, "-c", AT_TERMINAL, "stats", "--watch", "--interval", "0.1", "--url", url, *arguments],
            cwd=folder,
            env={**environment, "TERM": "xterm-256color", "PYTHONUTF8": "1"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )

    def read_until(self, has_come: Callable[[str], bool]) -> None:
        """Read what the program writes until ``has_come`` says so."""
        until_s = time.monotonic() + LIMIT_S
        while not has_come(self.seen):
            ready, _, _ = select.select([self._ours], [], [], max(0.0, until_s - time.monotonic()))
            assert ready, f"nothing more came; seen: {self.seen[-2000:]!r}"
            self.seen += os.read(self._ours, 65536).decode(errors="replace")

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def code(self) -> int:
        """Return the exit code, with everything that was written until then in ``seen``."""
        until_s = time.monotonic() + LIMIT_S
        has_ended = False
        # It is read all the while: a full terminal would hold the program up.
        while select.select([self._ours], [], [], 0.0 if has_ended else 0.02)[0] or not has_ended:
            if select.select([self._ours], [], [], 0.0)[0]:
                self.seen += os.read(self._ours, 65536).decode(errors="replace")
            has_ended = self.process.poll() is not None
            assert has_ended or time.monotonic() < until_s, f"it does not end; seen: {self.seen[-2000:]!r}"
        return self.process.returncode

    def is_as_before(self) -> bool:
        """Tell whether the terminal is as it was: settings, main screen, cursor."""
        shows = self.seen.rfind("\x1b[?1049l") > self.seen.rfind("\x1b[?1049h") >= 0
        has_cursor = self.seen.rfind("\x1b[?25h") > self.seen.rfind("\x1b[?25l")
        return termios.tcgetattr(self._kept) == self.settings and shows and has_cursor

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
        os.close(self._kept)


@pytest.fixture
def stub() -> Iterator[Stub]:
    with running_stub() as server:
        server.answers |= {"/v1/stats": (200, STATS), "/readyz": (200, READY)}
        yield server


@pytest.fixture
def watch_at_terminal(stub: Stub, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    terminals: list[Terminal] = []

    def start(*arguments: str, **size: int) -> Terminal:
        terminals.append(Terminal(stub.url, tmp_path, *arguments, **size))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


@pytest.mark.parametrize(
    ("keys", "code"), [(b"q", 0), (b"xQ", 0), (b"\x04", 0), (b"\x03", 0), (b"\x1aq", 0), (None, 128 + signal.SIGTERM)]
)
def test_a_key_ends_it_and_the_terminal_is_as_before(
    watch_at_terminal: Callable[..., Terminal], keys: bytes | None, code: int
) -> None:
    terminal = watch_at_terminal()
    terminal.read_until(lambda seen: "\x1b[?1049h" in seen and "memory_high" in seen and "http.request" in seen)
    assert termios.tcgetattr(terminal._kept) != terminal.settings, "keys are read one by one"
    if keys is None:
        terminal.process.terminate()
    else:
        terminal.press(keys)
    assert terminal.code() == code
    assert terminal.is_as_before()
    assert "Traceback" not in terminal.seen


def test_it_goes_on_when_the_server_is_lost(watch_at_terminal: Callable[..., Terminal], stub: Stub) -> None:
    terminal = watch_at_terminal()
    terminal.read_until(lambda seen: "memory_high" in seen)
    stub.answers["/v1/stats"] = (503, {"title": "stopping"})
    terminal.read_until(lambda seen: "no answer since" in seen)
    mark = len(terminal.seen)
    stub.answers["/v1/stats"] = (200, STATS)
    terminal.read_until(lambda seen: "live" in seen[mark:].rpartition("no answer since")[2])
    terminal.press(b"q")
    assert terminal.code() == 0
    assert terminal.is_as_before()


def test_a_server_that_hangs_keeps_nobody(watch_at_terminal: Callable[..., Terminal], stub: Stub) -> None:
    stub.release = release = Release()
    terminal = watch_at_terminal("--timeout", "60")
    terminal.read_until(lambda seen: "memory_high" in seen)
    stub.answers["/v1/stats"] = (200, "hang")
    assert release.is_waited_for.wait(LIMIT_S)
    terminal.press(b"q")
    assert terminal.code() == 0
    assert terminal.is_as_before()


def test_it_ends_by_itself_after_so_many_looks(watch_at_terminal: Callable[..., Terminal]) -> None:
    terminal = watch_at_terminal("--count", "2")
    assert terminal.code() == 0
    assert terminal.is_as_before()


def test_an_error_at_the_start_leaves_the_terminal_alone(tmp_path: Path) -> None:
    terminal = Terminal("http://127.0.0.1:1", tmp_path)
    try:
        assert terminal.code() == 3
        assert "no server reachable" in terminal.seen
        assert "\x1b[?1049h" not in terminal.seen
    finally:
        terminal.close()


def test_without_a_terminal_to_read_from_it_only_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    with keys_of(None) as is_ended_within:
        assert is_ended_within(0.5) is False
    assert pauses == [0.5]


def test_a_terminal_that_is_gone_is_the_end() -> None:
    ours, theirs = pty.openpty()
    try:
        with keys_of(theirs) as is_ended_within:
            assert is_ended_within(0.0) is False
            os.write(ours, b"x")
            assert is_ended_within(0.0) is False
            os.write(ours, b"q")
            assert is_ended_within(LIMIT_S) is True
    finally:
        os.close(theirs)
        os.close(ours)
