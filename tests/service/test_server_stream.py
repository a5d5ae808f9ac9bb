"""One encoding a tick for all viewers, no viewer waits for another, and every stream ends when told to."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ondol.server.problems import OverloadedError
from ondol.server.status_stream import HEARTBEAT, SnapshotStream
from ondol.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.testing import VirtualClock

START = {"type": "http.response.start", "status": 200, "headers": []}


class Viewer:
    """One client: collects what it is sent; may stop reading or leave."""

    def __init__(self, stream: SnapshotStream) -> None:
        self.bodies: list[bytes] = []
        self.is_complete = False
        self._gone = asyncio.Event()
        self._reads = asyncio.Event()
        self._reads.set()
        self.task = asyncio.create_task(stream.serve(self._receive, self._send, START))

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self._reads.wait()
        if message["type"] == "http.response.body":
            self.bodies.append(message["body"])
            self.is_complete = not message.get("more_body", False)

    def stop_reading(self) -> None:
        self._reads.clear()

    def go_on_reading(self) -> None:
        self._reads.set()

    async def leave(self) -> None:
        self._gone.set()
        await self.task


def counter() -> Callable[[], bytes]:
    frames = iter(range(1_000_000))
    return lambda: b"frame %d" % next(frames)


def test_all_viewers_get_the_same_bytes_encoded_once_a_tick() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        stream = SnapshotStream(counter(), tick_s=1.0)
        first, second = Viewer(stream), Viewer(stream)
        await asyncio.sleep(2.5)
        assert first.bodies == [b"frame 0", b"frame 1", b"frame 2"]
        assert all(mine is yours for mine, yours in zip(first.bodies, second.bodies, strict=True))
        assert stream.get_stats() == {"viewers": 2, "encodings": 3, "failures": 0}
        await first.leave()
        await second.leave()

    run_virtual(scenario)


def test_nothing_is_encoded_while_nobody_watches() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        stream = SnapshotStream(counter())
        viewer = Viewer(stream)
        await asyncio.sleep(0.5)
        await viewer.leave()
        await asyncio.sleep(100)
        assert stream.get_stats() == {"viewers": 0, "encodings": 1, "failures": 0}
        later = Viewer(stream)
        await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        assert later.bodies == [b"frame 1"]
        await later.leave()

    run_virtual(scenario)


def test_a_new_viewer_gets_the_newest_frame_at_once() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        stream = SnapshotStream(counter(), tick_s=10.0)
        first = Viewer(stream)
        await asyncio.sleep(5)
        second = Viewer(stream)
        await asyncio.sleep(0.1)
        assert second.bodies == [b"frame 0"]
        await first.leave()
        await second.leave()

    run_virtual(scenario)


def test_a_viewer_that_does_not_read_misses_frames_and_delays_nobody() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        stream = SnapshotStream(counter(), tick_s=1.0)
        slow, quick = Viewer(stream), Viewer(stream)
        await asyncio.sleep(0.5)
        slow.stop_reading()
        await asyncio.sleep(10)
        assert quick.bodies[-1] == b"frame 10"
        slow.go_on_reading()
        await asyncio.sleep(0.1)
        assert slow.bodies == [b"frame 0", b"frame 1", b"frame 10"]
        await slow.leave()
        await quick.leave()

    run_virtual(scenario)


def test_a_viewer_that_never_reads_is_dropped() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        stream = SnapshotStream(counter(), send_timeout_s=30.0)
        viewer = Viewer(stream)
        viewer.stop_reading()
        await asyncio.sleep(29)
        assert stream.get_stats()["viewers"] == 1
        await asyncio.sleep(2)
        assert stream.get_stats()["viewers"] == 0
        await viewer.task
        assert not viewer.is_complete

    run_virtual(scenario)


def test_closing_ends_every_stream_and_refuses_new_ones() -> None:
    async def scenario(clock: VirtualClock) -> None:
        stream = SnapshotStream(counter())
        viewers = [Viewer(stream) for _ in range(3)]
        await asyncio.sleep(0.5)
        stream.close()
        await asyncio.gather(*(viewer.task for viewer in viewers))
        assert clock.monotonic() < 0.6
        assert all(viewer.is_complete for viewer in viewers)
        with pytest.raises(OverloadedError, match="shutting down"):
            await Viewer(stream).task

    run_virtual(scenario)


def test_closing_waits_only_a_moment_for_a_viewer_that_does_not_read() -> None:
    async def scenario(clock: VirtualClock) -> None:
        stream = SnapshotStream(counter())
        viewer = Viewer(stream)
        await asyncio.sleep(0.5)
        viewer.stop_reading()
        await asyncio.sleep(1)
        began_at_s = clock.monotonic()
        stream.close()
        await viewer.task
        assert clock.monotonic() - began_at_s < 1.1

    run_virtual(scenario)


def test_closing_works_from_another_thread_and_before_the_first_viewer() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        stream = SnapshotStream(counter())
        viewer = Viewer(stream)
        await asyncio.sleep(0.1)
        thread = threading.Thread(target=stream.close)
        thread.start()
        thread.join()
        await viewer.task
        assert viewer.is_complete
        unused = SnapshotStream(counter())
        unused.close()
        with pytest.raises(OverloadedError, match="shutting down"):
            await Viewer(unused).task

    run_virtual(scenario)


def test_more_viewers_than_allowed_are_refused_until_one_leaves() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        stream = SnapshotStream(counter(), max_viewers=2)
        viewers = [Viewer(stream), Viewer(stream)]
        await asyncio.sleep(0.1)
        with pytest.raises(OverloadedError, match="2 viewers"):
            await Viewer(stream).task
        await viewers[0].leave()
        third = Viewer(stream)
        await asyncio.sleep(0.1)
        assert third.bodies
        await third.leave()
        await viewers[1].leave()

    run_virtual(scenario)


def test_silence_is_filled_with_heartbeats() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        stream = SnapshotStream(counter(), tick_s=60.0, heartbeat_s=15.0)
        viewer = Viewer(stream)
        await asyncio.sleep(50)
        assert viewer.bodies == [b"frame 0", HEARTBEAT, HEARTBEAT, HEARTBEAT]
        await viewer.leave()

    run_virtual(scenario)


def test_a_snapshot_that_fails_is_logged_counted_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    outcomes = iter([b"one", None, b"three"])

    def make_frame() -> bytes:
        frame = next(outcomes)
        if frame is None:
            raise ZeroDivisionError
        return frame

    async def scenario(_clock: VirtualClock) -> None:
        stream = SnapshotStream(make_frame, tick_s=1.0)
        viewer = Viewer(stream)
        await asyncio.sleep(2.5)
        assert viewer.bodies == [b"one", b"three"]
        assert stream.get_stats()["failures"] == 1
        await viewer.leave()

    run_virtual(scenario)
    assert "ZeroDivisionError" in caplog.text


def test_a_cancelled_viewer_is_forgotten_and_the_others_go_on() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        stream = SnapshotStream(counter(), tick_s=1.0)
        cancelled, other = Viewer(stream), Viewer(stream)
        await asyncio.sleep(0.5)
        cancelled.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled.task
        await asyncio.sleep(1)
        assert stream.get_stats()["viewers"] == 1
        assert other.bodies == [b"frame 0", b"frame 1"]
        await other.leave()

    run_virtual(scenario)


def test_one_stream_serves_in_one_event_loop_after_another() -> None:
    stream = SnapshotStream(counter())

    async def scenario(_clock: VirtualClock) -> bytes:
        viewer = Viewer(stream)
        await asyncio.sleep(0.5)
        await viewer.leave()
        return viewer.bodies[0]

    assert [run_virtual(scenario), run_virtual(scenario)] == [b"frame 0", b"frame 1"]
