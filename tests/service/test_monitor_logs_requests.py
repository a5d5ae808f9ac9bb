from __future__ import annotations

import asyncio
import json
import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from ondol.monitor import log_lines, log_writer
from ondol.monitor.logs import LogPipeline
from ondol.request_context import RequestContext, enter_request, leave_request
from ondol.similarity.store_thread import StoreThread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = logging.getLogger("ondol.cache")


@pytest.fixture(params=["quick", "record"])
def pipeline(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LogPipeline]:
    """A pipeline that alone listens, and one beside which pytest's own handlers do."""
    monkeypatch.setattr(logging.getLogger("ondol"), "propagate", request.param == "record")
    pipeline = LogPipeline()
    pipeline.start(tmp_path, console=False)
    logger.info("first")
    yield pipeline
    pipeline.stop()


def lines(folder: Path) -> list[dict[str, Any]]:
    content = (folder / "application.log").read_text(encoding="utf-8")
    return [json.loads(line) for line in content.splitlines()][1:]


@contextmanager
def request(request_id: str, trace_id: str = "") -> Iterator[None]:
    token = enter_request(RequestContext(request_id, trace_id))
    try:
        yield
    finally:
        leave_request(token)


def test_a_line_of_a_request_says_so_unless_it_does_itself(tmp_path: Path, pipeline: LogPipeline) -> None:
    fields = {"n": 1}
    with request("r1", "t1"):
        logger.info("plain")
        logger.info("fields", extra={"fields": fields})
        logger.info("own", extra={"fields": {"request_id": "mine"}})
        logger.info("same", extra={"fields": {"request_id": "r1"}})
    with request("r2"):
        logger.info("no trace")
    logger.info("outside")
    pipeline.stop()
    found = {line["message"]: (line.get("request_id"), line.get("trace_id")) for line in lines(tmp_path)}
    assert found == {
        "plain": ("r1", "t1"),
        "fields": ("r1", "t1"),
        "own": ("mine", None),
        "same": ("r1", "t1"),
        "no trace": ("r2", None),
        "outside": (None, None),
    }
    assert fields == {"n": 1}


def test_tasks_and_threads_of_a_request_keep_its_id(tmp_path: Path, pipeline: LogPipeline) -> None:
    async def handle(request_id: str, store: StoreThread) -> None:
        with request(request_id):
            logger.info("handler")
            await asyncio.gather(asyncio.create_task(say("task")), asyncio.to_thread(logger.info, "thread"))
            await store.run(lambda _store: logger.info("store"))
            await asyncio.sleep(0)
            logger.info("end")

    async def say(message: str) -> None:
        await asyncio.sleep(0)
        logger.info(message)

    async def scenario() -> None:
        store = StoreThread(tmp_path / "documents.sqlite")
        await asyncio.gather(*(handle(f"r{number}", store) for number in range(5)))
        logger.info("outside")
        await store.close()

    asyncio.run(scenario())
    pipeline.stop()
    by_request: dict[str | None, list[str]] = {}
    for line in lines(tmp_path):
        by_request.setdefault(line.get("request_id"), []).append(line["message"])
    assert by_request.pop(None) == ["outside"]
    assert set(by_request) == {f"r{number}" for number in range(5)}
    for messages in by_request.values():
        assert sorted(messages) == ["end", "handler", "store", "task", "thread"]


def test_both_ways_of_logging_write_the_same(tmp_path: Path, pipeline: LogPipeline) -> None:
    logger.info("sum is %d of %s", 5, "다섯", extra={"fields": {"x": [1, (2,)], "message": "mine"}})
    logger.warning("a %(what)s", {"what": "mapping"})
    logger.log(logging.ERROR, "no arguments, 100 %")
    logger.debug("not at this level")
    logger.info("other extra", extra={"other": 1, "fields": {"y": 1}})
    try:
        raise KeyError("broken")
    except KeyError:
        logger.exception("failed")
    logger.info("stack", stack_info=True)
    pipeline.stop()
    found = lines(tmp_path)
    assert [(line["level"], line["message"]) for line in found] == [
        ("INFO", "sum is 5 of 다섯"),
        ("WARNING", "a mapping"),
        ("ERROR", "no arguments, 100 %"),
        ("INFO", "other extra"),
        ("ERROR", "failed"),
        ("INFO", "stack"),
    ]
    assert list(found[0]) == ["ts", "level", "logger", "message", "x", "message_"]
    assert found[0]["x"] == [1, [2]]
    assert found[3]["y"] == 1
    assert found[4]["exc"].endswith("KeyError: 'broken'")
    assert "test_both_ways_of_logging" in found[5]["exc"]


def test_loggers_are_quick_only_while_it_runs(tmp_path: Path, pipeline: LogPipeline) -> None:
    theirs = logging.getLogger("uvicorn.error")
    theirs.info("uvicorn's")
    assert type(logger) is not logging.Logger
    assert type(theirs) is logging.Logger
    pipeline.stop()
    assert type(logger) is logging.Logger


def test_who_listens_besides_gets_whole_records(
    tmp_path: Path, pipeline: LogPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[logging.LogRecord] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    monkeypatch.setattr(logger, "handlers", [Listener()])
    logger.info("line %d", 1)
    monkeypatch.undo()
    logger.addFilter(filtering := _Refusing())
    logger.info("filtered out")
    logger.removeFilter(filtering)
    [handler] = [each for each in logging.getLogger("ondol").handlers if type(each).__name__ == "QueueHandler"]
    handler.addFilter(filtering)
    logger.info("filtered out")
    handler.removeFilter(filtering)
    handler.setLevel(logging.WARNING)
    logger.info("below the handler's level")
    pipeline.stop()
    assert [line["message"] for line in lines(tmp_path)] == ["line 1"]
    assert (seen[0].filename, seen[0].funcName) == (
        "test_monitor_logs_requests.py",
        "test_who_listens_besides_gets_whole_records",
    )
    assert seen[0].threadName == threading.current_thread().name


class _Refusing(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return False


def test_lines_that_a_finalizer_logs_while_lines_are_written_are_written_too(
    tmp_path: Path, pipeline: LogPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    form, is_first, has_logged = log_lines.json_line, iter([True]), threading.Event()

    def form_and_log(line: Any) -> bytes:
        if next(is_first, False):
            logger.info("from the writer's own thread")
            has_logged.set()
        return form(line)

    monkeypatch.setattr(log_writer, "json_line", form_and_log)
    logger.info("a line")
    assert has_logged.wait(30)
    pipeline.stop()
    assert [line["message"] for line in lines(tmp_path)] == ["a line", "from the writer's own thread"]
