from __future__ import annotations

import errno
import json
import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from ondol.preload import history_file
from ondol.preload.history_file import HistoryFile
from ondol.preload.history_tail import MAX_TAIL_BYTES, MAX_TAIL_USES, Tail, read_tail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GENERATION = b"\x01\xffabcdef"
PLAIN = {"format": 1, "models": {"한국어": [1, 2.5], "b\ud800": [3, 0.0]}}


def batches(count: int, seed: int = 1) -> list[tuple[list[tuple[str, float]], float]]:
    """Return uses as flushes bring them, and the moment of each flush; times in whole milliseconds."""
    chance, at_ms, made = random.Random(seed), 0, []
    for _ in range(count):
        uses = []
        for _ in range(chance.randrange(0, 6)):
            at_ms += chance.choice([0, 1, 17, 130, 2000, 500_000])
            uses.append((f"모델-{chance.randrange(30)}" + "x" * chance.choice([0, 0, 200]), at_ms / 1000))
        at_ms += chance.randrange(2000)
        made.append((uses, at_ms / 1000))
    return made


def flat(made: list[tuple[list[tuple[str, float]], float]]) -> tuple[tuple[str, float], ...]:
    return tuple(use for uses, _moment_s in made for use in uses)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[HistoryFile]:
    made = HistoryFile(tmp_path / "folder" / "history.json")
    assert made.open()
    yield made
    made.close()


# The tail's bytes


def test_a_tail_gives_back_what_was_put_in_it() -> None:
    made, tail = batches(50), Tail(GENERATION)
    data = tail.header + b"".join(tail.record(*batch) or b"" for batch in made)
    content = read_tail(data)
    assert content == (GENERATION, flat(made), made[-1][1], False, "")
    assert tail.size_bytes == len(data)


def test_a_use_takes_a_few_bytes() -> None:
    tail = Tail(GENERATION)
    first = tail.record([("a-model-of-usual-name", 0.1)], 0.2)
    second = tail.record([("a-model-of-usual-name", 0.3 + index / 100) for index in range(100)], 2.0)
    assert first is not None
    assert second is not None
    assert (len(first), len(second)) == (35, 212)


def test_times_that_go_back_are_the_one_before() -> None:
    tail = Tail(GENERATION)
    record = tail.record([("a", -5.0), ("a", 2.0), ("b", 1.0)], 0.0)
    assert record is not None
    content = read_tail(tail.header + record)
    assert content.uses == (("a", 0.0), ("a", 2.0), ("b", 2.0))
    assert content.moment_s == 2.0


def test_a_tail_cut_at_any_byte_gives_the_records_before() -> None:
    made, tail = batches(40), Tail(GENERATION)
    ends, data = [len(tail.header)], tail.header
    for batch in made:
        data += tail.record(*batch) or b""
        ends.append(len(data))
    for length in range(len(data)):
        content = read_tail(data[:length])
        whole = sum(end <= length for end in ends) - 1
        assert content.uses == flat(made[: max(0, whole)])
        assert content.is_torn == (length not in {0, *ends})
        assert not content.fault


def test_a_tail_with_any_byte_changed_gives_the_records_before() -> None:
    made, tail = batches(12), Tail(GENERATION)
    ends, data = [len(tail.header)], tail.header
    for batch in made:
        data += tail.record(*batch) or b""
        ends.append(len(data))
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x41
        content = read_tail(bytes(changed))
        whole = sum(end <= place for end in ends) - 1
        assert content.uses == (() if whole < 0 else flat(made[:whole]))
        assert content.is_torn or content.fault


def test_records_of_another_tail_are_none_of_this_one() -> None:
    mine, other = Tail(GENERATION), Tail(b"12345678")
    record = mine.record([("a", 1.0)], 1.0)
    foreign = other.record([("b", 1.0)], 1.0)
    assert record is not None
    assert foreign is not None
    content = read_tail(mine.header + record + foreign)
    assert content.uses == (("a", 1.0),)
    assert "damaged" in content.fault


@pytest.mark.parametrize(
    "payload", [b"", b"\x05", b"\x01\x7fab", b"\x00\x01\x00\x00\x00", b"\xff" * 12, b"\x00\x00\x00x"]
)
def test_a_payload_that_is_none_is_a_fault_also_with_a_right_checksum(payload: bytes) -> None:
    import struct
    import zlib

    header = Tail(GENERATION).header
    data = header + struct.pack("<II", len(payload), zlib.crc32(payload, zlib.crc32(header[:16]))) + payload
    content = read_tail(data)
    assert content.uses == ()
    assert "is none" in content.fault


