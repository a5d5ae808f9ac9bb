"""Isolated models and what surrounds them: signals, descriptors, other processes, the end of everything."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from ondol.errors import ConfigurationError, ModelLoadError
from ondol.models.isolation import ForkServer, IsolatedModel
from ondol.models.isolation.pipes import Pipes
from tests.service import isolation_models
from tests.service.isolation_running import END_LIMIT_S, Gate, Life, children_of, start, threads_of, with_model

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def fresh_server() -> Iterator[ForkServer]:
    """One that has not started yet."""
    server = ForkServer()
    yield server
    server.close()


def module(folder: Path, name: str, source: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")


WITHOUT_PRCTL = """
    from ondol.models.isolation import fork_main
    fork_main.find_prctl = lambda: None
"""


# Preloading


def test_what_is_preloaded_is_imported_once_and_says_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
        import os
        print("imported", end="")
        imported_in = os.getpid()
        class Model:
            def where(self): return imported_in
            def say(self): print("said")
    """
    module(tmp_path, "preloaded_once", source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    server = ForkServer(preload=("preloaded_once",))

    async def scenario(model: IsolatedModel) -> None:
        assert await model.where() == server.pid
        await model.say()

    with caplog.at_level("INFO", "ondol.models"):
        with_model(server, scenario, loader="preloaded_once:Model")
    server.close()
    assert [record.getMessage() for record in caplog.records] == ["model m: said"]


def test_what_is_no_text_in_the_path_does_no_harm(
    fresh_server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])

    async def scenario(model: IsolatedModel) -> None:
        assert await model.later(1) == 2

    with_model(fresh_server, scenario)


def test_modules_that_cannot_be_preloaded_are_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module(tmp_path, "leaves", "import sys; sys.exit(3)")
    module(
        tmp_path, "threads", "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    server = ForkServer(preload=("no_such_module", "leaves", "threads", "json"))
    server.start()
    assert "cannot import no_such_module ahead: ModuleNotFoundError" in caplog.text
    assert "cannot import leaves ahead: SystemExit: 3" in caplog.text
    assert "module threads starts threads when it is imported" in caplog.text
    server.close()
    server.close()
    assert server.pid is None


def test_a_fork_server_that_hangs_in_an_import_is_ended_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module(tmp_path, "hangs", "import threading; threading.Event().wait()")
    monkeypatch.syspath_prepend(str(tmp_path))
    server = ForkServer(preload=("hangs",))
    begun_s = time.monotonic()
    with pytest.raises(ModelLoadError, match="did not start: timed out"):
        server.start(timeout_s=0.2)
    assert time.monotonic() - begun_s < 4
    assert server.pid is None


def test_folders_that_came_later_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "later"))
    server = ForkServer(preload=("no_such_module",))  # looks into every folder
    server.start()
    module(tmp_path / "later", "came_later", "class Model:\n    answer = 42")

    async def scenario(model: IsolatedModel) -> None:
        assert await model.read("answer") == 42

    with_model(server, scenario, loader="came_later:Model")
    server.close()


