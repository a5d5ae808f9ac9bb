"""adapter: messages over a Unix socket; what is large goes beside it through memory that both can reach.

A frame is a prefix, the length of each buffer, the JSON header and the small buffers. Where there is ``memfd`` (Linux),
large buffers lie one after the other in such a file without a name, whose descriptor travels with the prefix. The
receiver copies it out instead of mapping it: the sender could cut the file short or write to it later, and a mapping
would keep a descriptor open for as long as the array lives. Elsewhere they follow the small ones.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import stat
import struct
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.errors import UnencodableValueError
from ondol.models.isolation.codec import Encoded, MalformedMessageError, decode
from ondol.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["INLINE_LIMIT_BYTES", "MAX_BUFFERS_BYTES", "MAX_HEADER_BYTES", "Link", "receive_descriptors"]

INLINE_LIMIT_BYTES: Final = 64 * 1024
"""Larger buffers do not go through the socket where they can go beside it."""
MAX_HEADER_BYTES: Final = 256 * 1024 * 1024
"""Of the plain data in one message, and of the lengths of its buffers."""
MAX_BUFFERS_BYTES: Final = 2 * 1024 * 1024 * 1024
"""Of all buffers of one message: no answer of a model comes near it, and a broken one cannot take all the memory."""

_MAGIC: Final = b"ondl"
_PREFIX: Final = struct.Struct("<4sIQQQ")  # magic, buffers, header bytes, inline bytes, beside bytes
_FIRST_PIECE_BYTES: Final = 8 * 1024 * 1024
_BLOCK_BYTES: Final = 512  # what ``st_blocks`` counts in, whatever the file system
_MAX_DESCRIPTORS: Final = 4
_CLOSE_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class _Prefix(NamedTuple):
    magic: bytes
    buffers: int
    header_bytes: int
    inline_bytes: int
    beside_bytes: int


class Link:
    """One end of the connection between a model's process and its parent; asks and answers take turns.

    Thread-safety: ``shutdown`` may be called from any thread, the rest from one at a time.
    """

    def __init__(self, end: socket.socket) -> None:
        """Take over ``end``, a connected Unix stream socket."""
        self._end = end
        self._until_s: float | None = None

    def allow(self, seconds: float | None) -> None:
        """Let everything up to the next call of this take at most that long together; ``None`` is for ever."""
        self._until_s = None if seconds is None else time.monotonic() + seconds
        self._end.settimeout(seconds)

    def send(self, encoded: Encoded, *, place: str = "value") -> None:
        """Send a value; blocks until the other side has taken it, or nearly so.

        Args:
            encoded: the value.
            place: how an error calls it.

        Raises:
            UnencodableValueError: it is too large for a message, or there is no memory or descriptor to pass it
                through; nothing was sent.
            OSError: the other side is gone, or ``TimeoutError``.
        """
        size_bytes = sum(view.nbytes for view in encoded.buffers)
        if size_bytes > MAX_BUFFERS_BYTES:
            limit = format_bytes(MAX_BUFFERS_BYTES)
            message = f"{place} takes {format_bytes(size_bytes)}, a message at most {limit}: send it in parts"
            raise UnencodableValueError(message)
        try:
            beside = _write_beside(encoded)
        except OSError as exc:
            size = format_bytes(size_bytes)
            raise UnencodableValueError(f"{place} of {size} cannot be sent between processes: {exc}") from exc
        try:
            data = _joined(encoded, place, is_beside=beside is not None)
            rights = [] if beside is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [beside]))]
            self._arm()
            sent = self._end.sendmsg([data], rights)
            self._arm()
            self._end.sendall(memoryview(data)[sent:])
        finally:
            if beside is not None:
                os.close(beside)

    def receive(self) -> Any:
        """Return the next value; blocks until there is one. Arrays are writable and this process's own.

        Raises:
            EOFError: the other side closed the connection or ended.
            MalformedMessageError: it sent something else than a message.
            OSError: the connection failed, there is no descriptor left, or ``TimeoutError``.
        """
        with contextlib.ExitStack() as stack:
            data, descriptors = receive_descriptors(self._end, _PREFIX.size, _MAX_DESCRIPTORS, before=self._arm)
            for descriptor in descriptors:
                stack.callback(os.close, descriptor)
            if len(data) < _PREFIX.size:
                raise EOFError("the other side closed the connection")
            prefix = _Prefix._make(_PREFIX.unpack(data))
            if prefix.magic != _MAGIC or prefix.header_bytes + 8 * prefix.buffers > MAX_HEADER_BYTES:
                raise MalformedMessageError("not a message: it does not begin like one")
            if prefix.inline_bytes + prefix.beside_bytes > MAX_BUFFERS_BYTES:
                raise MalformedMessageError("not a message: it is larger than any may be")
            if len(descriptors) != (prefix.beside_bytes > 0):
                raise MalformedMessageError("not a message: the memory beside it is missing or not announced")
            lengths = struct.unpack(f"<{prefix.buffers}Q", self._receive_exactly(8 * prefix.buffers))
            is_beside = [prefix.beside_bytes > 0 and length > INLINE_LIMIT_BYTES for length in lengths]
            beside_bytes = sum(length for length, it_is in zip(lengths, is_beside, strict=True) if it_is)
            if beside_bytes != prefix.beside_bytes or sum(lengths) - beside_bytes != prefix.inline_bytes:
                raise MalformedMessageError("not a message: its lengths contradict each other")
            header = self._receive_exactly(prefix.header_bytes)
            source = _Beside(descriptors[0], beside_bytes) if descriptors else None
            buffers = [
                source.read(length) if source is not None and it_is else self._receive_exactly(length)
                for length, it_is in zip(lengths, is_beside, strict=True)
            ]
        return decode(header, buffers)

    def shutdown(self) -> None:
        """End the connection, so that whoever waits for it wakes up; it stays open here."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _arm(self) -> None:
        """Give the next operation the time that is left: a trickle of bytes must not begin it anew."""
        if self._until_s is not None:
            left_s = self._until_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")
            self._end.settimeout(left_s)

    def _receive_exactly(self, length: int) -> bytearray:
        """Return ``length`` bytes; the memory for them grows as they come, for they may only have been announced."""
        data = bytearray(min(length, _FIRST_PIECE_BYTES))
        filled = 0
        while filled < length:
            if filled == len(data):
                data.extend(bytes(min(filled, length - filled)))
            self._arm()
            with memoryview(data) as view, view[filled:] as rest:
                count = self._end.recv_into(rest)
            if not count:
                raise EOFError("the other side closed the connection within a message")
            filled += count
        return data