def test_a_full_tail_takes_no_more() -> None:
    tail = Tail(GENERATION)
    assert tail.record([(f"{index}" + "n" * 1000, 1.0) for index in range(1000)], 1.0) is not None
    assert tail.record([(f"more {index}" + "n" * 1000, 1.0) for index in range(1000)], 1.0) is None
    assert tail.size_bytes > MAX_TAIL_BYTES
    tail = Tail(GENERATION)
    assert tail.record([("a", 1.0)] * MAX_TAIL_USES, 1.0) is not None
    assert tail.record([("a", 1.0)], 1.0) is None


# The files


def test_nothing_is_there_at_first(file: HistoryFile) -> None:
    kept = file.read()
    assert (kept.generation, kept.knowledge, kept.uses, kept.damage) == (None, None, (), ())


def test_a_snapshot_and_the_uses_since_come_back(file: HistoryFile) -> None:
    made = batches(20)
    generation = file.write(PLAIN)
    assert all(file.append(*batch) for batch in made)
    kept = HistoryFile(file.path).read()
    assert kept == (generation, PLAIN, flat(made), made[-1][1], (), False)
    for path in (file.path, file.tail_path, file.lock_path):
        assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in file.path.parent.iterdir()) == ["history.json", "history.lock", "history.tail"]


def test_the_snapshot_is_two_lines_of_json(file: HistoryFile) -> None:
    file.write(PLAIN)
    head, body = file.path.read_bytes().splitlines()
    assert json.loads(head)["format"] == 1
    assert json.loads(body.decode("utf-8", "surrogatepass")) == PLAIN


def test_a_crash_between_snapshot_and_tail_counts_no_use_twice(file: HistoryFile) -> None:
    file.write({"format": 1})
    file.append([("a", 1.0)], 1.0)
    tail_before = file.tail_path.read_bytes()
    generation = file.write({"format": 1, "with": "a"})
    file.tail_path.write_bytes(tail_before)
    kept = file.read()
    assert (kept.generation, kept.uses, kept.damage) == (generation, (), ())


def test_without_open_nothing_is_written(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "history.json")
    with pytest.raises(OSError, match="open"):
        file.write(PLAIN)
    assert not file.append([("a", 1.0)], 1.0)
    assert list(tmp_path.iterdir()) == []


def test_without_a_snapshot_of_its_own_there_is_no_tail_to_append_to(file: HistoryFile) -> None:
    file.write(PLAIN)
    file.close()
    assert file.open()
    assert not file.append([("a", 1.0)], 1.0)


def test_only_one_writes_and_the_other_reads(file: HistoryFile) -> None:
    file.write(PLAIN)
    file.append([("a", 1.0)], 1.5)
    other = HistoryFile(file.path)
    assert not other.open()
    assert other.read().uses == (("a", 1.0),)
    with pytest.raises(OSError, match="open"):
        other.write({})
    file.tail_path.write_bytes(b"rubbish that is long enough for a header")
    file.path.write_bytes(b"rubbish")
    assert len(other.read().damage) == 2
    assert file.path.read_bytes() == b"rubbish"  # to set it aside is the writer's business
    file.close()
    assert other.open()
    assert other.open()
    other.close()


def test_damage_is_set_aside_and_one_of_each_is_kept(file: HistoryFile) -> None:
    for text in (b"first", b"second", b'{"format": 2}\n{}\n', b"[" * 100_000, b"\xff\xfe\x00"):
        file.path.write_bytes(text)
        file.tail_path.write_bytes(text * 10)
        kept = file.read()
        assert kept.knowledge is None
        assert kept.damage
        assert not file.path.exists()
        assert file.path.with_name("history.json.damaged").read_bytes() == text
    file.write(PLAIN)
    file.set_aside()
    file.set_aside()
    assert not file.path.exists()


def test_of_a_damaged_snapshot_the_uses_since_count(file: HistoryFile) -> None:
    file.write(PLAIN)
    file.append([("a", 1.0)], 1.0)
    file.path.write_bytes(file.path.read_bytes()[:-5])
    kept = file.read()
    assert (kept.knowledge, kept.uses, len(kept.damage)) == (None, (("a", 1.0),), 1)
    assert file.write({}) != kept.generation


