from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING

import lmdb
import pytest

from ondol.cache.adapters.lmdb_store import LmdbStore
from ondol.cache.disk import DiskTier
from ondol.cache.frame import StoredEntry, decode_frame, encode_frame
from ondol.cache.ports import Invalidation
from ondol.errors import ConfigurationError, CorruptEntryError, MissingExtraError
from ondol.testing import FakeClock
from ondol.units import MIB
from tests.service.disk_fakes import failing, keys

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


def test_an_old_value_does_not_come_back_when_a_waiting_one_is_invalidated(tmp_path: Path, clock: FakeClock) -> None:
    made, store = failing(tmp_path, clock)
    made.put("a\x00", b"old")
    made.flush()
    store.gate.clear()
    made.put("a\x00", b"new", tags=("t",))
    made.invalidate(Invalidation("tag", ("t",)))
    assert made.fetch("a\x00") is None
    store.gate.set()
    made.flush()
    assert made.fetch("a\x00") is None
    made.close()


def test_a_full_queue_drops_writes_but_no_old_value_outlives_a_new_one(tmp_path: Path, clock: FakeClock) -> None:
    made, store = failing(tmp_path, clock)
    made.put("a\x00", b"old")
    made.flush()
    store.gate.clear()
    accepted = [made.put(f"n:{number}\x00", b"x") for number in range(5000)]
    assert 4000 < sum(accepted) < 5000
    assert made.put("a\x00", b"new") is False
    assert made.fetch("a\x00") is None
    store.gate.set()
    assert made.flush()
    assert made.fetch("a\x00") is None
    assert made.get_stats()["dropped_writes"] == 5001 - sum(accepted)
    made.close()


def test_far_too_many_invalidations_become_one_of_everything(tmp_path: Path, clock: FakeClock) -> None:
    made, store = failing(tmp_path, clock)
    made.put("a\x00", b"old", tags=("t",))
    made.put("b\x00", b"old")
    made.flush()
    store.gate.clear()
    for number in range(20_000):
        made.invalidate(Invalidation("tag", (f"t{number}",)))
    made.put("b\x00", b"new")
    assert made.fetch_many(["a\x00", "b\x00"]) == [None, b"new"]
    store.gate.set()
    assert made.flush()
    assert made.fetch_many(["a\x00", "b\x00"]) == [None, b"new"]
    made.close()


