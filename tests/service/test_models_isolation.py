from __future__ import annotations

import array
import asyncio
import functools
import logging
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from ondol.errors import (
    AlreadyClosedError,
    ConfigurationError,
    ModelCallTimeoutError,
    ModelCrashedError,
    ModelLoadError,
    RemoteModelError,
    UnencodableValueError,
)
from ondol.models.isolation import ForkServer, IsolatedModel, ModelExit, start_isolated
from ondol.models.isolation.codec import MalformedMessageError, encode
from ondol.models.isolation.wire import INLINE_LIMIT_BYTES, receive, send
from tests.service import isolation_models

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

ROOT = Path(__file__).parents[2]
END_LIMIT_MS = 20_000
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc or waits on a pidfd")


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


async def start(server: ForkServer, loader: Any = isolation_models.load, **options: Any) -> IsolatedModel:
    return await start_isolated(loader, name="m", server=server, **{"start_timeout_s": 60.0, **options})


def with_model(
    server: ForkServer, scenario: Callable[[IsolatedModel], Coroutine[Any, Any, None]], **options: Any
) -> None:
    """Run ``scenario`` with a model, which is closed after it whatever is left of it."""

    async def run() -> None:
        model = await start(server, **options)
        try:
            await scenario(model)
        finally:
            await model.close()
        assert threads_of("m") == []

    asyncio.run(run())


def threads_of(name: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(f"ondol-{name}")]


