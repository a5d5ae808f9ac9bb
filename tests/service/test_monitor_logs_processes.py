from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.service.log_processes import LINES, MAX_BYTES, logged_in, start_process

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


class Processes:
    """What was started, ended at last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.running: list[subprocess.Popen[str]] = []

    def start(self, what: str, name: str) -> subprocess.Popen[str]:
        process = start_process(what, self._folder, name)
        self.running.append(process)
        return process

    def ended(self, process: subprocess.Popen[str]) -> str:
        """Wait until it has ended well; return what it said on standard error."""
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return errors


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    for process in processes.running:
        process.kill()
        process.communicate()


def test_four_processes_lose_no_line_under_rotation(tmp_path: Path, processes: Processes) -> None:
    names = ["a", "b", "c", "d"]
    for process in [processes.start("write", name) for name in names]:
        assert processes.ended(process) == ""
    messages, torn = logged_in(tmp_path)
    assert torn == []
    assert messages == {f"{name} {number}": 1 for name in names for number in range(LINES)}
    files = list(tmp_path.glob("application.log*"))
    assert len(files) > 50
    assert all(file.stat().st_size <= MAX_BYTES for file in files)


def test_a_process_that_is_killed_costs_the_others_nothing(tmp_path: Path, processes: Processes) -> None:
    victim = processes.start("write for ever", "victim")
    others = [processes.start("write", name) for name in ("a", "b")]
    for process in (victim, *others):
        assert process.stdout is not None
        assert process.stdout.readline()
    victim.kill()
    victim.wait(60)
    for process in others:
        assert processes.ended(process) == ""
    messages, torn = logged_in(tmp_path)
    assert len(torn) <= 1
    assert all('"message": "victim' in line or '"message"' not in line for line in torn)
    for name in ("a", "b"):
        assert [messages[f"{name} {number}"] for number in range(LINES)] == [1] * LINES
    written = sorted(int(message.split()[1]) for message in messages if message.startswith("victim"))
    assert written == list(range(len(written)))


def test_parent_child_and_grandchild_write_each_line_once(tmp_path: Path, processes: Processes) -> None:
    assert processes.ended(processes.start("fork", "p")) == ""
    messages, torn = logged_in(tmp_path)
    assert torn == []
    expected = {"p": 2 * LINES, "p-child": 2 * LINES, "p-grandchild": LINES}
    assert messages == {f"{name} {number}": 1 for name, count in expected.items() for number in range(count)}


def test_children_of_multiprocessing_lose_no_line_at_their_end(tmp_path: Path, processes: Processes) -> None:
    processes.ended(processes.start("fork in pool", "p"))
    messages, torn = logged_in(tmp_path)
    assert torn == []
    assert messages == {f"{name} {number}": 1 for name in ("p", "p-0", "p-1") for number in range(LINES)}