def _write_beside(encoded: Encoded) -> int | None:
    """Return a nameless file with the large buffers, ``None`` when there are none or the system has no such files."""
    large = [view for view in encoded.buffers if view.nbytes > INLINE_LIMIT_BYTES]
    if not large or not hasattr(os, "memfd_create"):
        return None
    beside = os.memfd_create("ondol-message", os.MFD_CLOEXEC)
    try:
        for view in large:
            rest = view.cast("B")
            while rest:
                rest = rest[os.write(beside, rest) :]
    except BaseException:
        os.close(beside)
        raise
    return beside


def _joined(encoded: Encoded, place: str, *, is_beside: bool) -> bytes:
    lengths = [view.nbytes for view in encoded.buffers]
    inline = [view for view in encoded.buffers if not is_beside or view.nbytes <= INLINE_LIMIT_BYTES]
    inline_bytes = sum(view.nbytes for view in inline)
    header_bytes = len(encoded.header)
    if header_bytes + 8 * len(lengths) > MAX_HEADER_BYTES:
        message = f"{place} takes {format_bytes(header_bytes)} as plain data: send it as an array or as bytes"
        raise UnencodableValueError(message)

    def parts() -> Iterator[bytes | memoryview]:
        yield _PREFIX.pack(_MAGIC, len(lengths), header_bytes, inline_bytes, sum(lengths) - inline_bytes)
        yield struct.pack(f"<{len(lengths)}Q", *lengths)
        yield encoded.header
        yield from inline

    return b"".join(parts())


def receive_descriptors(
    end: socket.socket, length: int, limit: int, *, before: Callable[[], None] = lambda: None
) -> tuple[bytes, list[int]]:
    """Return the next ``length`` bytes (less only at the end of the stream) and the descriptors that came with them.

    Args:
        end: a Unix stream socket.
        length: of the data.
        limit: most descriptors that may come.
        before: called before each time it waits.

    Raises:
        OSError: the socket failed, or this process has no descriptor left for what came; nothing is left open.
    """
    data, descriptors = b"", array.array("i")
    try:
        while len(data) < length:
            before()
            space = socket.CMSG_SPACE(limit * descriptors.itemsize)
            chunk, ancillary, flags, _address = end.recvmsg(length - len(data), space, _CLOSE_ON_EXEC)
            for level, kind, rights in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(rights[: len(rights) - len(rights) % descriptors.itemsize])
            _check_complete(flags)
            if not chunk:
                break
            data += chunk
        if not _CLOSE_ON_EXEC:
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)  # noqa: FBT003  # the standard library's signature
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return data, list(descriptors)


def _check_complete(flags: int) -> None:
    if flags & socket.MSG_CTRUNC:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class _Beside:
    """Reads what lies beside a message."""

    def __init__(self, descriptor: int, length: int) -> None:
        self._descriptor = descriptor
        self._offset = 0
        found = os.fstat(descriptor)
        # Only what was written has blocks: a file can be as long as it likes without any.
        if not stat.S_ISREG(found.st_mode) or min(found.st_size, found.st_blocks * _BLOCK_BYTES) < length:
            raise MalformedMessageError("not a message: the memory beside it is no file or too short")

    def read(self, length: int) -> bytearray:
        data = bytearray(length)
        rest = memoryview(data)
        while rest:
            count = os.preadv(self._descriptor, [rest], self._offset)
            if not count:
                raise MalformedMessageError("not a message: the memory beside it is too short")
            self._offset += count
            rest = rest[count:]
        return data
