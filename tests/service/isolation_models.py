"""Models that the isolation tests load in other processes: each does one thing, well or badly."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from ondol.errors import UnencodableValueError


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

    def zeros(self, count: int) -> Any:
        return np.zeros(count)

    def note(self, text: str) -> list[str]:
        self.log.append(text)
        return self.log

    def wait_for_pipe(self, path: str, text: str) -> str:
        """Say through a FIFO that the call runs, then wait in the second until it is let go."""
        Path(path + ".running").write_text(text + "\n", encoding="utf-8")
        with Path(path + ".go").open(encoding="utf-8") as go:
            answer = go.readline().strip()
        self.log.append(text)
        return answer

    async def later(self, value: int) -> int:
        await asyncio.sleep(0)
        return value + 1

    def fail(self, text: str) -> None:
        raise KeyError(text)

    def fail_badly(self) -> None:
        raise _NoTextError

    def fail_with_text_of_a_class(self, length: int) -> None:
        raise _OwnTextError(length)

    def fail_like_the_codec(self) -> None:
        raise UnencodableValueError("the model itself says so")

    async def fail_by_cancellation(self) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

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

    def flood(self, lines: int) -> int:
        for _ in range(lines):
            sys.stderr.write("y" * 4000 + "\n")
        return lines

    def use_up_descriptors(self) -> None:
        """Leave this process no descriptor that it could open."""
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    def hold(self, path: str) -> None:
        """Hold the FIFO open until this process ends."""
        os.open(path, os.O_WRONLY)

    def start_helper(self, path: str) -> None:
        """Start a program that never ends by itself, and let it alone hold the FIFO."""
        command = [sys.executable, "-S", "-c", "import threading; print(1, flush=True); threading.Event().wait()"]
        with Path(path).open("wb") as held:
            process = subprocess.Popen(command, pass_fds=[held.fileno()], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()

    def handler_in_a_program(self) -> str:
        """Return what a program that the model starts does at SIGTERM."""
        command = [sys.executable, "-S", "-c", "import signal; print(signal.getsignal(signal.SIGTERM).name)"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def end_through(self, path: str) -> None:
        """Let the end of the process wait as ``wait_for_pipe`` does."""
        atexit.register(self.wait_for_pipe, path, "ending")

    def interpreter(self) -> list[Any]:
        return [sys.flags.dev_mode, sys.warnoptions]

    def unraisable(self) -> str:
        class Bad:
            def __del__(self) -> None:
                raise ValueError("raised where nobody can catch it")

        Bad()
        return "still here"

    def hang_holding(self, path: str) -> None:
        """Say through the FIFO that it hangs."""
        os.write(os.open(path, os.O_WRONLY), b".")
        threading.Event().wait()

    def hang(self) -> None:
        threading.Event().wait()

    def environment(self, name: str) -> list[Any]:
        return [os.environ.get(name), str(Path.cwd()), sys.path]

    def facts(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "group": os.getpgrp(),
            "threads": threading.active_count(),
            "random": [random.random(), float(np.random.random())],  # noqa: NPY002  # the inherited state is what is looked at,
        }

    def __call__(self, value: int) -> int:
        return value * 2


class _NoTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class _Text(str):
    __slots__ = ()


class _OwnTextError(Exception):
    def __str__(self) -> str:
        return _Text("a text of a class of its own " + "z" * self.args[0])


class Mapped:
    """Weights that are mapped from a file."""

    def __init__(self, path: str) -> None:
        self.weights = np.memmap(path, dtype=np.float32, mode="r")

    def total(self) -> float:
        return float(self.weights.sum())

    def part(self, count: int) -> Any:
        return self.weights[:count]


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


def load_gated(path: str) -> Model:
    model = Model()
    model.wait_for_pipe(path, "loading")
    return model


def load_says_so_and_hangs(path: str) -> Model:
    """Say through a FIFO that the load runs, and never end it."""
    Path(path).write_text("loading", encoding="utf-8")
    return load_hangs()


class Unsized:
    """Says through a FIFO that it is asked for its size, and never tells it."""

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def size_bytes(self) -> int:
        Path(self.path).write_text("asked", encoding="utf-8")
        threading.Event().wait()
        return 0


def load_killed() -> Model:
    os.kill(os.getpid(), signal.SIGKILL)
    return Model()


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
