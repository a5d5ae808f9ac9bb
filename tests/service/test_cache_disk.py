from __future__ import annotations

import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ondol.cache.disk import DiskTier
from ondol.cache.ports import Invalidation
from ondol.testing import FakeClock
from ondol.units import MIB
from tests.service.disk_fakes import keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOME = "ondol-cache-1"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def tier(tmp_path: Path, clock: FakeClock) -> Iterator[DiskTier]:
    made = DiskTier(tmp_path / "cache", 8 * MIB, clock)
    made.open()
    yield made
    made.close()
    assert not any(thread.name == "ondol cache disk writer" for thread in threading.enumerate())


def test_what_was_put_is_found_before_and_after_it_is_written(tier: DiskTier) -> None:
    assert tier.fetch("a\x00") is None
    assert tier.put("a\x00", b"one")
    assert tier.fetch("a\x00") == b"one"
    assert tier.flush()
    assert tier.fetch("a\x00") == b"one"
    tier.put("a\x00", b"two")
    assert tier.fetch_many(["a\x00", "b\x00"]) == [b"two", None]
    stats = tier.get_stats()
    assert (stats["hits"], stats["misses"], stats["entries"], stats["is_open"]) == (3, 2, 1, True)


def test_it_is_there_after_a_restart(tier: DiskTier) -> None:
    tier.put("a\x00", b"one", tags=("t",))
    tier.close()
    assert tier.fetch("a\x00") is None
    assert tier.get_stats()["is_open"] is False
    tier.open()
    tier.open()
    assert tier.fetch("a\x00") == b"one"


def test_closed_it_misses_and_keeps_nothing(tmp_path: Path, clock: FakeClock) -> None:
    made = DiskTier(tmp_path / "cache", MIB, clock)
    assert not (tmp_path / "cache").exists()
    assert made.put("a\x00", b"one") is False
    assert made.fetch("a\x00") is None
    assert made.invalidate(Invalidation("all")) is None
    assert made.flush() is False
    assert list(made.hot(3)) == []
    made.remember_hot(["a\x00"])
    made.close()


@pytest.mark.parametrize("is_written", [False, True])
def test_invalidations_are_seen_at_once_and_stay(tier: DiskTier, is_written: bool) -> None:
    long_name = "user:" + ":".join("x" * 90 for _ in range(6))
    for name, tags in (("a", ("t",)), ("b", ("t", "u")), ("c", ()), ("user:1", ()), ("user:12", ()), (long_name, ())):
        tier.put(f"{name}\x00", name.encode(), tags=tags)
    if is_written:
        tier.flush()
    assert tier.invalidate(keys("a", "zzz", "a")) == 1
    assert tier.fetch("a\x00") is None
    assert tier.invalidate(Invalidation("tag", ("u",))) is None
    assert tier.fetch("b\x00") is None
    assert tier.invalidate(Invalidation("pattern", ("user:1?", "user:x*x"))) is None
    tier.put("new\x00", b"new", tags=("u",))
    for _ in range(2):
        found = [tier.fetch(f"{name}\x00") for name in ("a", "b", "c", "user:1", "user:12", long_name, "new")]
        assert found == [None, None, b"c", b"user:1", None, None, b"new"]
        tier.flush()
    tier.invalidate(Invalidation("all"))
    tier.put("c\x00", b"again")
    for _ in range(2):
        assert [tier.fetch(f"{name}\x00") for name in ("c", "user:1", "new")] == [b"again", None, None]
        tier.flush()
    assert tier.get_stats()["entries"] == 1


def test_an_expired_entry_is_a_miss_and_goes(tier: DiskTier, clock: FakeClock) -> None:
    now_s = clock.wall()
    tier.put("a\x00", b"one", expires_at_s=now_s + 10)
    tier.put("b\x00", b"two", expires_at_s=now_s + 20)
    tier.flush()
    assert tier.fetch("a\x00") == b"one"
    tier.put("c\x00", b"three", expires_at_s=now_s + 10)
    clock.advance(10)
    assert tier.fetch_many(["a\x00", "b\x00", "c\x00"]) == [None, b"two", None]
    tier.flush()
    stats = tier.get_stats()
    assert (stats["entries"], stats["evictions"]["expired"]) == (1, 2)


def test_an_invalidation_of_many_entries_takes_all_of_them(tier: DiskTier) -> None:
    for number in range(1500):
        tier.put(f"n:{number}\x00", b"x" * 100, tags=("t",) if number % 3 else ("u",))
    tier.flush()
    tier.invalidate(Invalidation("tag", ("t", "none")))
    tier.flush()
    assert tier.get_stats()["entries"] == 500
    tier.invalidate(Invalidation("pattern", ("n:*[0-8]", "zzz*")))
    tier.flush()
    assert tier.get_stats()["entries"] == 50
    tier.invalidate(Invalidation("keys", tuple(f"n:{number}\x00" for number in range(1500))))
    tier.flush()
    assert tier.get_stats()["entries"] == 0