def test_a_full_disk_is_counted_and_forgotten_values_stay_away(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    made, store = failing(tmp_path, clock)
    made.put("a\x00", b"old")
    made.put("b\x00", b"old", tags=("t",))
    made.flush()
    store.is_full = True
    made.put("a\x00", b"new")
    made.invalidate(Invalidation("tag", ("t",)))
    assert made.flush() is False
    assert made.fetch_many(["a\x00", "b\x00"]) == [None, None]
    assert made.flush() is False
    stats = made.get_stats()
    assert stats["failures"] >= 4
    assert stats["dropped_writes"] == 1
    complaints = [record for record in caplog.records if record.exc_info]
    assert len(complaints) == 1
    store.is_full = False
    assert made.flush()
    made.put("c\x00", b"new")
    assert made.flush()
    assert made.fetch_many(["a\x00", "b\x00", "c\x00"]) == [None, None, b"new"]
    made.close()


def test_invalidations_that_cannot_be_written_empty_the_folder_at_close(tmp_path: Path, clock: FakeClock) -> None:
    made, store = failing(tmp_path, clock)
    made.put("a\x00", b"old")
    made.flush()
    store.is_full = True
    made.invalidate(keys("a"))
    made.close()
    again = DiskTier(tmp_path, 8 * MIB, clock)
    again.open()
    assert again.fetch("a\x00") is None
    again.close()


def test_reads_that_fail_are_misses(tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    made, store = failing(tmp_path, clock)
    made.put("a\x00", b"one")
    made.flush()
    store.is_unreadable = True
    for _ in range(3):
        assert made.fetch("a\x00") is None
    assert made.get_stats()["failures"] == 3
    assert len([record for record in caplog.records if record.exc_info]) == 1
    clock.advance(61)
    made.fetch("a\x00")
    assert len([record for record in caplog.records if record.exc_info]) == 2
    store.is_unreadable = False
    assert made.fetch("a\x00") == b"one"
    made.close()


def test_ten_thousand_damaged_entries_are_misses_counted_and_removed(tier: DiskTier) -> None:
    good = [f"good:{number}\x00" for number in range(100)]
    bad = [f"bad:{number}\x00" for number in range(10_000)]
    for place, key in enumerate(bad):
        frame = bytearray(encode_frame(key, StoredEntry(place, 0.0, 0.0)))
        frame[place % len(frame)] ^= 1 << place % 8
        while not tier.put(key, bytes(frame) if place % 3 else bytes(frame[: place % len(frame)])):
            tier.flush()
    for key in good:
        tier.put(key, encode_frame(key, StoredEntry(key, 0.0, 0.0)))
    tier.flush()
    for key in bad + good:
        frame_found = tier.fetch(key)
        assert frame_found is not None
        try:
            assert decode_frame(key, frame_found).value == key
        except CorruptEntryError:
            tier.discard_corrupt(key)
        if key.startswith("bad"):
            assert tier.fetch(key) is None
    tier.flush()
    stats = tier.get_stats()
    assert (stats["corrupt"], stats["hits"], stats["misses"], stats["entries"]) == (10_000, 100, 20_000, 100)


def test_a_folder_that_cannot_be_used_is_an_error_that_says_what_to_do(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        made = DiskTier(path, MIB, clock)
        with pytest.raises(ConfigurationError, match="choose a folder"):
            made.open()
        assert made.fetch("a\x00") is None
    for bound in (0, MIB - 1, True, 2.5e6):
        with pytest.raises(ConfigurationError, match="max_bytes"):
            DiskTier(tmp_path, bound, clock)  # type: ignore[arg-type]  # that is what is tested


def test_two_tiers_of_one_process_cannot_share_a_folder(tier: DiskTier, clock: FakeClock) -> None:
    other = DiskTier(tier.path, 8 * MIB, clock)
    with pytest.raises(ConfigurationError, match="its own folder"):
        other.open()
    tier.put("a\x00", b"one")
    assert tier.flush()


def test_a_missing_package_is_named(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(MissingExtraError, match="lmdb"):
        DiskTier(tmp_path, MIB, clock).open()


def damage(home: Path, how: str) -> None:
    data = home / "data.mdb"
    raw = bytearray(data.read_bytes())
    if how == "garbage":
        raw[:] = os.urandom(len(raw))
    elif how == "short":
        del raw[len(raw) // 2 :]
    elif how == "empty":
        raw.clear()
    elif how == "zeros":
        raw[4096 * 2 :] = bytes(len(raw) - 4096 * 2)
    elif how == "text":
        raw[:] = b"not a database"
    data.write_bytes(raw)
    os.utime(data, ns=(1, 1))


@pytest.mark.parametrize("how", ["garbage", "short", "empty", "zeros", "text"])
def test_a_damaged_database_is_replaced(
    tmp_path: Path, clock: FakeClock, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = DiskTier(tmp_path, 8 * MIB, clock)
    made.open()
    for number in range(500):
        made.put(f"{number}\x00", os.urandom(1500), tags=("t",))
    made.close()
    damage(tmp_path / HOME, how)
    made.open()
    assert made.fetch("1\x00") is None
    made.put("1\x00", b"new")
    assert made.flush()
    assert made.fetch("1\x00") == b"new"
    made.close()
    if how != "empty":
        assert made.get_stats()["repairs"] == 1
        assert "an empty one takes its place" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == [HOME, f"{HOME}.users"]


def test_what_is_not_ours_is_moved_aside_and_kept(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    (tmp_path / HOME).mkdir()
    (tmp_path / HOME / "data.mdb").write_text("somebody's")
    made = DiskTier(tmp_path, MIB, clock)
    made.open()
    made.put("a\x00", b"one")
    made.close()
    assert made.get_stats()["repairs"] == 1
    assert (tmp_path / f"{HOME}.set-aside-1" / "data.mdb").read_text() == "somebody's"
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_a_database_of_another_format_is_replaced(tmp_path: Path, clock: FakeClock) -> None:
    made = DiskTier(tmp_path, MIB, clock)
    made.open()
    made.put("a\x00", b"one")
    made.close()
    with lmdb.open(str(tmp_path / HOME), max_dbs=8) as env:
        state = env.open_db(b"state")
        with env.begin(write=True) as txn:
            txn.put(b"format", b"99", db=state)
    made.open()
    assert made.fetch("a\x00") is None
    assert made.get_stats()["repairs"] == 1
    made.close()


def test_a_smaller_bound_is_kept_after_a_restart_with_the_best_entries(tmp_path: Path, clock: FakeClock) -> None:
    made = DiskTier(tmp_path, 8 * MIB, clock)
    made.open()
    for number in range(2000):
        made.put(f"{number}\x00", b"%d" % number + bytes(2000), cost_s=number / 1000, tags=("t",))
        if number % 500 == 0:
            made.flush()
    made.close()
    assert (tmp_path / HOME / "data.mdb").stat().st_size > 2 * MIB
    smaller = DiskTier(tmp_path, 2 * MIB, clock)
    smaller.open()
    assert (tmp_path / HOME / "data.mdb").stat().st_size <= 2 * MIB
    found = [number for number in range(2000) if smaller.fetch(f"{number}\x00") is not None]
    assert len(found) > 100
    assert found == list(range(found[0], 2000))
    smaller.put("a\x00", b"one")
    smaller.invalidate(Invalidation("tag", ("t",)))
    smaller.flush()
    assert smaller.get_stats()["entries"] == 1
    smaller.close()
    assert (tmp_path / HOME / "data.mdb").stat().st_size <= 2 * MIB
    assert sorted(path.name for path in tmp_path.iterdir()) == [HOME, f"{HOME}.users"]


def test_a_database_that_another_process_replaced_is_opened_anew(tier: DiskTier, clock: FakeClock) -> None:
    tier.put("a\x00", b"one")
    tier.flush()
    (tier.path / HOME).rename(tier.path / "away")
    tier.put("b\x00", b"two")
    assert tier.flush()
    assert tier.fetch_many(["a\x00", "b\x00"]) == [None, b"two"]
    assert (tier.path / HOME / "data.mdb").exists()


def test_a_forked_child_opens_it_for_itself(tier: DiskTier) -> None:
    tier.put("a\x00", b"one", tags=("t",))
    tier.flush()
    tier.fetch("a\x00")
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads: that is what is tested
        pid = os.fork()
    if pid == 0:
        try:
            found = [tier.fetch("a\x00"), tier.put("b\x00", b"two"), tier.invalidate(Invalidation("tag", ("t",)))]
            found += [tier.flush(20), tier.fetch("a\x00"), tier.fetch("b\x00")]
            tier.close()
            os.write(write_end, repr(found).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.read() == repr([b"one", True, None, True, None, b"two"]).encode()
    os.waitpid(pid, 0)
    assert tier.fetch_many(["a\x00", "b\x00"]) == [None, b"two"]
    tier.put("c\x00", b"three")
    assert tier.flush()
    assert tier.fetch("c\x00") == b"three"
    assert tier.get_stats()["failures"] == 0


def test_a_program_that_never_closes_it_still_ends_and_has_written(tmp_path: Path, clock: FakeClock) -> None:
    program = (
        "import sys; from ondol.cache.disk import DiskTier; from ondol.clock import SystemClock\n"
        "tier = DiskTier(sys.argv[1], 1 << 20, SystemClock()); tier.open(); tier.put('a\\0', b'one')\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=20)
    made = DiskTier(tmp_path, MIB, clock)
    made.open()
    assert made.fetch("a\x00") == b"one"
    made.close()


def test_threads_may_read_write_and_close_at_once(tier: DiskTier) -> None:
    stop, errors = threading.Event(), list[BaseException]()

    def work(number: int) -> None:
        try:
            count = 0
            while not stop.is_set():
                count += 1
                key = f"{number}:{count % 50}\x00"
                tier.put(key, key.encode(), tags=(f"t{count % 3}",))
                assert tier.fetch(key) in {key.encode(), None}
                if count % 40 == 0:
                    tier.invalidate(Invalidation("tag", ("t1",)))
        except BaseException as exc:
            errors.append(exc)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        tier.flush()
        tier.close()
        tier.open()
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert tier.get_stats()["failures"] == 0


def test_no_room_is_made_by_evicting(tmp_path: Path, clock: FakeClock) -> None:
    store = LmdbStore(tmp_path, MIB, clock.wall)
    store.limit_bytes = 4 * MIB  # more than there is: the map fills up
    made = DiskTier(tmp_path, MIB, clock, store=store)
    made.open()
    for number in range(300):
        made.put(f"{number}\x00", os.urandom(20_000))
        if number % 20 == 0:
            made.flush()
    made.flush()
    assert made.fetch("299\x00") is not None
    stats = made.get_stats()
    assert (stats["failures"], stats["dropped_writes"]) == (0, 0)
    assert stats["evictions"]["size"] > 100
    made.close()


def test_the_same_key_again_and_again_waits_only_once(tmp_path: Path, clock: FakeClock) -> None:
    made, store = failing(tmp_path, clock)
    store.gate.clear()
    frames = [b"%d" % number for number in range(10_000)]
    assert all(made.put("a\x00", frame) for frame in frames)
    assert made.fetch("a\x00") == frames[-1]
    assert made.get_stats()["queued"] == 1
    store.gate.set()
    made.flush()
    assert made.get_stats()["writes"] <= 2
    assert all(one != other for one, other in pairwise(frames))
    made.close()
