"""adapter: messages over a Unix socket; what is large goes beside it through memory that both can reach.

A frame is a prefix, the length of each buffer, the JSON header and the small buffers. Large buffers lie one after
the other in a file without a name (``memfd`` on Linux, an unlinked temporary file elsewhere), whose descriptor
travels with the prefix. The receiver copies it out instead of mapping it: the sender could cut the file short or
write to it later, and a mapping would keep a descriptor open for as long as the array lives.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
import tempfile
from typing import IO, TYPE_CHECKING, Any, Final

from ondol.errors import UnencodableValueError
from ondol.models.isolation.codec import Encoded, MalformedMessageError, decode
from ondol.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["INLINE_LIMIT_BYTES", "MAX_FRAME_BYTES", "receive", "send"]

INLINE_LIMIT_BYTES: Final = 64 * 1024
"""Larger buffers do not go through the socket."""
MAX_FRAME_BYTES: Final = 256 * 1024 * 1024
"""Of what goes through the socket; only a header of very many plain values can get there."""

_MAGIC: Final = b"ondl"
_PREFIX: Final = struct.Struct("<4sIQQQ")  # magic, buffers, header bytes, inline bytes, beside bytes
_MAX_DESCRIPTORS: Final = 4


def send(link: socket.socket, encoded: Encoded, *, place: str = "value") -> None:
    """Send a value; blocks as the socket does.

    Args:
        link: a connected Unix stream socket.
        encoded: the value.
        place: how an error calls it.

    Raises:
        UnencodableValueError: it is too large for one frame; nothing was sent.
        OSError: the other side is gone, or ``TimeoutError``.
    """
    lengths = [view.nbytes for view in encoded.buffers]
    large = [view for view in encoded.buffers if view.nbytes > INLINE_LIMIT_BYTES]
    beside_bytes = sum(view.nbytes for view in large)
    inline_bytes = sum(lengths) - beside_bytes
    frame_bytes = len(encoded.header) + inline_bytes
    if frame_bytes > MAX_FRAME_BYTES:
        message = f"{place} takes {format_bytes(frame_bytes)} as plain data: send it as an array or as bytes"
        raise UnencodableValueError(message)
    data = b"".join(_parts(encoded, lengths, inline_bytes, beside_bytes))
    if not large:
        link.sendall(data)
        return
    with _nameless_file() as beside:
        for view in large:
            _write_all(beside, view)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [beside.fileno()]))
        sent = link.sendmsg([data], [rights])
        link.sendall(memoryview(data)[sent:])


def _parts(encoded: Encoded, lengths: list[int], inline_bytes: int, beside_bytes: int) -> Iterator[bytes | memoryview]:
    yield _PREFIX.pack(_MAGIC, len(lengths), len(encoded.header), inline_bytes, beside_bytes)
    yield struct.pack(f"<{len(lengths)}Q", *lengths)
    yield encoded.header
    yield from (view for view in encoded.buffers if view.nbytes <= INLINE_LIMIT_BYTES)


def _nameless_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("ondol-message", os.MFD_CLOEXEC), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _write_all(target: IO[bytes], view: memoryview) -> None:
    rest = view.cast("B")
    while rest:
        rest = rest[target.write(rest) :]


def receive(link: socket.socket) -> Any:
    """Return the next value; blocks as the socket does. Arrays are writable and this process's own.

    Raises:
        EOFError: the other side closed the socket or ended.
        MalformedMessageError: it sent something else than a message.
        OSError: the socket failed, or ``TimeoutError``.
    """
    prefix, descriptors = _receive_prefix(link)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(os.fdopen(descriptor, "rb", buffering=0)) for descriptor in descriptors]
        magic, count, header_bytes, inline_bytes, beside_bytes = _PREFIX.unpack(prefix)
        if magic != _MAGIC or header_bytes + inline_bytes + 8 * count > 2 * MAX_FRAME_BYTES:
            raise MalformedMessageError("not a message: it does not begin like one")
        if len(files) != (beside_bytes > 0):
            raise MalformedMessageError("not a message: the memory beside it is missing or not announced")
        lengths = struct.unpack(f"<{count}Q", _receive_exactly(link, 8 * count))
        large = [length for length in lengths if length > INLINE_LIMIT_BYTES]
        if sum(large) != beside_bytes or sum(lengths) - beside_bytes != inline_bytes:
            raise MalformedMessageError("not a message: its lengths contradict each other")
        header = _receive_exactly(link, header_bytes)
        buffers = [bytearray() if length > INLINE_LIMIT_BYTES else _receive_exactly(link, length) for length in lengths]
        if files:
            _read_beside(files[0], lengths, buffers, beside_bytes)
    return decode(header, buffers)


def _receive_prefix(link: socket.socket) -> tuple[bytes, list[int]]:
    data, descriptors = b"", array.array("i")
    while len(data) < _PREFIX.size:
        space = socket.CMSG_SPACE(_MAX_DESCRIPTORS * descriptors.itemsize)
        chunk, ancillary, _flags, _address = link.recvmsg(_PREFIX.size - len(data), space)
        for level, kind, rights in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(rights[: len(rights) - len(rights) % descriptors.itemsize])
        if not chunk:
            for descriptor in descriptors:
                os.close(descriptor)
            raise EOFError("the other side closed the connection")
        data += chunk
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # noqa: FBT003  # the standard library's signature
    return data, list(descriptors)


def _receive_exactly(link: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    rest = memoryview(data)
    while rest:
        count = link.recv_into(rest)
        if not count:
            raise EOFError("the other side closed the connection within a message")
        rest = rest[count:]
    return data


def _read_beside(source: IO[bytes], lengths: tuple[int, ...], buffers: list[bytearray], beside_bytes: int) -> None:
    if os.fstat(source.fileno()).st_size < beside_bytes:
        raise MalformedMessageError("not a message: the memory beside it is too short")
    source.seek(0)
    for index, length in enumerate(lengths):
        if length <= INLINE_LIMIT_BYTES:
            continue
        buffers[index] = bytearray(length)
        rest = memoryview(buffers[index])
        while rest:
            count = source.readinto(rest)  # type: ignore[attr-defined]  # an unbuffered file is a RawIOBase
            if not count:
                raise MalformedMessageError("not a message: the memory beside it is too short")
            rest = rest[count:]
