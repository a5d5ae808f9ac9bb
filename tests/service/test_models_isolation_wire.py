from __future__ import annotations

import array
import errno
import itertools
import os
import resource
import socket
import struct
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from ondol.errors import UnencodableValueError
from ondol.models.isolation import wire
from ondol.models.isolation.codec import MalformedMessageError, encode
from ondol.models.isolation.wire import Link

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def frame(buffers: int, header: bytes, inline_bytes: int, beside_bytes: int, *lengths: int) -> bytes:
    prefix = struct.pack("<4sIQQQ", b"ondl", buffers, len(header), inline_bytes, beside_bytes)
    return prefix + struct.pack(f"<{len(lengths)}Q", *lengths) + header


def rights(*descriptors: int) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []


@pytest.mark.parametrize("has_memfd", [True, False])
def test_arrays_go_beside_the_socket_or_through_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, has_memfd: bool
) -> None:
    if not has_memfd:  # as on macOS; the other case is what this system does
        monkeypatch.delattr(os, "memfd_create", raising=False)
    given: list[Any] = [np.arange(100_000), b"small", np.ones(50_000)]
    sender = threading.Thread(target=lambda: Link(pair[0]).send(encode(given)))
    sender.start()
    result = Link(pair[1]).receive()
    sender.join()
    assert np.array_equal(result[0], given[0])
    assert result[1] == b"small"
    assert np.array_equal(result[2], given[2])


@pytest.mark.parametrize(
    ("data", "descriptors"),
    [
        (b"\0" * 64, 0),
        (frame(0, b"null", 0, 100_000), 0),
        (frame(0, b"null", 0, 0), 1),
        (frame(1, b"null", 0, 100_000, 100_000), 2),
        (frame(1, b"null", 3, 0, 4), 0),
        (frame(1, b"null", 0, 100_000, 100_000), 1),
        (struct.pack("<4sIQQQ", b"ondl", 0, 1 << 60, 0, 0), 0),
        (struct.pack("<4sIQQQ", b"ondl", (1 << 32) - 1, 0, 0, 0), 0),
        (frame(1, b"null", wire.MAX_BUFFERS_BYTES + 1, 0, wire.MAX_BUFFERS_BYTES + 1), 0),
        (frame(1, b"null", 0, wire.MAX_BUFFERS_BYTES + 1, wire.MAX_BUFFERS_BYTES + 1), 1),
    ],
)
def test_a_frame_that_contradicts_itself_is_refused(pair: Pair, data: bytes, descriptors: int, tmp_path: Path) -> None:
    opened = [os.open(tmp_path / "empty", os.O_RDWR | os.O_CREAT) for _ in range(descriptors)]
    pair[0].sendmsg([data], rights(*opened))
    for descriptor in opened:
        os.close(descriptor)
    open_before = psutil.Process().num_fds()
    with pytest.raises(MalformedMessageError):
        Link(pair[1]).receive()
    assert psutil.Process().num_fds() == open_before


def test_what_lies_beside_must_be_a_file(pair: Pair) -> None:
    reader, writer = os.pipe()  # reading from it would wait for ever
    pair[0].sendmsg([frame(1, b"null", 0, 100_000, 100_000)], rights(reader))
    try:
        with pytest.raises(MalformedMessageError, match="no file or too short"):
            Link(pair[1]).receive()
    finally:
        os.close(reader)
        os.close(writer)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "begin",
    [
        frame(1, b"null", wire.MAX_BUFFERS_BYTES, 0, wire.MAX_BUFFERS_BYTES) + b"x",
        struct.pack("<4sIQQQ", b"ondl", 0, wire.MAX_HEADER_BYTES, 0, 0),
    ],
)
def test_what_is_only_announced_takes_no_memory(pair: Pair, begin: bytes) -> None:
    pair[0].sendall(begin)
    pair[0].close()
    with pytest.raises(EOFError, match="within a message"):
        Link(pair[1]).receive()
    assert tracemalloc.get_traced_memory()[1] < 32 << 20


