"""A TCP proxy between client and server that breaks the connection in every way a network does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from types import TracebackType

Mode = Literal["pass", "slow", "cut", "half", "hole", "reset", "refuse", "garbage", "error"]
SLOW_S = 0.5
ERROR = b"-"


class FaultProxy:
    """Passes bytes on, or does what ``mode`` says to the server's replies; for connections old and new.

    ``slow``: each reply half a second late; ``cut``: half of a reply, then the end; ``half``: half of a reply, then
    nothing; ``hole``: nothing any more; ``reset``: the connection is reset; ``refuse``: none is accepted; ``garbage``:
    bytes that are no reply; ``error``: the error ``error`` in place of each reply.
    """

    def __init__(self, port: int) -> None:
        self.mode: Mode = "pass"
        self.error = "LOADING Redis is loading the dataset in memory"
        self.port = 0
        self._server_port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode in {"refuse", "reset"}:
            writer.transport.abort()
            return
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._requests(reader, upstream))
                group.create_task(self._replies(upstream_reader, writer))
        except* (OSError, EOFError):
            pass
        finally:
            for one in (writer, upstream):
                one.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            upstream.write(data)
            await upstream.drain()
        raise EOFError

    async def _replies(self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await upstream.read(1 << 16):
            match self.mode:
                case "slow":
                    await asyncio.sleep(SLOW_S)
                case "cut" | "half":
                    writer.write(data[: len(data) // 2])
                    with contextlib.suppress(OSError):
                        await writer.drain()
                    if self.mode == "cut":
                        raise EOFError
                    await asyncio.Event().wait()
                case "hole":
                    await asyncio.Event().wait()
                case "reset" | "refuse":
                    raise EOFError
                case "garbage":
                    data = b"\x00\xff no reply at all\r\n"
                case "error":
                    data = b"-%b\r\n" % self.error.encode()
                case _:
                    pass
            writer.write(data)
            await writer.drain()
        raise EOFError