def test_damage_anywhere_never_raises_and_loses_only_the_end(file: HistoryFile) -> None:
    made, chance = batches(60), random.Random(3)
    generation = file.write(PLAIN)
    for batch in made:
        assert file.append(*batch)
    whole = {path: path.read_bytes() for path in (file.path, file.tail_path)}
    for _ in range(2000):
        for old in file.path.parent.glob("history.[jt]*"):
            old.unlink()  # some file systems write a file out when it is truncated or replaced
        for path, content in whole.items():
            path.write_bytes(content)
        path = chance.choice(list(whole))
        data = bytearray(whole[path])
        path.unlink()
        place = chance.randrange(len(data))
        if chance.random() < 0.3:
            del data[place:]
        else:
            data[place : place + chance.randrange(1, 9)] = chance.randbytes(chance.randrange(1, 9))
        path.write_bytes(data)
        kept = file.read()
        assert kept.uses == flat(made)[: len(kept.uses)]
        assert kept.knowledge in (PLAIN, None)
        if path == file.tail_path:
            assert (kept.knowledge, kept.generation) == (PLAIN, generation)


@pytest.mark.parametrize("size", [history_file.MAX_SNAPSHOT_BYTES + 1])
def test_a_file_that_is_far_too_large_is_refused(file: HistoryFile, size: int) -> None:
    with file.path.open("wb") as sparse:
        sparse.truncate(size)
    assert "larger" in str(file.read().damage[0])


def test_knowledge_that_could_not_be_read_again_is_not_written(
    file: HistoryFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = file.write(PLAIN)
    monkeypatch.setattr(history_file, "MAX_SNAPSHOT_BYTES", 1000)
    with pytest.raises(ValueError, match="larger"):
        file.write({"long": "x" * 1000})
    assert file.read().generation == generation


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("call_of_it", ["write", "fsync", "replace"])
def test_a_snapshot_that_cannot_be_written_leaves_the_old_one(
    file: HistoryFile, monkeypatch: pytest.MonkeyPatch, number: int, call_of_it: str
) -> None:
    generation = file.write(PLAIN)
    file.append([("a", 1.0)], 1.0)

    def fails(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call_of_it, fails)
        with pytest.raises(OSError, match=os.strerror(number)):
            file.write({"format": 1})
    kept = file.read()
    assert (kept.generation, kept.knowledge, kept.uses) == (generation, PLAIN, (("a", 1.0),))
    assert not list(file.path.parent.glob(".history*"))
    assert not file.append([("b", 2.0)], 2.0)  # what was to be in the snapshot would be missing before it


def test_after_a_record_that_was_half_written_a_snapshot_is_due(
    file: HistoryFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write(PLAIN)
    file.append([("a", 1.0)], 1.0)
    real = os.write
    left = [5]

    def half(descriptor: int, data: Any) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "full")
        size, left[0] = left[0], 0
        return real(descriptor, bytes(data)[:size])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(OSError, match="full"):
            file.append([("b", 2.0)], 2.0)
    assert not file.append([("c", 3.0)], 3.0)
    kept = file.read()
    assert (kept.uses, kept.is_torn, kept.damage) == ((("a", 1.0),), True, ())
    file.write(PLAIN)
    assert file.append([("d", 1.0)], 1.0)
    assert file.read().uses == (("d", 1.0),)


def test_a_folder_that_was_deleted_is_made_anew_with_its_lock(file: HistoryFile) -> None:
    file.write(PLAIN)
    for path in file.path.parent.iterdir():
        path.unlink()
    file.path.parent.rmdir()
    with pytest.raises(FileNotFoundError):
        file.append([("a", 1.0)], 1.0)
    file.write(PLAIN)
    assert file.append([("a", 1.0)], 1.0)
    assert not HistoryFile(file.path).open()


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    for name in (".history.json-17-1", ".other.json-17-1"):
        (tmp_path / name).write_bytes(b"half")
    file = HistoryFile(tmp_path / "history.json")
    assert file.open()
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.json-17-1", "history.lock"]


@pytest.mark.parametrize(("number", "is_open"), [(errno.ENOLCK, True), (errno.EIO, False)])
def test_a_file_system_without_locks_is_used_alone_and_other_errors_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_open: bool
) -> None:
    def fails(*_args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(history_file, "flock", fails)
    file = HistoryFile(tmp_path / "history.json")
    if is_open:
        assert file.open()
        file.close()
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            file.open()
