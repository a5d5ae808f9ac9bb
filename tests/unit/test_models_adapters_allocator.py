"""The C library's allocator: set where that is possible, left alone where not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ondol.models.allocator import give_back, prepare_allocator

is_glibc = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {})
needs_glibc = pytest.mark.skipif(not is_glibc, reason="the C library here is not glibc")

# Blocks below the threshold, so that they are on the heap; every 64th stays, so that its top cannot shrink.
PROGRAM = """
from ondol.models.allocator import give_back, prepare_allocator
def rss(): return int(open("/proc/self/statm").read().split()[1]) * 4096
assert prepare_allocator().is_applied
begun = rss()
blocks = [bytearray(b"x" * 200_000) for _ in range(500)]
kept = blocks[::64]
full = rss()
del blocks
left = rss()
assert give_back()
print(full - begun, left - begun, rss() - begun)
"""


@needs_glibc
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_freed_goes_back() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    taken, _left, after = map(int, result.stdout.split())
    assert taken > 90_000_000
    assert after < 0.1 * taken


@needs_glibc
def test_it_can_be_prepared_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert prepare_allocator() == prepare_allocator()
    assert "1.0 MiB" in prepare_allocator().reason


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown)
    report = prepare_allocator()
    assert not report.is_applied
    assert "not glibc" in report.reason
    assert give_back() is False


@needs_glibc
def test_what_else_the_operator_chose_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2:glibc.malloc.tcache_count=4")
    assert prepare_allocator().is_applied


@needs_glibc
@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_MMAP_THRESHOLD_", "4096"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=4096")],
)
def test_what_the_operator_chose_stays(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    report = prepare_allocator()
    assert not report.is_applied
    assert name in report.reason
