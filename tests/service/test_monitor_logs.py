from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ondol.monitor import log_writer
from ondol.monitor.logs import LogPipeline
from ondol.monitor.rotation import RotatingFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pipeline() -> Iterator[LogPipeline]:
    pipeline = LogPipeline()
    yield pipeline
    pipeline.stop()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lines_go_to_their_files(tmp_path: Path, pipeline: LogPipeline) -> None:
    pipeline.start(tmp_path / "logs", "INFO", console=False)
    logging.getLogger("ondol.cache").info("shrunk by %d", 5, extra={"fields": {"entries": 3, "이름": "한국어"}})
    logging.getLogger("ondol.preload").debug("not at this level")
    logging.getLogger("ondol.performance").warning("alert hot fired")
    logging.getLogger("uvicorn.access").info("GET /livez")
    logging.getLogger("elsewhere").error("not ours")
    try:
        raise KeyError("broken")
    except KeyError:
        logging.getLogger("ondol.models").exception("load failed")
    pipeline.stop()
    application = lines(tmp_path / "logs" / "application.log")
    assert [(line["logger"], line["level"]) for line in application] == [
        ("ondol.cache", "INFO"),
        ("ondol.performance", "WARNING"),
        ("uvicorn.access", "INFO"),
        ("ondol.models", "ERROR"),
    ]
    assert application[0]["message"] == "shrunk by 5"
    assert (application[0]["entries"], application[0]["이름"]) == (3, "한국어")
    assert "KeyError: 'broken'" in application[3]["exc"]
    assert application[0]["ts"].endswith("Z")
    assert [line["message"] for line in lines(tmp_path / "logs" / "performance.log")] == ["alert hot fired"]
    grep = subprocess.run(["grep", "cache", tmp_path / "logs" / "application.log"], capture_output=True, check=True)
    assert grep.stdout.count(b"\n") == 1


def test_no_line_is_lost_between_threads_and_stop(tmp_path: Path, pipeline: LogPipeline) -> None:
    pipeline.start(tmp_path, "INFO", console=False)

    def work(number: int) -> None:
        for count in range(1000):
            logging.getLogger(f"ondol.worker{number}").info("line", extra={"fields": {"count": count}})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipeline.stop()
    written = lines(tmp_path / "application.log")
    assert len(written) == 4000
    for number in range(4):
        own = [line["count"] for line in written if line["logger"] == f"ondol.worker{number}"]
        assert own == list(range(1000))
    assert pipeline.get_stats() == {"written": 4000, "lost": 0, "is_degraded": False}


def test_loggers_are_given_back_as_they_were(tmp_path: Path, pipeline: LogPipeline) -> None:
    logger = logging.getLogger("ondol")
    before, level = logging.StreamHandler(io.StringIO()), logger.level
    logger.addHandler(before)
    try:
        logger.setLevel(logging.ERROR)
        pipeline.start(tmp_path, "DEBUG", console=True)
        assert before not in logger.handlers
        assert logger.level == logging.DEBUG
        pipeline.stop()
        pipeline.stop()
        assert logger.handlers == [before]
        assert logger.level == logging.ERROR
    finally:
        logger.removeHandler(before)
        logger.setLevel(level)


def test_without_a_console_the_handlers_of_the_embedding_program_go_on(tmp_path: Path, pipeline: LogPipeline) -> None:
    logger, stream = logging.getLogger("uvicorn"), io.StringIO()
    before = logging.StreamHandler(stream)
    logger.addHandler(before)
    try:
        pipeline.start(tmp_path, "INFO", console=False)
        logging.getLogger("uvicorn.error").error("Exception in ASGI application")
        pipeline.stop()
        assert logger.handlers == [before]
    finally:
        logger.removeHandler(before)
    assert stream.getvalue() == "Exception in ASGI application\n"
    assert [line["message"] for line in lines(tmp_path / "application.log")] == ["Exception in ASGI application"]


def test_it_is_restartable_and_a_second_start_moves_on(tmp_path: Path, pipeline: LogPipeline) -> None:
    logger = logging.getLogger("ondol.cache")
    for folder in ("one", "two"):
        pipeline.start(tmp_path / folder, "INFO", console=False)
        logger.info("in %s", folder)
        pipeline.stop()
    pipeline.start(tmp_path / "three", "INFO", console=False)
    logger.info("in three")
    pipeline.start(tmp_path / "four", "INFO", console=False)
    logger.info("in four")
    pipeline.stop()
    for folder in ("one", "two", "three", "four"):
        assert [line["message"] for line in lines(tmp_path / folder / "application.log")] == [f"in {folder}"]
    assert [thread.name for thread in threading.enumerate() if thread.name == "ondol-logs"] == []


