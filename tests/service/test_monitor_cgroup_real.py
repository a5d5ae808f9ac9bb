"""Real control groups with a memory limit, where this machine permits to make one below our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from ondol.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT_BYTES = 256 * MIB
BALLAST_BYTES = 100 * MIB

# Joins the group given to it (if any), allocates, prints a sample; then a sample after each line that it is sent.
PROGRAM = """
import json, pathlib, sys
from ondol.monitor.host import HostSampler
if sys.argv[1]:
    pathlib.Path(sys.argv[1], "cgroup.procs").write_text("0")
ballast = bytearray(b"x") * int(sys.argv[2])
sampler = HostSampler()
print(json.dumps(sampler.sample()._asdict()), flush=True)
for _ in sys.stdin:
    print(json.dumps(sampler.sample()._asdict()), flush=True)
"""


class Child:
    """A process in a group, that samples when it is asked to."""

    def __init__(self, group: Path) -> None:
        arguments = [sys.executable, "-c", PROGRAM, str(group), str(BALLAST_BYTES)]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the child ended before it answered"
        found: dict[str, Any] = json.loads(line)
        return found

    def sample(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.answer()


@contextmanager
def running(group: Path) -> Iterator[Child]:
    child = Child(group)
    try:
        yield child
    finally:
        child.process.kill()
        child.process.communicate()


@contextmanager
def new_group(parent: Path, name: str) -> Iterator[Path]:
    """Make a group; skip the test where that is not allowed."""
    group = parent / f"ondol-test-{os.getpid()}-{name}"
    try:
        group.mkdir()
    except OSError as exc:
        pytest.skip(f"no control group can be made below {parent}: {exc}")
    try:
        yield group
    finally:
        remove(group)


def remove(group: Path) -> None:
    """Remove a group whose processes have ended: the kernel may take a moment to see them gone."""
    for _ in range(500):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError(f"{group} is still in use")


def own_group(controller: str) -> Path:
    """Return our own group's folder of a v1 controller, or of v2 (``""``); skip the test where there is none."""
    paths = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in read_lines("/proc/self/cgroup")}
    for line in read_lines("/proc/self/mountinfo"):
        kind, _, options = line.partition(" - ")[2].split(" ", 2)
        is_it = (
            kind == "cgroup" and controller in options.split(" ")[-1].split(",") if controller else kind == "cgroup2"
        )
        if is_it and controller in paths and line.split(" ")[3] == "/":
            return Path(line.split(" ")[4]) / paths[controller].lstrip("/")
    pytest.skip(f"this machine has no {controller or 'v2'} hierarchy that shows our own group")


def read_lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        pytest.skip(f"this system does not tell of control groups: {exc}")


def limit(group: Path, name: str, size_bytes: int) -> None:
    try:
        (group / name).write_text(str(size_bytes), encoding="ascii")
    except OSError as exc:
        pytest.skip(f"no memory limit can be set here: {exc}")


def check_limited(sample: dict[str, Any], source: str) -> None:
    share = 100.0 * BALLAST_BYTES / LIMIT_BYTES
    assert sample["source"] == source
    assert sample["memory_limit_bytes"] == LIMIT_BYTES
    assert share <= sample["memory_percent"] <= share + 20.0  # the interpreter is there too
    assert sample["memory_used_bytes"] >= BALLAST_BYTES
    assert sample["rss_bytes"] >= BALLAST_BYTES
    assert sample["memory_limit_bytes"] < psutil.virtual_memory().total


def test_a_real_v1_group_with_a_memory_limit() -> None:
    with new_group(own_group("memory"), "v1") as group:
        limit(group, "memory.limit_in_bytes", LIMIT_BYTES)
        with running(group) as child:
            check_limited(child.answer(), "cgroup v1")
            limit(group, "memory.limit_in_bytes", 2 * LIMIT_BYTES)
            raised = child.sample()
            assert raised["memory_limit_bytes"] == 2 * LIMIT_BYTES
            assert raised["memory_percent"] < 35.0


def test_a_real_v1_limit_of_an_ancestor() -> None:
    with new_group(own_group("memory"), "outer") as outer:
        limit(outer, "memory.limit_in_bytes", LIMIT_BYTES)
        with new_group(outer, "inner") as inner, running(inner) as child:
            check_limited(child.answer(), "cgroup v1")


def test_a_real_group_that_is_removed_while_a_sampler_reads_it() -> None:
    with new_group(own_group("memory"), "left") as outer:
        limit(outer, "memory.limit_in_bytes", 2 * LIMIT_BYTES)
        with new_group(outer, "inner") as inner:
            limit(inner, "memory.limit_in_bytes", LIMIT_BYTES)
            with running(inner) as child:
                check_limited(child.answer(), "cgroup v1")
                (outer / "cgroup.procs").write_text(str(child.process.pid), encoding="ascii")
                remove(inner)
                assert child.sample()["memory_limit_bytes"] == 2 * LIMIT_BYTES


def test_a_real_v2_group_with_memory_limits() -> None:
    own = own_group("")
    if "memory" not in (own / "cgroup.subtree_control").read_text(encoding="utf-8").split():
        pytest.skip(f"the v2 group {own} does not hand the memory controller to groups below it")
    with new_group(own, "v2") as group:
        limit(group, "memory.max", LIMIT_BYTES)
        limit(group, "memory.high", LIMIT_BYTES - 16 * MIB)
        with running(group) as child:
            sample = child.answer()
            check_limited(sample, "cgroup v2")
            assert sample["memory_high_bytes"] == LIMIT_BYTES - 16 * MIB
            assert sample["memory_high_percent"] > sample["memory_percent"]


@pytest.mark.skipif(sys.platform != "linux", reason="this system has no control groups")
def test_pressure_of_a_real_v2_group_is_its_own() -> None:
    own = own_group("")
    if not (own / "memory.pressure").exists():
        pytest.skip("this kernel does not count pressure by group")
    with new_group(own, "psi") as group, running(group) as child:
        assert child.answer()["memory_pressure_percent"] is not None
        links = [str(path.readlink()) for path in Path(f"/proc/{child.process.pid}/fd").iterdir()]
        assert any(link.endswith(f"{group.name}/memory.pressure") for link in links)