@pytest.mark.parametrize(("name", "value"), [("executable", ""), ("frozen", True)])
def test_where_no_interpreter_can_be_started_it_says_so(
    fresh_server: ForkServer, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(sys, name, value, raising=False)
    with pytest.raises(ConfigurationError, match="use isolation='thread'"):
        asyncio.run(start(fresh_server))


# What a model's process has, and has not


def test_it_holds_no_descriptor_but_its_own(server: ForkServer) -> None:
    async def scenario(model: IsolatedModel) -> None:
        other = await start(server)
        for process in (model, other, model):
            assert process.pid is not None
            assert psutil.Process(process.pid).num_fds() == 4  # the standard ones and the link
        await other.close()

    with_model(server, scenario)


def test_signals_to_everybody_are_left_to_the_parent(server: ForkServer) -> None:
    async def scenario(model: IsolatedModel) -> None:
        assert model.pid is not None
        assert server.pid is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(server.pid, number)
            os.kill(model.pid, number)
        assert await model.later(1) == 2
        assert await model.handler_in_a_program() == "SIG_DFL"
        facts = await model.facts()
        assert facts["group"] == model.pid
        assert facts["parent"] == server.pid
        assert os.getpgid(server.pid) == server.pid

    with_model(server, scenario)


@pytest.mark.parametrize("is_killed", [True, False])
def test_what_a_model_started_ends_with_it(server: ForkServer, tmp_path: Path, is_killed: bool) -> None:
    life = Life(tmp_path)

    async def scenario(model: IsolatedModel) -> None:
        await model.start_helper(life.path)
        if is_killed:
            model.kill()

    with_model(server, scenario)
    assert life.is_over()


def test_it_prints_in_any_locale(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)
    server = ForkServer()

    async def scenario(model: IsolatedModel) -> None:
        await model.say("따뜻한 바닥", "\udcff")

    with caplog.at_level("INFO", "ondol.models"):
        with_model(server, scenario)
    server.close()
    assert {record.getMessage() for record in caplog.records} == {"model m: 따뜻한 바닥", "model m: \\udcff"}


def test_two_copies_of_mapped_weights_are_in_memory_once(server: ForkServer, tmp_path: Path) -> None:
    size_bytes = 64 * 1024 * 1024
    path = tmp_path / "weights"
    path.write_bytes(np.ones(size_bytes // 4, np.float32).tobytes())
    is_counted_by_share = Path("/proc/self/smaps_rollup").exists()

    async def scenario() -> None:
        loader = functools.partial(isolation_models.load_mapped, str(path))
        models = [await start(server, loader) for _ in range(2)]
        assert [await model.total() for model in models] == [size_bytes / 4] * 2
        rss_bytes = [model.rss_bytes() for model in models]
        pss_bytes = [model.pss_bytes() for model in models]
        assert min(rss_bytes) >= size_bytes
        if is_counted_by_share:
            assert size_bytes <= sum(pss_bytes) < 1.5 * size_bytes
        else:  # where the system does not count by share, both count all they see
            assert min(pss_bytes) >= size_bytes
        for model in models:
            await model.close()

    asyncio.run(scenario())


def test_fifty_models_leave_nothing_behind(fresh_server: ForkServer) -> None:
    server = fresh_server

    async def cycle() -> list[int]:
        """Return what is held while the model lives; by then all that the one before it left has been put away."""
        model = await start(server)
        assert (await model.scaled(np.ones(40_000))).shape == (40_000,)
        assert server.pid is not None
        held = [len(threads_of("")), *(process.num_fds() for process in map(psutil.Process, (os.getpid(), server.pid)))]
        await model.close()
        return held

    async def scenario() -> None:
        first = await cycle()
        assert [await cycle() for _ in range(50)] == [first] * 50
        assert children_of(server) == []

    asyncio.run(scenario())


# A fork server in trouble


class AtTheFork:
    """Acts when the command to fork has been sent and its answer is about to be waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
        read_pid = Pipes.read_pid

        def act_and_read(pipes: Pipes, timeout_s: float) -> int:
            action()
            return read_pid(pipes, timeout_s)

        monkeypatch.setattr(Pipes, "read_pid", act_and_read)


def test_a_fork_server_lost_at_the_fork_is_noticed(fresh_server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh_server.start()
    pid = fresh_server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # it does not obey any more
    AtTheFork(monkeypatch, lambda: os.kill(pid, signal.SIGKILL))
    with pytest.raises(ModelLoadError, match="the fork server of isolated models ended"):
        asyncio.run(asyncio.wait_for(start(fresh_server, start_timeout_s=100), 30))
    assert threads_of("m") == []


def test_a_child_that_is_forked_too_late_is_ended(fresh_server: ForkServer) -> None:
    fresh_server.start()
    assert fresh_server.pid is not None
    os.kill(fresh_server.pid, signal.SIGSTOP)
    with pytest.raises(ModelLoadError, match="did not answer within"):
        asyncio.run(start(fresh_server, start_timeout_s=0.1))
    os.kill(fresh_server.pid, signal.SIGCONT)

    async def scenario(model: IsolatedModel) -> None:
        assert await model.later(1) == 2

    with_model(fresh_server, scenario)
    assert children_of(fresh_server) == []


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux can limit another process")
@pytest.mark.parametrize("room", [0, 2])
def test_a_fork_server_without_descriptors_says_so(fresh_server: ForkServer, room: int) -> None:
    async def scenario(model: IsolatedModel) -> None:
        server_pid = fresh_server.pid
        assert server_pid is not None
        process = psutil.Process(server_pid)
        held = process.num_fds()
        limits = resource.prlimit(server_pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server_pid, resource.RLIMIT_NOFILE, (3 + room, limits[1]))
        with pytest.raises(ModelLoadError, match="no descriptors left"):
            await asyncio.wait_for(start(fresh_server, start_timeout_s=100), 30)
        resource.prlimit(server_pid, resource.RLIMIT_NOFILE, limits)
        again = await start(fresh_server)
        assert process.num_fds() == held + 1  # the pipe for its reports
        assert fresh_server.pid == server_pid
        await again.close()
        assert await model.later(1) == 2

    with_model(fresh_server, scenario)


# The end of the parent

SCRIPT = """
import asyncio, os, sys
from pathlib import Path
from ondol.models.isolation import ForkServer, start_isolated
server = ForkServer(preload=("without_prctl",) if sys.argv[1] == "without_prctl" else ())
async def main():
    model = await start_isolated("tests.service.isolation_models:load", name="m", server=server)
    await model.hold(sys.argv[2])
    return model
async def last():
    print(server.pid, flush=True)
    await asyncio.gather(model.hang_holding(sys.argv[2]), return_exceptions=True)
    sys.stdin.read()
model = asyncio.run(main())
"""


@contextlib.contextmanager
def running(rest: str, life: Life, *flags: str, variant: str = "", path: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run the script with ``rest`` behind it; it is killed if it does not end by itself."""
    with subprocess.Popen(
        [sys.executable, *flags, "-c", SCRIPT + textwrap.dedent(rest), variant, life.path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def outcome(rest: str, life: Life, *flags: str) -> tuple[int, str, str]:
    """Return exit code, output and errors of the script."""
    with running(rest, life, *flags) as process:
        output, errors = process.communicate(timeout=END_LIMIT_S)
    return process.returncode, output, errors


@pytest.mark.parametrize("variant", ["", "without_prctl"])
@pytest.mark.parametrize("victim", ["parent", "server"])
def test_nothing_survives_a_kill(victim: str, variant: str, tmp_path: Path) -> None:
    module(tmp_path, "without_prctl", WITHOUT_PRCTL)
    life = Life(tmp_path)
    with running("asyncio.run(last())", life, variant=variant, path=str(tmp_path)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        server_pid = int(process.stdout.readline())
        assert life.has_begun()
        os.kill({"parent": process.pid, "server": server_pid}[victim], signal.SIGKILL)
        assert life.is_over()
        process.kill()
        assert process.stderr.read() == ""  # which the fork server holds open as long as it lives


def test_an_interpreter_that_ends_takes_its_models_along(tmp_path: Path) -> None:
    life = Life(tmp_path)
    idle = "other = ForkServer()\nother.start()"
    assert outcome(idle, life, "-X", "dev", "-W", "error") == (0, "", "")
    assert life.is_over()


def test_an_interpreter_that_ends_with_a_call_under_way_does_too(tmp_path: Path) -> None:
    life = Life(tmp_path)
    rest = """
        async def end():
            asyncio.create_task(model.hang())
            await asyncio.sleep(0)
            sys.exit(7)
        asyncio.run(end())
    """
    assert outcome(rest, life, "-X", "dev") == (7, "", "")
    assert life.is_over()


def test_the_interpreters_options_go_along(tmp_path: Path) -> None:
    rest = "print(asyncio.run(model.interpreter()))"
    found = outcome(rest, Life(tmp_path), "-X", "dev", "-W", "error::UserWarning")
    assert found == (0, "[True, ['default', 'error::UserWarning']]\n", "")


def test_a_fork_of_the_parent_cannot_use_or_harm_its_models(tmp_path: Path) -> None:
    rest = """
        async def ask():
            return await model.later(1)
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(ask())
            except Exception as exc:
                print(type(exc).__name__, flush=True)
            model.kill()
            server.close()
            async def own():
                again = await start_isolated("tests.service.isolation_models:load", name="m", server=server)
                print(await again.later(2), flush=True)
                await again.close()
            asyncio.run(own())
            server.close()
            sys.exit(0)
        os.waitpid(pid, 0)
        print(asyncio.run(ask()))
    """
    life = Life(tmp_path)
    assert outcome(rest, life, "-W", "ignore::DeprecationWarning") == (0, "NotStartedError\n3\n2\n", "")
    assert life.is_over()


@pytest.mark.parametrize("begin", ["", "server.start()\n"])
def test_a_parent_without_standard_streams_has_models_too(begin: str, tmp_path: Path) -> None:
    life = Life(tmp_path)
    script = SCRIPT.replace("async def main", begin + "async def main")  # before the numbers are taken, or after
    rest = f"Path({str(tmp_path / 'answer')!r}).write_text(str(asyncio.run(model.later(1))))"
    command = [sys.executable, "-c", script + rest, "", life.path]
    subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command], cwd=ROOT, check=True, timeout=END_LIMIT_S)
    assert (tmp_path / "answer").read_text(encoding="utf-8") == "2"
    assert life.is_over()


def test_without_prctl_the_end_has_its_time_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(tmp_path, "without_prctl", WITHOUT_PRCTL)
    monkeypatch.syspath_prepend(str(tmp_path))
    server = ForkServer(preload=("without_prctl",))
    gate = Gate(tmp_path)

    async def scenario() -> None:
        model = await start(server)
        await model.end_through(gate.path)
        closing = asyncio.create_task(model.close())
        assert await gate.until_running() == "ending"
        gate.let_go("")
        assert (await closing).exit_code == 0

    asyncio.run(scenario())
    server.close()
    gate.close()


@pytest.mark.parametrize("lost", ["link", "parent"])
def test_where_the_kernel_does_not_tell_it_is_looked_for(lost: str) -> None:
    ours, theirs = socket.socketpair()
    parent = "os.getppid()" if lost == "link" else "1 << 30"
    script = (
        "import os, sys, threading\nfrom ondol.models.isolation.prctl import watch_hangup\n"
        f"print('watching', flush=True)\nwatch_hangup(int(sys.argv[1]), {parent})\nthreading.Event().wait()"
    )
    with (
        ours,
        subprocess.Popen(
            [sys.executable, "-c", script, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        theirs.close()
        assert process.stdout is not None
        assert process.stdout.readline() == "watching\n"
        if lost == "link":
            ours.close()
        try:
            assert process.wait(END_LIMIT_S) == 1
        finally:
            process.kill()