def test_an_unwritable_folder_costs_one_warning_and_lines_go_to_the_console(
    tmp_path: Path, pipeline: LogPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("a file, not a folder", encoding="utf-8")
    pipeline.start(tmp_path / "logs", "INFO", console=False)
    assert pipeline.is_degraded
    for number in range(3):
        logging.getLogger("ondol.cache").info("line %d", number)
    pipeline.stop()
    shown = capsys.readouterr().err
    assert shown.count("WARNING: cannot write logs to") == 1
    assert "ONDOL_LOG_DIR" in shown
    assert all(f"line {number}" in shown for number in range(3))
    assert pipeline.get_stats()["lost"] == 3


def test_files_that_can_be_written_again_are(
    tmp_path: Path, pipeline: LogPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.write_text("a file, not a folder", encoding="utf-8")
    pipeline.start(folder, "INFO", console=False)
    folder.unlink()
    logging.getLogger("ondol.cache").info("afterwards")
    pipeline.stop()
    assert [line["message"] for line in lines(folder / "application.log")] == ["afterwards"]
    assert "again" in capsys.readouterr().err


def test_the_console_shows_people_what_they_need(
    tmp_path: Path, pipeline: LogPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.start(tmp_path, "INFO", console=True)
    logging.getLogger("ondol.models").info("loaded", extra={"fields": {"model": "m"}})
    logging.getLogger("ondol.performance").info("measurements", extra={"fields": {"event": "measurements"}})
    logging.getLogger("ondol.performance").warning("alert hot fired", extra={"fields": {"event": "alert"}})
    pipeline.stop()
    captured = capsys.readouterr()
    assert captured.out == ""
    shown = captured.err.splitlines()
    assert len(shown) == 2
    assert shown[0].endswith("INFO    models      loaded  model=m")
    assert "alert hot fired" in shown[1]
    assert "\x1b" not in captured.err


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("is_quick", [True, False])
def test_a_line_that_cannot_be_formed_breaks_nobody(
    tmp_path: Path, pipeline: LogPipeline, monkeypatch: pytest.MonkeyPatch, is_quick: bool
) -> None:
    logger = logging.getLogger("ondol")
    monkeypatch.setattr(logger, "propagate", False)  # pytest's own handler would raise
    pipeline.start(tmp_path, "INFO", console=False)
    if not is_quick:
        logger.addHandler(logging.NullHandler())
    cache = logging.getLogger("ondol.cache")
    cache.info("first")
    cache.info("%d", "no number")
    cache.info("%s", Unprintable())
    cache.info("a field", extra={"fields": {"x": Unprintable(), "y": float("nan")}})
    cache.info(Unprintable())
    cache.info("next")
    pipeline.stop()
    messages = [line["message"] for line in lines(tmp_path / "application.log")]
    assert "no number" in messages[1]
    assert messages[3] == "a field"
    assert messages[-1] == "next"
    field = lines(tmp_path / "application.log")[3]
    assert "Unprintable" in field["x"]
    assert field["y"] == "nan"


def test_an_unknown_level_is_refused(tmp_path: Path, pipeline: LogPipeline) -> None:
    with pytest.raises(ValueError, match="LOUD"):
        pipeline.start(tmp_path, "LOUD", console=False)


def test_a_full_queue_makes_logging_wait_then_drops_and_counts(
    tmp_path: Path, pipeline: LogPipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_writer, "QUEUE_LINES", 2)
    monkeypatch.setattr(log_writer, "PUT_TIMEOUT_S", 0.01)
    is_writing, may_go_on = threading.Event(), threading.Event()
    write = RotatingFile.write

    def slow_write(self: RotatingFile, content: list[bytes]) -> None:
        is_writing.set()
        may_go_on.wait(10)
        write(self, content)

    monkeypatch.setattr(RotatingFile, "write", slow_write)
    pipeline.start(tmp_path, "INFO", console=False)
    logging.getLogger("ondol.cache").info("line 0")
    assert is_writing.wait(10)
    for number in range(1, 5):
        logging.getLogger("ondol.cache").info("line %d", number)
    may_go_on.set()
    pipeline.stop()
    assert [line["message"] for line in lines(tmp_path / "application.log")] == ["line 0", "line 1", "line 2"]
    assert pipeline.get_stats() == {"written": 3, "lost": 2, "is_degraded": False}
    assert "2 log line(s)" in capsys.readouterr().err


def test_a_disk_that_hangs_does_not_hold_up_the_end_for_ever(
    tmp_path: Path, pipeline: LogPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "STOP_TIMEOUT_S", 0.01)
    is_writing, may_go_on = threading.Event(), threading.Event()

    def hang(_self: RotatingFile, _lines: list[bytes]) -> None:
        is_writing.set()
        may_go_on.wait(30)

    monkeypatch.setattr(RotatingFile, "write", hang)
    pipeline.start(tmp_path, "INFO", console=False)
    logging.getLogger("ondol.cache").info("line")
    assert is_writing.wait(10)
    [writer] = [thread for thread in threading.enumerate() if thread.name == "ondol-logs"]
    pipeline.stop()
    assert writer.is_alive()
    may_go_on.set()
    writer.join(30)


def test_what_is_queued_is_written_when_the_program_ends_without_a_stop(tmp_path: Path) -> None:
    program = (
        "import logging, sys; from ondol.monitor.logs import LogPipeline\n"
        "LogPipeline().start(sys.argv[1], 'INFO', console=False)\n"
        "for n in range(500): logging.getLogger('ondol.cache').info('line %d', n)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)
    assert len(lines(tmp_path / "application.log")) == 500
