from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from ondol.monitor import rotation
from ondol.monitor.rotation import RotatingFile


def numbered(number: int) -> bytes:
    return f"line {number:03} {'x' * 10}\n".encode()


def numbers_in(folder: Path) -> list[int]:
    """Return the numbers of all lines in all files, in order."""
    kept = "".join(file.read_text() for file in folder.iterdir()).splitlines()
    return sorted(int(line.split()[1]) for line in kept)


def test_rotation_keeps_whole_lines_and_so_many_old_files(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "a.log", max_bytes=100, old_files=3)
    for number in range(0, 40, 2):
        file.write([numbered(number), numbered(number + 1)])
    file.close()
    names = ("a.log.3", "a.log.2", "a.log.1", "a.log")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    kept = "".join((tmp_path / name).read_text() for name in names)
    numbers = [int(line.split()[1]) for line in kept.splitlines()]
    assert numbers == list(range(numbers[0], 40))
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    assert file.lines_written == 40


def test_lines_of_one_call_are_divided_between_files_where_they_must_be(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "a.log", max_bytes=100, old_files=99)
    file.write([numbered(number) for number in range(40)])
    file.close()
    assert numbers_in(tmp_path) == list(range(40))
    assert all(path.stat().st_size == 100 for path in tmp_path.iterdir())


def test_only_a_line_that_is_larger_makes_a_file_larger(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "a.log", max_bytes=30, old_files=9)
    file.write([b"short\n", b"x" * 50 + b"\n", b"short\n"])
    file.close()
    sizes = [(tmp_path / name).stat().st_size for name in ("a.log.2", "a.log.1", "a.log")]
    assert sizes == [6, 51, 6]


def test_rotation_goes_on_after_another_process_has_rotated(tmp_path: Path) -> None:
    ours, theirs = (RotatingFile(tmp_path / "a.log", max_bytes=50, old_files=99) for _ in range(2))
    for number in range(20):
        (ours if number % 2 else theirs).write([numbered(number)])
    ours.close()
    theirs.close()
    assert numbers_in(tmp_path) == list(range(20))


def test_nothing_is_written_into_a_file_that_was_rotated_away(tmp_path: Path) -> None:
    ours, theirs = (RotatingFile(tmp_path / "a.log", max_bytes=100, old_files=99) for _ in range(2))
    ours.write([numbered(0)])
    theirs.write([numbered(number) for number in range(1, 6)])
    before = (tmp_path / "a.log.1").read_bytes()
    ours.write([numbered(6)])
    ours.close()
    theirs.close()
    assert (tmp_path / "a.log.1").read_bytes() == before
    assert (tmp_path / "a.log").read_bytes().endswith(numbered(6))


def test_a_folder_that_was_removed_comes_back(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "logs" / "a.log")
    file.write([b"one\n"])
    (tmp_path / "logs" / "a.log").unlink()
    (tmp_path / "logs").rmdir()
    file.write([b"two\n"])
    file.close()
    assert (tmp_path / "logs" / "a.log").read_text() == "two\n"


def test_a_line_that_a_killed_process_left_unfinished_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    file = RotatingFile(path)
    file.write([b"one\n"])
    with path.open("ab") as killed:
        killed.write(b"not finish")
    file.write([b"two\n", b"three\n"])
    file.close()
    assert path.read_text() == "one\nnot finish\ntwo\nthree\n"
    assert file.lines_written == 3


def full_after(monkeypatch: pytest.MonkeyPatch, bytes_left: int) -> None:
    """Let the disk take so many bytes and then be full."""
    real_write = os.write
    left = bytes_left

    def write(descriptor: int, content: Any) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real_write(descriptor, content[:left])
        left -= count
        return count

    monkeypatch.setattr(os, "write", write)


def test_on_a_full_disk_whole_lines_stay_and_a_part_of_one_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RotatingFile(tmp_path / "a.log")
    with monkeypatch.context() as patch:
        full_after(patch, 11)
        with pytest.raises(OSError, match="No space"):
            file.write([b"one\n", b"two\n", b"torn line\n"])
    assert file.lines_written == 2
    file.write([b"three\n"])
    file.close()
    assert (tmp_path / "a.log").read_text() == "one\ntwo\nthree\n"


def test_a_part_of_a_line_that_cannot_be_taken_back_spoils_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.EPERM, "append only")

    file = RotatingFile(tmp_path / "a.log")
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", refuse)
        full_after(patch, 7)
        with pytest.raises(OSError, match="No space"):
            file.write([b"one\n", b"torn line\n"])
    file.write([b"two\n"])
    file.close()
    assert (tmp_path / "a.log").read_text() == "one\ntor\ntwo\n"
    assert file.lines_written == 2


def test_a_file_that_cannot_be_rotated_is_written_on_and_no_old_one_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    path = tmp_path / "a.log"
    file = RotatingFile(path, max_bytes=100, old_files=3, warn=warnings.append)
    file.write([numbered(number) for number in range(15)])
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if self == path:
            raise OSError(errno.EACCES, "not allowed")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        for number in range(15, 30):
            file.write([numbered(number)])
    assert numbers_in(tmp_path) == list(range(30))
    assert len(warnings) == 1
    assert "cannot rotate" in warnings[0]
    assert file.failed_rotations > 1
    file.write([numbered(number) for number in range(30, 35)])
    file.close()
    assert path.stat().st_size <= 100
    assert len(warnings) == 1


def test_where_no_new_file_can_be_made_the_old_one_gets_its_name_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RotatingFile(tmp_path / "a.log", max_bytes=100, old_files=3)
    file.write([numbered(number) for number in range(5)])

    def refuse(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        file.write([numbered(5)])
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]
    assert numbers_in(tmp_path) == list(range(6))
    file.close()


def test_a_stopped_process_with_the_lock_holds_nobody_up(tmp_path: Path) -> None:
    warnings: list[str] = []
    path = tmp_path / "a.log"
    file = RotatingFile(path, max_bytes=50, old_files=9, lock_patience_s=0.0, warn=warnings.append)
    file.write([numbered(0)])
    with path.open("ab") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        file.write([numbered(1), numbered(2), numbered(3)])
        file.write([numbered(4)])
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]  # nobody rotates without the lock
    assert len(warnings) == 1
    assert "locked" in warnings[0]
    file.write([numbered(5)])
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.log.1"]
    assert numbers_in(tmp_path) == list(range(6))


def test_without_locks_it_says_so_once_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(rotation, "take_lock", refuse)
    warnings: list[str] = []
    ours, theirs = (
        RotatingFile(tmp_path / "a.log", max_bytes=50, old_files=99, warn=warnings.append) for _ in range(2)
    )
    for number in range(20):
        (ours if number % 2 else theirs).write([numbered(number)])
    ours.close()
    theirs.close()
    assert numbers_in(tmp_path) == list(range(20))
    assert len(warnings) == 2
    assert "No locks available" in warnings[0]
