from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import math
import os
import signal
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
from ondol.models.isolation.pipes import Pipes
from ondol.models.isolation.wire import INLINE_LIMIT_BYTES
from tests.service import isolation_models
from tests.service.isolation_running import Gate, children_of, start, threads_of, with_model

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.close()


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


def test_a_time_out_may_be_endless(server: ForkServer) -> None:
    async def scenario(model: IsolatedModel) -> None:
        assert await model.later(1) == 2

    with_model(server, scenario, start_timeout_s=math.inf, call_timeout_s=math.inf)


def test_loops_in_several_threads_share_a_model(server: ForkServer) -> None:
    model = asyncio.run(start(server))

    async def ask(thread: int) -> Any:
        return await asyncio.gather(*(model.later(1000 * thread + number) for number in range(20)))

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda thread: asyncio.run(ask(thread)), range(4)))
    assert answers == [[1000 * thread + number + 1 for number in range(20)] for thread in range(4)]
    asyncio.run(model.close())


def test_a_part_of_mapped_weights_comes_as_an_array(server: ForkServer, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(np.arange(100, dtype=np.float32).tobytes())

    async def scenario(model: IsolatedModel) -> None:
        part = await model.part(10)
        assert type(part) is np.ndarray
        assert np.array_equal(part, np.arange(10, dtype=np.float32))

    with_model(server, scenario, loader=functools.partial(isolation_models.load_mapped, str(path)))


def test_without_a_server_the_model_brings_its_own() -> None:
    async def scenario() -> None:
        model = await start_isolated(isolation_models.load, name="own")
        assert await model.later(1) == 2
        await model.close()
        assert threads_of("own-link") + threads_of("own-watch") == []
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


def test_a_flood_of_lines_holds_nobody_up(server: ForkServer) -> None:
    async def scenario(model: IsolatedModel) -> None:
        assert await model.flood(1000) == 1000
        with pytest.raises(ModelCrashedError) as caught:
            await asyncio.gather(model.flood(1000), model.leave(3))
        assert len(caught.value.stderr_tail) == 20
        assert caught.value.stderr_tail[-1] == "leaving for good"

    with_model(server, scenario)


def test_a_log_that_fails_does_not_take_the_model_along(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(record: logging.LogRecord) -> bool:
        raise RuntimeError(record.getMessage())

    monkeypatch.setattr(logging.getLogger("ondol.models"), "filters", [fail])

    async def scenario(model: IsolatedModel) -> None:
        await model.say("out", "err")
        with pytest.raises(ModelCrashedError, match="leaving for good"):
            await model.leave(3)

    with_model(server, scenario)


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
        with pytest.raises(RemoteModelError, match="CancelledError in call 'fail_by_cancellation'"):
            await model.fail_by_cancellation()
        with pytest.raises(RemoteModelError, match=r"UnencodableValueError .*: the model itself says so"):
            await model.fail_like_the_codec()
        with pytest.raises(RemoteModelError, match=r"a text of a class of its own z$"):
            await model.fail_with_text_of_a_class(1)
        with pytest.raises(RemoteModelError, match=r"a text of a class of its own z+ … z+") as caught:
            await model.fail_with_text_of_a_class(1_000_000)
        assert len(str(caught.value)) < 20_000
        assert len(caught.value.remote_traceback) < 200_000
        assert await model.later(1) == 2

    with_model(server, scenario)


def test_what_cannot_be_sent_fails_only_its_call(server: ForkServer) -> None:
    async def scenario(model: IsolatedModel) -> None:
        with pytest.raises(UnencodableValueError, match=r"\['args'\]\[0\] cannot be sent.*object"):
            await model.give(object())
        with pytest.raises(UnencodableValueError, match=r"result\['value'\]\['model'\] cannot be sent.*Model"):
            await model.unencodable()
        assert await model.give(1) == 1
        await model.use_up_descriptors()
        with pytest.raises(UnencodableValueError, match=r"result of 781\.2 KiB cannot be sent.*Too many open files"):
            await model.zeros(100_000)
        assert await model.give(1) == 1

    with_model(server, scenario)


def test_an_exception_nobody_can_catch_is_logged(server: ForkServer, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(model: IsolatedModel) -> None:
        assert await model.unraisable() == "still here"

    with_model(server, scenario)
    assert "raised where nobody can catch it" in caplog.text


def test_a_cancelled_caller_loses_only_its_answer(server: ForkServer, gate: Gate) -> None:
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
        gate.let_go("")
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
        with pytest.raises(ModelCrashedError):  # closing it does not hide why
            await model.later(4)
        assert threads_of("m") == []

    asyncio.run(scenario())


def test_the_owner_hears_of_the_end_before_the_callers(server: ForkServer) -> None:
    async def scenario() -> None:
        heard: list[str] = []
        model = await start(server, on_exit=lambda _: heard.append("owner"))

        async def ask() -> None:
            with pytest.raises(ModelCrashedError):
                await model.leave(3)
            heard.append("caller")

        await asyncio.gather(ask(), ask())
        assert heard == ["owner", "caller", "caller"]
        await model.close()

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
        await model.close()
        assert threads_of("m") == []

    asyncio.run(scenario())


def test_the_end_of_the_fork_server_is_the_end_of_its_models() -> None:
    server = ForkServer()

    async def scenario() -> None:
        model = await start(server)
        hanging = asyncio.create_task(model.hang())
        first_pid = server.pid
        await asyncio.to_thread(server.close)
        with pytest.raises(ModelCrashedError, match="SIGKILL"):
            await hanging
        assert (await model.close()).signal_name == "SIGKILL"
        again = await start(server)
        assert server.pid != first_pid
        assert await again.later(1) == 2
        await again.close()

    asyncio.run(scenario())
    server.close()


def test_the_loss_of_the_fork_server_is_survived() -> None:
    server = ForkServer()

    async def scenario() -> None:
        ended: asyncio.Future[ModelExit] = asyncio.get_running_loop().create_future()
        model = await start(server, on_exit=ended.set_result)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        told = await ended
        assert told.exit_code is None
        with pytest.raises(ModelCrashedError, match="was lost: its fork server ended"):
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
        (isolation_models.load_killed, ModelCrashedError, "ended by SIGKILL, perhaps by the kernel"),
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
        assert children_of(server) == []

    asyncio.run(scenario())


def test_a_start_cancelled_within_the_loader_ends_the_process(server: ForkServer, gate: Gate) -> None:
    async def scenario() -> None:
        loading = asyncio.create_task(start(server, functools.partial(isolation_models.load_gated, gate.path)))
        assert await gate.until_running() == "loading"
        loading.cancel()
        await asyncio.wait([loading])
        assert loading.cancelled()
        assert threads_of("m") == []
        assert children_of(server) == []

    asyncio.run(scenario())


def test_a_start_given_up_before_the_fork_forks_nothing(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    may_open = threading.Event()
    forks: list[Any] = []
    open_pipes = Pipes.__init__

    def wait_and_open(pipes: Pipes, name: str) -> None:
        may_open.wait()
        open_pipes(pipes, name)

    monkeypatch.setattr(Pipes, "__init__", wait_and_open)
    monkeypatch.setattr(server, "fork", lambda *_, **__: forks.append(1))

    async def scenario() -> None:
        loading = asyncio.create_task(start(server))
        await asyncio.sleep(0)
        loading.cancel()
        await asyncio.sleep(0)
        may_open.set()
        await asyncio.wait([loading])
        assert loading.cancelled()

    asyncio.run(scenario())
    assert forks == []
    assert threads_of("m") == []


@pytest.mark.parametrize("part", ["link", "watch"])
def test_a_thread_that_cannot_be_had_is_a_load_that_fails(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    server.start()
    start_thread = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == f"ondol-m-{part}":
            raise RuntimeError("can't start new thread")
        start_thread(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    open_before = psutil.Process().num_fds()

    async def scenario() -> None:
        with pytest.raises(ModelLoadError, match="new thread"):
            await asyncio.wait_for(start(server), 30)
        assert threads_of("m") == []
        assert children_of(server) == []

    asyncio.run(scenario())
    assert psutil.Process().num_fds() == open_before


# The end


def test_closing_answers_what_was_asked_and_refuses_what_comes_after(server: ForkServer, gate: Gate) -> None:
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
        gate.let_go("answer")
        assert await running == "answer"
        assert await queued == ["first", "queued"]
        assert (await closing).exit_code == 0
        assert (await ended).is_expected
        assert await model.close() == await ended

    asyncio.run(scenario())


def test_closing_a_hanging_model_kills_it(server: ForkServer) -> None:
    async def scenario() -> None:
        model = await start(server)
        hanging = asyncio.create_task(model.hang())
        await asyncio.sleep(0)
        ended = await model.close(drain_s=0.05)
        assert (ended.signal_name, ended.is_expected) == ("SIGKILL", True)
        with pytest.raises(ModelCrashedError, match="did not end within 50 ms"):
            await hanging

    asyncio.run(scenario())


def test_the_end_of_the_process_has_its_time(server: ForkServer, gate: Gate) -> None:
    async def scenario() -> None:
        model = await start(server)
        await model.end_through(gate.path)
        closing = asyncio.create_task(model.close())
        assert await gate.until_running() == "ending"
        assert model.is_alive
        gate.let_go("")
        assert (await closing).exit_code == 0

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
