"""service: sends one snapshot a tick to every viewer of the status page, encoded once for all of them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message, Receive, Send

__all__ = ["HEARTBEAT", "SnapshotStream"]

logger = logging.getLogger("ondol.server")

HEARTBEAT: Final = b": heartbeat\n\n"
"""A comment in the event stream: it keeps proxies from closing the connection and is ignored by readers."""

_RETRY_AFTER_S: Final = 5

_LAST_WORD_S: Final = 0.5
"""How long a viewer that does not read may hold up the end of its stream."""


class SnapshotStream:
    """Any number of viewers, one encoding a tick.

    A timer runs only while somebody is watching. Each viewer holds at most the newest frame: one that reads slowly
    misses frames, it delays nobody and costs no memory. It outlives event loops: the state of a run is dropped when
    the next loop uses it.

    Thread-safety: ``close`` may be called in any thread and in a signal handler; everything else in the event loop.
    """

    def __init__(
        self,
        make_frame: Callable[[], bytes],
        *,
        tick_s: float = 1.0,
        heartbeat_s: float = 15.0,
        send_timeout_s: float = 30.0,
        max_viewers: int = 100,
    ) -> None:
        """Take the function that builds and encodes one frame; it is called once a tick.

        Args:
            make_frame: returns a complete server-sent event. When it raises, the tick is skipped, logged and counted.
            tick_s: seconds between frames.
            heartbeat_s: a viewer that got no frame for so long gets a comment.
            send_timeout_s: a viewer that takes nothing for so long is dropped.
            max_viewers: more are refused.
        """
        self._make_frame = make_frame
        self._tick_s = tick_s
        self._heartbeat_s = heartbeat_s
        self._send_timeout_s = send_timeout_s
        self.max_viewers = max_viewers
        self._run: _Run | None = None
        self._is_closed = False
        self._encodings = 0
        self._failures = 0

    def get_stats(self) -> dict[str, int]:
        """Return the viewers at this moment, and the frames encoded and failed so far."""
        viewers = 0 if self._run is None else len(self._run.viewers)
        return {"viewers": viewers, "encodings": self._encodings, "failures": self._failures}

    def close(self) -> None:
        """End every open stream and refuse new ones for good.

        uvicorn waits for open responses at shutdown, so the runner calls this as soon as it is asked to exit.
        """
        self._is_closed = True
        run = self._run
        if run is not None and not run.loop.is_closed():
            run.loop.call_soon_threadsafe(run.end_all)

    async def serve(self, receive: Receive, send: Send, start: Message) -> None:
        """Send ``start`` and then frames to one viewer, until it leaves or the stream is closed.

        Cancellation: the viewer is removed; the others are not affected.

        Raises:
            OverloadedError: no further viewer is taken; nothing was sent.
        """
        run, viewer = self._join()
        try:
            watcher = asyncio.create_task(viewer.watch(receive))
            try:
                await self._send_all(viewer, send, start)
            finally:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)
        finally:
            self._leave(run, viewer)

    async def _send_all(self, viewer: _Viewer, send: Send, start: Message) -> None:
        try:
            await viewer.send(send, start, self._send_timeout_s)
            while (frame := await viewer.next_frame(self._heartbeat_s)) is not None:
                message = {"type": "http.response.body", "body": frame, "more_body": True}
                await viewer.send(send, message, self._send_timeout_s)
            if not viewer.is_gone:
                await viewer.send(send, {"type": "http.response.body", "body": b""}, _LAST_WORD_S)
        except TimeoutError:
            logger.info("a viewer of the status page stopped reading; its stream was dropped")

    def _join(self) -> tuple[_Run, _Viewer]:
        loop = asyncio.get_running_loop()
        if self._run is None or self._run.loop is not loop:
            self._run = _Run(loop)
        run = self._run
        if self._is_closed:
            raise _refusal("the server is shutting down")
        if len(run.viewers) >= self.max_viewers:
            raise _refusal(f"{self.max_viewers} viewers are watching already; close one or try again later")
        viewer = _Viewer()
        run.viewers.append(viewer)
        if run.timer is None:
            self._tick(run)
        elif run.newest is not None:
            viewer.offer(run.newest)
        return run, viewer

    @staticmethod
    def _leave(run: _Run, viewer: _Viewer) -> None:
        run.viewers.remove(viewer)
        if not run.viewers and run.timer is not None:
            run.timer.cancel()
            run.timer = run.newest = None

    def _tick(self, run: _Run) -> None:
        run.timer = run.loop.call_later(self._tick_s, self._tick, run)
        try:
            run.newest = self._make_frame()
        except Exception:
            self._failures += 1
            logger.exception("the status page's snapshot could not be made; viewers keep the one before")
            return
        self._encodings += 1
        for viewer in run.viewers:
            viewer.offer(run.newest)


def _refusal(detail: str) -> Exception:
    from ondol.server.problems import OverloadedError

    return OverloadedError(detail, headers={"Retry-After": str(_RETRY_AFTER_S)})


class _Viewer:
    """One open stream: a place for one frame, and the end."""

    def __init__(self) -> None:
        self.is_gone = False
        self._frame: bytes | None = None
        self._is_over = False
        self._wake_up = asyncio.Event()
        self._sending: asyncio.Timeout | None = None

    def offer(self, frame: bytes) -> None:
        """Put ``frame`` in place of one not yet taken."""
        self._frame = frame
        self._wake_up.set()

    def end(self) -> None:
        """Let the stream end after what is being sent; what cannot be sent soon is given up."""
        self._is_over = True
        self._wake_up.set()
        if self._sending is not None:
            self._sending.reschedule(asyncio.get_running_loop().time() + _LAST_WORD_S)

    async def next_frame(self, heartbeat_s: float) -> bytes | None:
        """Wait for the next frame; a heartbeat after ``heartbeat_s``; ``None`` at the end."""
        try:
            async with asyncio.timeout(heartbeat_s):
                await self._wake_up.wait()
        except TimeoutError:
            return HEARTBEAT
        if self._is_over:
            return None
        self._wake_up.clear()
        frame, self._frame = self._frame, None
        return frame if frame is not None else HEARTBEAT

    async def send(self, send: Send, message: Message, timeout_s: float) -> None:
        """Send ``message``.

        Raises:
            TimeoutError: it was not taken within ``timeout_s``.
        """
        async with asyncio.timeout(timeout_s) as self._sending:
            await send(message)
        self._sending = None

    async def watch(self, receive: Receive) -> None:
        """Notice that the viewer has left."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        self.end()


class _Run:
    """What belongs to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.viewers: list[_Viewer] = []
        self.timer: asyncio.TimerHandle | None = None
        self.newest: bytes | None = None

    def end_all(self) -> None:
        """End every viewer's stream."""
        for viewer in self.viewers:
            viewer.end()
