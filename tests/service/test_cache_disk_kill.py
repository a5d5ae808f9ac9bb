from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from ondol.cache.disk import DiskTier
from ondol.cache.frame import StoredEntry, encode_frame
from ondol.cache.ports import Invalidation
from ondol.clock import SystemClock
from tests.service.disk_victim import BOUND_BYTES, check, value_of

if TYPE_CHECKING:
    from collections.abc import Iterator

KILLS = 10
VICTIM = Path(__file__).with_name("disk_victim.py")
KEYS = [f"v:{number}\x00" for number in range(1500)]


class Stage:
    """What a test has started and opened: ended and closed after it, whatever happened."""

    def __init__(self) -> None:
        self.victims: list[subprocess.Popen[str]] = []
        self.tiers: list[DiskTier] = []

    def start(self, folder: Path, first: int) -> subprocess.Popen[str]:
        command = [sys.executable, str(VICTIM), str(folder), str(first)]
        self.victims.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return self.victims[-1]

    def open_tier(self, folder: Path) -> DiskTier:
        self.tiers.append(DiskTier(folder, BOUND_BYTES, SystemClock()))
        self.tiers[-1].open()
        return self.tiers[-1]


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    for victim in made.victims:
        victim.kill()
        victim.wait()
        output(victim).close()
    for tier in made.tiers:
        tier.close()


def output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def gone_keys(lines: list[str]) -> list[str]:
    """Return the keys of whole lines that say that they were taken away."""
    return [line[5:-1] for line in lines if line.startswith("gone ") and line.endswith("\x00\n")]


def size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_killed_process_leaves_what_is_right_and_nothing_that_was_taken_away(tmp_path: Path, stage: Stage) -> None:
    chance, gone, found = random.Random(7), list[str](), 0
    for kill in range(KILLS):
        victim = stage.start(tmp_path, kill * 100_000)
        lines = [output(victim).readline() for _ in range(chance.randrange(1, 7))]
        for _ in range(chance.randrange(20_000)):
            pass  # somewhere within a write, not always right after one
        victim.send_signal(signal.SIGKILL)
        lines += output(victim).readlines()
        victim.wait()
        gone += gone_keys(lines)
        tier = stage.open_tier(tmp_path)
        for key in KEYS:
            frame = tier.fetch(key)
            if frame is not None:
                check(key, frame)
                found += 1
        assert [key for key in gone if tier.fetch(key) is not None] == []
        stats = tier.get_stats()
        assert (stats["failures"], stats["repairs"]) == (0, 0)
        assert stats["used_bytes"] <= BOUND_BYTES
        tier.close()
        assert size_bytes(tmp_path) <= BOUND_BYTES
    assert found > KILLS * 100
    assert len(gone) > KILLS


def test_processes_that_write_and_invalidate_at_once_agree(tmp_path: Path, stage: Stage) -> None:
    ours = stage.open_tier(tmp_path)
    victims = [stage.start(tmp_path, number * 1_000_000) for number in (1, 2)]
    for victim in victims:
        assert output(victim).readline() == "open\n"
    lines: list[str] = []
    for number in range(30):
        key = f"ours:{number}\x00"
        ours.put(key, encode_frame(key, StoredEntry(value_of(key, number), 50.0, 0.0)), tags=("ours",), cost_s=50.0)
        for other in KEYS[number * 50 : number * 50 + 50]:
            frame = ours.fetch(other)
            if frame is not None:
                check(other, frame)
        for victim in victims:
            lines += [output(victim).readline()]
    assert ours.flush()
    assert all(ours.fetch(f"ours:{number}\x00") is not None for number in range(30))
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
        lines += output(victim).readlines()
        victim.wait()
    ours.invalidate(Invalidation("tag", ("ours",)))
    assert ours.flush(), "a killed writer must not keep the lock"
    gone = gone_keys(lines)
    assert len(gone) >= 50
    stats: dict[str, Any] = ours.get_stats()
    assert (stats["failures"], stats["repairs"], stats["entries"] > 100) == (0, 0, True)
    ours.close()
    again = stage.open_tier(tmp_path)
    assert [key for key in gone if again.fetch(key) is not None] == []
    assert [number for number in range(30) if again.fetch(f"ours:{number}\x00") is not None] == []
    again.close()
    assert size_bytes(tmp_path) <= BOUND_BYTES