class Gate:
    """Two FIFOs through which a call in the model says that it runs, and is let go."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "gate")
        for end in (".running", ".go"):
            os.mkfifo(self.path + end)

    async def until_running(self) -> str:
        return await asyncio.to_thread(Path(self.path + ".running").read_text, "utf-8")

    async def let_go(self, answer: str) -> None:
        await asyncio.to_thread(Path(self.path + ".go").write_text, answer, "utf-8")


def wait_until_gone(pidfd: int) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    try:
        return bool(poller.poll(END_LIMIT_MS))
    finally:
        os.close(pidfd)


# Calls


def test_a_model_answers_from_another_process(server: ForkServer) -> None:
    async def scenario(model: IsolatedModel) -> None:
        facts = await model.facts()
        assert facts["pid"] == model.pid != os.getpid()
        assert facts["parent"] == server.pid
        assert await model.call("echo", 1, (2, b"3"), key={"a": None}) == [[1, (2, b"3")], {"key": {"a": None}}]
        assert await model(21) == 42
        assert await model.later(1) == 2
        assert await model.later(2) == 3  # on the same loop again
        assert await model.read("dimension") == 384
        assert model.is_alive
        assert model.ready_s > 0
        assert f"process {model.pid}, alive" in repr(model)
        with pytest.raises(AttributeError, match="_private"):
            model._private  # noqa: B018  # reading it is the test

    with_model(server, scenario)


@pytest.mark.parametrize("length", [384, INLINE_LIMIT_BYTES // 4, INLINE_LIMIT_BYTES // 4 + 1, 1 << 20])
def test_arrays_of_any_size_go_there_and_back(server: ForkServer, length: int) -> None:
    async def scenario(model: IsolatedModel) -> None:
        given = np.arange(length, dtype=np.float32)
        result = await model.scaled(given)
        assert result.dtype == np.float32
        assert np.array_equal(result, given * 2)
        result[0] = 1.0  # it is the caller's own

    with_model(server, scenario, loader=functools.partial(isolation_models.load, 2.0))


def test_concurrent_calls_are_answered_in_their_order(server: ForkServer) -> None:
    async def scenario(model: IsolatedModel) -> None:
        logs = await asyncio.gather(*(model.note(str(number)) for number in range(40)))
        assert [len(log) for log in logs] == list(range(1, 41))
        assert logs[-1] == [str(number) for number in range(40)]

    with_model(server, scenario)


def test_an_asynchronous_loader_is_awaited(server: ForkServer) -> None:
    async def scenario(model: IsolatedModel) -> None:
        assert await model.read("scale") == 7.0

    with_model(server, scenario, loader=isolation_models.load_async)


def test_the_process_lives_in_the_world_of_now(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.start()  # before what follows
    monkeypatch.setenv("ONDOL_ISOLATION_TEST", "가\udcff")
    monkeypatch.syspath_prepend(str(tmp_path / "added"))
    monkeypatch.chdir(tmp_path)

    async def scenario(model: IsolatedModel) -> None:
        value, folder, path = await model.environment("ONDOL_ISOLATION_TEST")
        assert (value, folder) == ("가\udcff", str(tmp_path))
        assert path[0] == str(tmp_path / "added")

    with_model(server, scenario)


def test_siblings_draw_different_random_numbers(server: ForkServer) -> None:
    drawn = []

    async def scenario(model: IsolatedModel) -> None:
        drawn.append((await model.facts())["random"])

    with_model(server, scenario)
    with_model(server, scenario)
    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1] != drawn[1][1]


def test_a_model_outlives_the_loop_it_was_started_in(server: ForkServer) -> None:
    model = asyncio.run(start(server))
    assert asyncio.run(model.later(1)) == 2
    assert asyncio.run(model.close()).exit_code == 0


def test_without_a_server_the_model_brings_its_own() -> None:
    async def scenario() -> None:
        model = await start_isolated(isolation_models.load, name="own")
        assert await model.later(1) == 2
        await model.close()
        assert threads_of("own") == []
        assert psutil.Process().children() == before

    before = psutil.Process().children()
    asyncio.run(scenario())


def test_what_it_prints_goes_to_the_log(server: ForkServer, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(model: IsolatedModel) -> None:
        await model.say("one\ntwo", "three")
        await model.say("x" * 20_000, "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"))

    with caplog.at_level(logging.INFO, "ondol.models"):
        with_model(server, scenario)
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lines.index(("INFO", "model m: one")) < lines.index(("INFO", "model m: two"))
    assert ("WARNING", "model m: three") in lines
    assert sum(text.count("x") for _, text in lines) == 20_000


# Errors


def test_an_exception_comes_back_with_its_traceback(server: ForkServer) -> None:
    async def scenario(model: IsolatedModel) -> None:
        with pytest.raises(RemoteModelError, match=r"model 'm' raised KeyError in call 'fail': 'why'") as caught:
            await model.fail("why")
        assert caught.value.type_name == "builtins.KeyError"
        assert "raise KeyError(text)" in caught.value.remote_traceback
        assert caught.value.remote_traceback in caught.value.__notes__[0]
        with pytest.raises(RemoteModelError, match="its text cannot be had: RuntimeError"):
            await model.fail_badly()
        with pytest.raises(RemoteModelError, match=r"AttributeError.*no_such_method"):
            await model.no_such_method()
        assert await model.later(1) == 2

    with_model(server, scenario)


def test_what_cannot_be_sent_fails_only_its_call(server: ForkServer) -> None:
    async def scenario(model: IsolatedModel) -> None:
        with pytest.raises(UnencodableValueError, match=r"\['args'\]\[0\] cannot be sent.*object"):
            await model.give(object())
        with pytest.raises(UnencodableValueError, match=r"result\['value'\]\['model'\] cannot be sent.*Model"):
            await model.unencodable()
        assert await model.give(1) == 1

    with_model(server, scenario)


def test_an_exception_nobody_can_catch_is_logged(server: ForkServer, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(model: IsolatedModel) -> None:
        assert await model.unraisable() == "still here"

    with_model(server, scenario)
    assert "raised where nobody can catch it" in caplog.text


def test_a_cancelled_caller_loses_only_its_answer(server: ForkServer, tmp_path: Path) -> None:
    gate = Gate(tmp_path)

    async def scenario(model: IsolatedModel) -> None:
        running = asyncio.create_task(model.wait_for_pipe(gate.path, "first"))
        assert await gate.until_running() == "first"
        queued = asyncio.create_task(model.note("cancelled before it was sent"))
        kept = asyncio.create_task(model.note("kept"))
        await asyncio.sleep(0)
        running.cancel()
        queued.cancel()
        await asyncio.wait([running, queued])
        assert running.cancelled()
        assert queued.cancelled()
        await gate.let_go("")
        assert await kept == ["first", "kept"]

    with_model(server, scenario)


@pytest.mark.parametrize(
    ("method", "arguments", "code", "signal_name", "tail"),
    [
        ("leave", (3,), 3, None, "leaving for good"),
        ("sys_exit", (), 5, None, "SystemExit: 5"),
        ("run_out_of_memory", (), 12, None, "MemoryError"),
        ("segfault", (), None, "SIGSEGV", "Segmentation fault"),
        ("send_nonsense", (), None, "SIGKILL", ""),
        ("close_link", (), None, "SIGKILL", ""),
    ],
)
def test_a_crash_is_a_typed_error_for_everyone(
    server: ForkServer, method: str, arguments: tuple[Any, ...], code: int | None, signal_name: str | None, tail: str
) -> None:
    async def scenario() -> None:
        ended: asyncio.Future[ModelExit] = asyncio.get_running_loop().create_future()
        model = await start(server, on_exit=ended.set_result)
        results = await asyncio.gather(
            model.call(method, *arguments), model.later(1), model.later(2), return_exceptions=True
        )
        for error in results:
            assert isinstance(error, ModelCrashedError)
            assert (error.exit_code, error.signal_name) == (code, signal_name)
            assert tail in str(error)
        assert len(set(map(id, results))) == 3
        told = await ended
        assert (told.name, told.exit_code, told.signal_name, told.is_expected) == ("m", code, signal_name, False)
        assert not model.is_alive
        assert model.exit == told
        assert model.memory() == (0, 0)
        with pytest.raises(ModelCrashedError):
            await model.later(3)
        assert await model.close() == told
        assert threads_of("m") == []

    asyncio.run(scenario())


def test_a_kill_while_idle_is_noticed_at_once(server: ForkServer) -> None:
    async def scenario() -> None:
        ended: asyncio.Future[ModelExit] = asyncio.get_running_loop().create_future()
        model = await start(server, on_exit=ended.set_result)
        assert model.pid is not None
        os.kill(model.pid, signal.SIGKILL)
        assert (await ended).signal_name == "SIGKILL"
        with pytest.raises(ModelCrashedError, match="SIGKILL, perhaps by the kernel for want of memory"):
            await model.later(1)
        assert threads_of("m") == []

    asyncio.run(scenario())


def test_the_loss_of_the_fork_server_is_survived() -> None:
    server = ForkServer()

    async def scenario() -> None:
        ended: asyncio.Future[ModelExit] = asyncio.get_running_loop().create_future()
        model = await start(server, on_exit=ended.set_result)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        told = await ended
        assert told.exit_code is None
        with pytest.raises(ModelCrashedError, match="lost together with its fork server"):
            await model.later(1)
        again = await start(server)
        assert await again.later(1) == 2
        await again.close()

    asyncio.run(scenario())
    server.close()


def test_a_call_that_takes_too_long_ends_the_process(server: ForkServer) -> None:
    async def scenario() -> None:
        model = await start(server, call_timeout_s=0.3)
        results = await asyncio.gather(model.hang(), model.later(1), return_exceptions=True)
        assert isinstance(results[0], ModelCallTimeoutError)
        assert "call 'hang' took longer than 300 ms" in str(results[0])
        assert isinstance(results[1], ModelCrashedError)
        assert "took longer" in str(results[1])
        await model.close()

    asyncio.run(scenario())


# Loading


@pytest.mark.parametrize(
    ("loader", "error", "says"),
    [
        (isolation_models.load_raises, ModelLoadError, "OSError in loading: no weights here"),
        ("tests.service.isolation_models:no_such_function", ModelLoadError, "AttributeError"),
        (isolation_models.load_exits, ModelCrashedError, "(?s)exit code 9.*the library gave up"),
        (isolation_models.load_out_of_memory, ModelCrashedError, "ran out of memory"),
        (functools.partial(isolation_models.load_with, Path()), UnencodableValueError, "pathlib"),
        (isolation_models.load_lambda, ConfigurationError, "lambda"),
    ],
)
def test_a_load_that_fails_says_why_and_leaves_nothing(
    server: ForkServer, loader: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        asyncio.run(start(server, loader))
    assert threads_of("m") == []


def test_a_load_that_hangs_is_ended(server: ForkServer) -> None:
    server.start()
    with pytest.raises(ModelLoadError, match="not ready within 500 ms") as caught:
        asyncio.run(start(server, isolation_models.load_hangs, start_timeout_s=0.5))
    assert isinstance(caught.value.__cause__, ModelCallTimeoutError)
    assert threads_of("m") == []
    assert server.pid is not None
    assert psutil.Process(server.pid).children() == []


def test_a_cancelled_start_ends_the_process(server: ForkServer) -> None:
    async def scenario() -> None:
        server.start()
        loading = asyncio.create_task(start(server, isolation_models.load_hangs))
        await asyncio.sleep(0)  # it has begun: the fork comes before or after the cancellation
        loading.cancel()
        await asyncio.wait([loading])
        assert loading.cancelled()
        assert threads_of("m") == []
        assert server.pid is not None
        assert psutil.Process(server.pid).children() == []

    asyncio.run(scenario())


def test_a_module_that_cannot_be_preloaded_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    server = ForkServer(preload=("no_such_module", "json"))
    server.start()
    assert "cannot import no_such_module ahead" in caplog.text
    server.close()
    server.close()
    assert server.pid is None


# The end


def test_closing_answers_what_was_asked_and_refuses_what_comes_after(server: ForkServer, tmp_path: Path) -> None:
    gate = Gate(tmp_path)

    async def scenario() -> None:
        ended: asyncio.Future[ModelExit] = asyncio.get_running_loop().create_future()
        model = await start(server, on_exit=ended.set_result)
        running = asyncio.create_task(model.wait_for_pipe(gate.path, "first"))
        queued = asyncio.create_task(model.note("queued"))
        await gate.until_running()
        closing = asyncio.create_task(model.close())
        await asyncio.sleep(0)
        with pytest.raises(AlreadyClosedError, match="'m' is closed or closing"):
            await model.later(1)
        await gate.let_go("answer")
        assert await running == "answer"
        assert await queued == ["first", "queued"]
        assert (await closing).exit_code == 0
        assert (await ended).is_expected
        assert await model.close() == await ended

    asyncio.run(scenario())


@pytest.mark.parametrize(("is_stubborn", "signal_name"), [(False, "SIGTERM"), (True, "SIGKILL")])
def test_closing_a_hanging_model_gets_rougher(server: ForkServer, is_stubborn: bool, signal_name: str) -> None:
    async def scenario() -> None:
        model = await start(server)
        if is_stubborn:
            await model.ignore_terminate()
        hanging = asyncio.create_task(model.hang())
        await asyncio.sleep(0)
        ended = await model.close(drain_s=0.05, terminate_s=0.2 if is_stubborn else 20.0)
        assert (ended.signal_name, ended.is_expected) == (signal_name, True)
        with pytest.raises(ModelCrashedError, match="did not end within 50 ms"):
            await hanging

    asyncio.run(scenario())


def test_a_cancelled_close_kills(server: ForkServer) -> None:
    async def scenario() -> None:
        model = await start(server)
        hanging = asyncio.create_task(model.hang())
        closing = asyncio.create_task(model.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing, hanging])
        assert closing.cancelled()
        assert not model.is_alive

    asyncio.run(scenario())


@linux_only
@pytest.mark.parametrize("victim", ["parent", "server"])
def test_nothing_survives_the_parent(victim: str, tmp_path: Path) -> None:
    script = """
