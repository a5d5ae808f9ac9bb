"""Models that the isolation tests load in other processes: each does one thing, well or badly."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

WEIGHT = 3


class Model:
    """Answers, fails and dies on request."""

    dimension = 384

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.log: list[str] = []

    def echo(self, *args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs]

    def give(self, value: Any) -> Any:
        return value

    def scaled(self, array: np.ndarray[Any, Any]) -> Any:
        return array * self.scale

    def note(self, text: str) -> list[str]:
        self.log.append(text)
        return self.log

    def wait_for_pipe(self, path: str, text: str) -> str:
        """Say through a FIFO that the call runs, then wait in the second until it is let go."""
        Path(path + ".running").write_text(text, encoding="utf-8")
        answer = Path(path + ".go").read_text(encoding="utf-8")
        self.log.append(text)
        return answer

    async def later(self, value: int) -> int:
        await asyncio.sleep(0)
        return value + 1

    def fail(self, text: str) -> None:
        raise KeyError(text)

    def fail_badly(self) -> None:
        raise _NoTextError

    def unencodable(self) -> object:
        return {"model": self}

    def say(self, out: str, err: str) -> None:
        sys.stdout.write(f"{out}\n")
        sys.stderr.write(f"{err}\n")

    def leave(self, code: int) -> None:
        sys.stderr.write("leaving for good\n")
        os._exit(code)

    def sys_exit(self) -> None:
        sys.exit(5)

    def run_out_of_memory(self) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        blocks = []
        while True:
            blocks.append(bytearray(64 << 20))

    def segfault(self) -> None:
        ctypes.string_at(0)

    def close_link(self) -> None:
        """Close every descriptor but the standard ones, and live on."""
        os.closerange(3, 1024)
        threading.Event().wait()

    def send_nonsense(self) -> None:
        for descriptor in range(3, 64):
            with contextlib.suppress(OSError):
                os.write(descriptor, b"\0" * 4096)
        threading.Event().wait()

    def ignore_terminate(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def unraisable(self) -> str:
        class Bad:
            def __del__(self) -> None:
                raise ValueError("raised where nobody can catch it")

        Bad()
        return "still here"

    def hang(self) -> None:
        threading.Event().wait()

    def environment(self, name: str) -> list[Any]:
        return [os.environ.get(name), str(Path.cwd()), sys.path]

    def facts(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "threads": threading.active_count(),
            "random": [random.random(), float(np.random.random())],  # noqa: NPY002  # the inherited state is what is looked at,
        }

    def __call__(self, value: int) -> int:
        return value * 2


class _NoTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Mapped:
    """Weights that are mapped from a file."""

    def __init__(self, path: str) -> None:
        self.weights = np.memmap(path, dtype=np.float32, mode="r")

    def total(self) -> float:
        return float(self.weights.sum())


def load(scale: float = 1.0) -> Model:
    return Model(scale)


async def load_async() -> Model:
    await asyncio.sleep(0)
    return Model(7.0)


def load_mapped(path: str) -> Mapped:
    return Mapped(path)


def load_with(_value: Any) -> Model:
    return Model()


def load_raises() -> Model:
    raise OSError("no weights here")


def load_hangs() -> Model:
    threading.Event().wait()
    return Model()


def load_says_so_and_hangs(path: str) -> Model:
    """Say through a FIFO that the load runs, and never end it."""
    Path(path).write_text("loading", encoding="utf-8")
    return load_hangs()


def load_exits() -> Model:
    sys.stderr.write("the library gave up\n")
    os._exit(9)


def load_out_of_memory() -> Model:
    raise MemoryError


def make_loader() -> Any:
    def inner() -> Model:
        return Model()

    return inner


load_lambda = lambda: Model()  # noqa: E731, PLW0108  # what the test wants refused
NOT_CALLABLE = "a text"