@pytest.mark.usefixtures("traced")
def test_a_file_beside_that_is_long_but_empty_is_refused(pair: Pair, tmp_path: Path) -> None:
    length = 1 << 30
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(length)
        pair[0].sendmsg([frame(1, b"null", 0, length, length)], rights(file.fileno()))
    with pytest.raises(MalformedMessageError, match="too short"):
        Link(pair[1]).receive()
    assert tracemalloc.get_traced_memory()[1] < 32 << 20


def test_a_buffer_of_several_pieces_comes_whole(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(wire, "_FIRST_PIECE_BYTES", 1000)
    given = np.arange(50_001)
    sender = threading.Thread(target=lambda: Link(pair[0]).send(encode([given, b"after"])))
    sender.start()
    result = Link(pair[1]).receive()
    sender.join()
    assert np.array_equal(result[0], given)
    assert result[1] == b"after"


@pytest.mark.parametrize("count", [10_000, 100])  # beside the socket, and through it
def test_more_than_a_message_may_hold_is_not_sent(pair: Pair, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(wire, "MAX_BUFFERS_BYTES", 8 * count - 1)
    with pytest.raises(UnencodableValueError, match=r"result takes .*, a message at most .*: send it in parts"):
        Link(pair[0]).send(encode(np.zeros(count)), place="result")
    Link(pair[0]).send(encode("the next one"))
    assert Link(pair[1]).receive() == "the next one"


@pytest.mark.parametrize("data", [b"", b"ondl", frame(0, b"null", 0, 0)[:-1]])
def test_an_end_within_a_message_is_an_end(pair: Pair, data: bytes) -> None:
    pair[0].sendall(data)
    pair[0].close()
    with pytest.raises(EOFError):
        Link(pair[1]).receive()


def test_a_descriptor_of_an_unfinished_message_is_closed(pair: Pair, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        pair[0].sendmsg([b"ondl"], rights(file.fileno()))
    open_before = psutil.Process().num_fds()
    link = Link(pair[1])
    link.allow(0.02)
    with pytest.raises(TimeoutError):
        link.receive()
    assert psutil.Process().num_fds() == open_before


def test_a_descriptor_for_which_there_is_no_room_is_told_as_that(pair: Pair, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        pair[0].sendmsg([frame(1, b"null", 0, 100_000, 100_000)], rights(file.fileno()))
    lowest_free = os.dup(0)
    os.close(lowest_free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            Link(pair[1]).receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_nothing_is_sent_when_there_is_no_room_beside(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    link = Link(pair[0])
    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    monkeypatch.setattr(os, "MFD_CLOEXEC", 0, raising=False)
    with pytest.raises(UnencodableValueError, match=r"result of 781\.2 KiB cannot be sent.*Too many open files"):
        link.send(encode(np.zeros(100_000)), place="result")
    link.send(encode("the next one"))
    assert Link(pair[1]).receive() == "the next one"


def test_plain_data_without_end_is_refused(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_HEADER_BYTES", 1000)
    with pytest.raises(UnencodableValueError, match="send it as an array or as bytes"):
        Link(pair[0]).send(encode(["text"] * 1000))
    Link(pair[0]).send(encode("the next one"))
    assert Link(pair[1]).receive() == "the next one"


class Trickle(socket.socket):
    """A socket that gives one byte at a time, and remembers how long it was allowed to wait for each."""

    allowed_s: list[float | None]

    def settimeout(self, value: float | None) -> None:
        self.allowed_s.append(value)

    def recvmsg(self, *_: object) -> Any:
        return b"o", [], 0, None


def test_a_trickle_does_not_begin_the_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("ondol.models.isolation.wire.time.monotonic", lambda: float(next(ticks)))
    with Trickle(socket.AF_UNIX) as end:
        end.allowed_s = []
        link = Link(end)
        link.allow(4.0)
        with pytest.raises(TimeoutError):
            link.receive()
        assert end.allowed_s == [4.0, 3.0, 2.0, 1.0]