import asyncio, sys
from ondol.models.isolation import ForkServer, start_isolated
async def main():
    server = ForkServer()
    model = await start_isolated("tests.service.isolation_models:load", name="m", server=server)
    print(server.pid, model.pid, flush=True)
    await asyncio.gather(model.hang(), return_exceptions=True)
    sys.stdin.read()
asyncio.run(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        server_pid, model_pid = map(int, process.stdout.readline().split())
        pidfds = [os.pidfd_open(server_pid), os.pidfd_open(model_pid)]
        os.kill({"parent": process.pid, "server": server_pid}[victim], signal.SIGKILL)
        assert [wait_until_gone(pidfd) for pidfd in pidfds] == [True, True]
        process.kill()


def test_where_the_kernel_does_not_tell_the_hang_up_does() -> None:
    ours, theirs = socket.socketpair()
    script = (
        "import sys, threading\nfrom ondol.models.isolation.prctl import watch_hangup\n"
        "watch_hangup(int(sys.argv[1]))\nprint('watching', flush=True)\nthreading.Event().wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        theirs.close()
        assert process.stdout is not None
        assert process.stdout.readline() == "watching\n"
        ours.close()
        assert process.wait(20) == 1


@linux_only
def test_fifty_models_leave_nothing_behind() -> None:
    server = ForkServer()

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    async def cycle() -> None:
        model = await start(server)
        assert (await model.scaled(np.ones(40_000))).shape == (40_000,)
        await model.close()

    async def scenario() -> None:
        await cycle()
        before = held()
        assert server.pid is not None
        server_before = psutil.Process(server.pid).num_fds()
        for _ in range(50):
            await cycle()
        assert held() == before
        assert psutil.Process(server.pid).num_fds() == server_before
        assert psutil.Process(server.pid).children() == []

    asyncio.run(scenario())
    server.close()


@linux_only
def test_two_copies_of_mapped_weights_are_in_memory_once(server: ForkServer, tmp_path: Path) -> None:
    size_bytes = 32 * 1024 * 1024
    path = tmp_path / "weights"
    path.write_bytes(np.ones(size_bytes // 4, np.float32).tobytes())

    async def scenario() -> None:
        loader = functools.partial(isolation_models.load_mapped, str(path))
        models = [await start(server, loader) for _ in range(2)]
        before = [model.memory() for model in models]
        assert [await model.total() for model in models] == [size_bytes / 4] * 2
        after = [model.memory() for model in models]
        rss_growth = [new.rss_bytes - old.rss_bytes for new, old in zip(after, before, strict=True)]
        pss_growth = sum(new.pss_bytes - old.pss_bytes for new, old in zip(after, before, strict=True))
        assert min(rss_growth) >= 0.95 * size_bytes
        assert 0.95 * size_bytes <= pss_growth <= 1.2 * size_bytes
        assert models[0].rss_bytes() >= size_bytes > models[0].pss_bytes() - before[0].pss_bytes
        for model in models:
            await model.close()

    asyncio.run(scenario())


# The wire


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_large_arrays_also_go_through_an_unlinked_file(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    given: list[Any] = [np.arange(100_000), b"small", np.ones(50_000)]
    send(pair[0], encode(given))
    result = receive(pair[1])
    assert np.array_equal(result[0], given[0])
    assert result[1] == b"small"
    assert np.array_equal(result[2], given[2])


def frame(count: int, header: bytes, inline_bytes: int, beside_bytes: int, *lengths: int) -> bytes:
    prefix = struct.pack("<4sIQQQ", b"ondl", count, len(header), inline_bytes, beside_bytes)
    return prefix + struct.pack(f"<{len(lengths)}Q", *lengths) + header


@pytest.mark.parametrize(
    ("data", "has_descriptor"),
    [
        (b"\0" * 64, False),
        (frame(0, b"null", 0, 100_000), False),
        (frame(0, b"null", 0, 0), True),
        (frame(1, b"null", 3, 0, 4), False),
        (frame(1, b"null", 0, 100_000, 100_000), True),
        (struct.pack("<4sIQQQ", b"ondl", 0, 1 << 60, 0, 0), False),
    ],
)
def test_a_frame_that_contradicts_itself_is_refused(
    pair: tuple[socket.socket, socket.socket], data: bytes, has_descriptor: bool, tmp_path: Path
) -> None:
    descriptor = os.open(tmp_path / "empty", os.O_RDWR | os.O_CREAT)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))] if has_descriptor else []
    pair[0].sendmsg([data], rights)
    os.close(descriptor)
    open_before = psutil.Process().num_fds()
    with pytest.raises(MalformedMessageError):
        receive(pair[1])
    assert psutil.Process().num_fds() == open_before


@pytest.mark.parametrize("data", [b"", b"ondl", frame(0, b"null", 0, 0)[:-1]])
def test_an_end_within_a_message_is_an_end(pair: tuple[socket.socket, socket.socket], data: bytes) -> None:
    pair[0].sendall(data)
    pair[0].close()
    with pytest.raises(EOFError):
        receive(pair[1])