def test_a_put_after_an_invalidation_is_kept(tier: DiskTier) -> None:
    for kind, values in (("keys", ("a\x00",)), ("tag", ("t",)), ("pattern", ("a*",)), ("all", ())):
        tier.put("a\x00", b"old", tags=("t",))
        tier.invalidate(Invalidation(kind, values))  # type: ignore[arg-type]  # one of the four
        tier.put("a\x00", kind.encode(), tags=("t",))
        assert tier.fetch("a\x00") == kind.encode()
        tier.flush()
        assert tier.fetch("a\x00") == kind.encode()


def test_the_bound_is_kept_and_the_dear_and_the_read_stay(tier: DiskTier, tmp_path: Path) -> None:
    tier.put("dear\x00", b"d" * 2000, cost_s=1000.0)
    tier.put("read\x00", b"r" * 2000, cost_s=0.01)
    for number in range(6000):
        tier.put(f"n:{number}\x00", bytes(2000), cost_s=0.01)
        if number % 200 == 0:
            tier.flush()
            assert tier.fetch("read\x00")
    tier.flush()
    assert tier.fetch("dear\x00") == b"d" * 2000
    assert tier.fetch("read\x00") == b"r" * 2000
    assert tier.fetch("n:5999\x00") is not None
    assert tier.fetch("n:5\x00") is None
    stats = tier.get_stats()
    assert stats["evictions"]["size"] > 3000
    assert stats["used_bytes"] <= stats["max_bytes"]
    assert stats["failures"] == 0
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) <= 8 * MIB


def test_what_is_too_large_is_refused_and_what_was_there_goes(tier: DiskTier) -> None:
    tier.put("a\x00", b"small")
    tier.flush()
    assert tier.put("a\x00", bytes(2 * MIB)) is False
    assert tier.fetch("a\x00") is None
    tier.flush()
    assert tier.fetch("a\x00") is None
    assert tier.get_stats()["dropped_writes"] == 1


def test_the_hot_keys_come_back_in_order_then_the_most_worth_keeping(tier: DiskTier) -> None:
    for number in range(10):
        tier.put(f"{number}\x00", b"%d" % number, cost_s=0.1)
    tier.remember_hot(["3\x00", "gone\x00", "1\x00"])
    tier.close()
    tier.open()
    assert list(tier.hot(2)) == [("3\x00", b"3"), ("1\x00", b"1")]
    assert [key[0] for key, _ in tier.hot(5)] == ["3", "1", "9", "8", "7"]
    assert tier.get_stats()["hits"] == 0
    tier.invalidate(keys("3"))
    assert [key[0] for key, _ in tier.hot(2)] == ["1", "9"]
    tier.remember_hot([])
    tier.flush()
    assert [key[0] for key, _ in tier.hot(99)] == ["9", "8", "7", "6", "5", "4", "2", "1", "0"]


def test_the_folder_is_created_for_this_user_alone(tmp_path: Path, clock: FakeClock) -> None:
    made = DiskTier(tmp_path / "a" / "b", MIB, clock)
    made.open()
    for path in (tmp_path / "a" / "b", tmp_path / "a" / "b" / HOME):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    made.close()


def test_its_figures_go_to_the_recorder(tmp_path: Path, clock: FakeClock) -> None:
    recorded: dict[str, float] = {}

    def record(name: str, value: float, unit: str = "", **labels: str) -> None:
        recorded[name] = value

    made = DiskTier(tmp_path, MIB, clock, record)
    made.open()
    clock.advance(6)
    made.put("a\x00", b"one")
    made.close()
    assert recorded["cache.disk.entries"] == 1
    assert 0 < recorded["cache.disk.used_bytes"] <= MIB


def test_any_argument_of_a_put_is_safe(tier: DiskTier) -> None:
    odd: list[tuple[str, dict[str, Any]]] = [
        ("", {}),
        ("\ud800\x00", {"tags": ("\ud800", "", "x" * 1000)}),
        ("x" * 5000 + "\x00", {"cost_s": float("inf"), "expires_at_s": float("inf")}),
        ("x" * 5000 + "y\x00", {"cost_s": float("nan"), "tags": tuple(f"t{number}" for number in range(300))}),
        ("past\x00", {"expires_at_s": -5.0, "cost_s": -1.0}),
    ]
    for key, options in odd:
        assert tier.put(key, b"frame", **options)
    for _ in range(2):
        assert [tier.fetch(key) for key, _ in odd] == [b"frame"] * 4 + [None]
        assert tier.flush()
    assert tier.get_stats()["failures"] == 0
    tier.invalidate(Invalidation("tag", ("x" * 1000, "t299")))
    assert [tier.fetch(key) for key, _ in odd] == [b"frame", None, b"frame", None, None]
