"""adapter: what connects a model's process with its parent: the link, what it prints, and what the fork server reports.

The *child's ends* are opened here and handed over; whoever waits for the end of a pipe must not hold its other end.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import sys
from typing import Final

from ondol.errors import ModelLoadError
from ondol.models.isolation.lines import LineReader
from ondol.models.isolation.protocol import REPORT
from ondol.models.isolation.wire import Link
from ondol.units import format_seconds

__all__ = ["Pipes"]

_LOSES_WHAT_IS_CLOSED_EARLY: Final = sys.platform == "darwin"
"""A descriptor must stay open here until it has arrived there (multiprocessing waits for the same reason)."""


class Pipes:
    """All connections with one child.

    Attributes:
        link: our end of the connection for requests and replies.
        child_ends: what the fork server is to give to the child, in the order of the protocol.
        stderr: reads the child's standard error.
    """

    def __init__(self, name: str) -> None:
        """Open everything for the model ``name``.

        Raises:
            OSError: this process has no descriptors left.
        """
        self._ours: list[int] = []
        self.child_ends: list[int] = []
        try:
            report, stdout, stderr = (self._pipe() for _ in range(3))
            ours, theirs = socket.socketpair()
        except BaseException:
            _close(self._ours + self.child_ends)
            raise
        self.child_ends.insert(1, theirs.detach())
        self.link = Link(ours)
        self._report = report
        self._stdout = LineReader(stdout, name=name, stream="stdout", level=logging.INFO)
        self.stderr = LineReader(stderr, name=name, stream="stderr", level=logging.WARNING)

    def _pipe(self) -> int:
        reader, writer = os.pipe()
        self._ours.append(reader)
        self.child_ends.append(writer)
        return reader

    def read_pid(self, timeout_s: float) -> int:
        """Return the child's process id, once the child's ends have been sent to the fork server.

        Raises:
            ModelLoadError: there is no child, or the fork server does not answer.
        """
        if not _LOSES_WHAT_IS_CLOSED_EARLY:
            self._close_child_ends()  # so that the pipe ends when the fork server does
        poller = select.poll()
        poller.register(self._report, select.POLLIN)
        if not poller.poll(timeout_s * 1000):
            raise ModelLoadError(
                f"the fork server of isolated models did not answer within {format_seconds(timeout_s)}"
            )
        number = self._read_report()
        self._close_child_ends()
        if number is None:
            raise ModelLoadError("the fork server of isolated models ended, or has no descriptors left for another")
        if number < 0:
            raise ModelLoadError(f"no process could be forked: {os.strerror(-number)}")
        return number

    def follow(self) -> int | None:
        """Pass on what the child prints until it ends; return its exit code, ``None`` when nobody can tell."""
        readers = {reader.descriptor: reader for reader in (self._stdout, self.stderr)}
        poller = select.poll()
        for descriptor in (*readers, self._report):
            poller.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == self._report:
                    return self._read_report()
                readers[descriptor].read()
                if not readers[descriptor].is_open:
                    poller.unregister(descriptor)

    def close_streams(self) -> None:
        """Close all but the link; what was printed last is read before."""
        self._stdout.close()
        self.stderr.close()
        os.close(self._report)

    def close(self) -> None:
        """Close everything."""
        self._close_child_ends()
        self.link.close()
        self.close_streams()

    def _read_report(self) -> int | None:
        data = os.read(self._report, REPORT.size)  # so little is never written in parts
        return int(REPORT.unpack(data)[0]) if len(data) == REPORT.size else None

    def _close_child_ends(self) -> None:
        _close(self.child_ends)
        self.child_ends = []


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
