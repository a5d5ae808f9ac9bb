"""Descriptors that stay open: how many, whose, and what when there are none left."""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ondol.monitor.host import HostSampler
from ondol.monitor.proc_files import FileLostError, KeptFile, KeptRow, OpenFiles
from ondol.testing import FakeClock
from ondol.units import MIB
from tests.service.host_trees.machine import Machine, write

if TYPE_CHECKING:
    from collections.abc import Callable

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="this system has no /proc")


def open_descriptors() -> set[str]:
    """Return the files of this process, by number and path."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{link.name} {link.readlink()}")
        except OSError:
            continue  # the one that the list was read with
    return found


@linux_only
def test_nothing_stays_open_before_the_first_sample_and_after_close() -> None:
    before = open_descriptors()
    sampler = HostSampler()
    sampler.allowed_memory_bytes()
    sampler.allowed_cpus()
    sampler.rss_bytes()
    assert open_descriptors() == before
    sampler.sample()
    while_open = open_descriptors()
    assert while_open > before
    sampler.sample()
    sampler.rss_bytes()
    assert len(open_descriptors()) <= len(while_open) + 1  # the file of rss_bytes
    sampler.close()
    assert open_descriptors() == before
    assert sampler.sample().rss_bytes > MIB
    del sampler
    assert open_descriptors() == before


@linux_only
def test_the_count_of_descriptors_is_the_true_one(tmp_path: Path) -> None:
    sampler = HostSampler()
    sampler.sample()
    for more in range(3):
        with (tmp_path / str(more)).open("wb"):
            assert sampler.sample().open_files == len(open_descriptors())
    sampler.close()


def test_the_limit_of_descriptors_is_the_soft_one(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        sample = Machine(tmp_path).sampler().sample()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (sample.file_descriptor_limit, sample.open_files, sample.open_files_percent) == (200, 5, 2.5)


def test_without_a_limit_of_descriptors_there_is_no_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    sample = Machine(tmp_path).sampler().sample()
    assert (sample.file_descriptor_limit, sample.open_files_percent) == (None, None)


def test_a_kernel_that_does_not_count_descriptors_is_asked_for_the_list(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "fd" / str(number), "")
    files = OpenFiles(tmp_path / "fd")
    assert [files.count() for _ in range(5)] == [3] * 5
    write(tmp_path / "fd" / "9", "")
    assert files.count() == 4
    assert OpenFiles(tmp_path / "none").count() is None


# --- forks ---


@linux_only
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of a process with threads: that is what is tested
def test_after_a_fork_the_child_tells_of_itself() -> None:
    sampler = HostSampler(clock=FakeClock())
    release = threading.Event()
    threads = [threading.Thread(target=release.wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    ballast = bytearray(os.urandom(1)) * (64 * MIB)
    parent = sampler.sample()
    assert parent.threads >= 6
    try:
        child = in_fork(lambda: _shrunk_sample(sampler, ballast))
    finally:
        release.set()
        for thread in threads:
            thread.join()
    assert child["threads"] == 1
    assert child["rss_bytes"] < parent.rss_bytes - 32 * MIB
    assert child["rss_bytes"] == pytest.approx(child["rss_alone_bytes"], abs=8 * MIB)
    assert sampler.sample().rss_bytes > child["rss_bytes"] + 32 * MIB  # the parent's descriptors still work
    sampler.close()


@linux_only
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_another_thread_samples_does_not_stop_the_child() -> None:
    sampler = HostSampler()
    sampler.sample()
    with sampler._lock:  # as if the thread that holds it were not copied
        assert in_fork(lambda: {"threads": sampler.sample().threads}) == {"threads": 1}
    sampler.close()


def _shrunk_sample(sampler: HostSampler, ballast: bytearray) -> dict[str, int]:
    ballast.clear()
    sample = sampler.sample()
    return {"threads": sample.threads, "rss_bytes": sample.rss_bytes, "rss_alone_bytes": sampler.rss_bytes()}


def in_fork(work: Callable[[], dict[str, int]]) -> dict[str, int]:
    """Return what ``work`` gives in a forked child."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        answer = answers.read()
    os.waitpid(pid, 0)
    found: dict[str, int] = json.loads(answer)
    return found


# --- single files ---


def test_a_kept_file_is_read_whole_however_long_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, "a" * 100)
    file, head = KeptFile(path, 16), KeptFile(path, 16, is_head=True)
    assert (file.read(), head.read()) == (b"a" * 100, b"a" * 16)
    write(path, "b" * 1000)
    assert file.read() == b"b" * 1000
    write(path, "")
    assert file.read() == b""


def test_a_missing_file_is_looked_for_again_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    file, row = KeptFile(path), KeptRow([("a", [path])])
    assert (file.read(), row.read()) == (b"", [])
    write(path, "5")
    assert (file.read(), row.read()) == (b"", [])
    file.forget_missing()
    row.forget_missing()
    assert (file.read(), row.read(), row.keys) == (b"5", [b"5"], ["a"])


def test_of_several_paths_the_first_that_can_be_read_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "second", "2")
    (tmp_path / "folder").mkdir()  # opens, but cannot be read
    row = KeptRow([("a", [tmp_path / "first", tmp_path / "folder", tmp_path / "second"]), ("b", [tmp_path / "none"])])
    assert (row.read(), row.keys) == ([b"2"], ["a"])


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ESTALE, errno.ENOENT])
def test_a_lost_file_is_opened_again_or_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    write(tmp_path / "file", "5")
    quiet, told = KeptFile(tmp_path / "file"), KeptFile(tmp_path / "file", is_told=True)
    row = KeptRow([("a", [tmp_path / "file"])], is_told=True)
    assert (quiet.read(), told.read(), row.read()) == (b"5", b"5", [b"5"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", _failing(number))
        assert quiet.read() == b"5"
        for lost in (told, row):
            with pytest.raises(FileLostError):
                lost.read()
    assert (quiet.read(), told.read(), row.read()) == (b"5", b"5", [b"5"])


def test_without_descriptors_left_a_file_is_not_taken_for_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "file", "5")
    file, row = KeptFile(tmp_path / "file"), KeptRow([("a", [tmp_path / "file"])])
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", _failing(errno.EMFILE))
        assert (file.read(), row.read()) == (b"", [])
    assert (file.read(), row.read()) == (b"5", [b"5"])


def test_a_file_that_can_no_longer_be_read_is_left_out_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, name)
    row = KeptRow([(name, [tmp_path / name]) for name in ("a", "b")], is_told=True)
    assert row.read() == [b"a", b"b"]
    pread = os.pread

    def refusing(descriptor: int, size: int, offset: int) -> bytes:
        text = pread(descriptor, size, offset)
        if text.startswith(b"a"):
            raise OSError(errno.EOPNOTSUPP, "switched off")
        return text

    monkeypatch.setattr(os, "pread", refusing)
    assert (row.read(), row.keys) == ([b"b"], ["b"])


@linux_only
def test_a_sampler_that_is_open_samples_on_when_there_are_no_descriptors_left() -> None:
    clock = FakeClock()
    sampler = HostSampler(clock=clock)
    sampler.sample()
    clock.advance(5.0)
    before = sampler.sample()
    clock.advance(5.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        sample = sampler.sample()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sample.open_files == before.open_files
    assert sample.memory_limit_bytes == before.memory_limit_bytes
    assert sample.threads == before.threads
    sampler.close()


def _failing(number: int) -> Callable[..., bytes]:
    def fail(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    return fail
