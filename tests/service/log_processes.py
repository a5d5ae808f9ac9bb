"""Processes that log, for tests and nothing else: ``python log_processes.py WHAT FOLDER NAME``."""

from __future__ import annotations

import itertools
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from ondol.monitor.logs import LogPipeline

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LINES", "MAX_BYTES", "logged_in", "start_process"]

LINES = 600
MAX_BYTES = 4_000
OLD_FILES = 2_000
logger = logging.getLogger("ondol.cache")


def start_process(what: str, folder: Path, name: str) -> subprocess.Popen[str]:
    """Start a process that does ``what``; its standard output is a pipe."""
    command = [sys.executable, __file__, what, str(folder), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def logged_in(folder: Path) -> tuple[Counter[str], list[str]]:
    """Return how often each message stands in all files of ``application.log``, and the lines that are torn."""
    messages: Counter[str] = Counter()
    torn = []
    for file in folder.glob("application.log*"):
        for line in file.read_text(encoding="utf-8").split("\n")[:-1]:
            try:
                messages[json.loads(line)["message"]] += 1
            except ValueError:
                torn.append(line)
    return messages, torn


def _log(name: str, begin: int, end: int) -> None:
    for number in range(begin, end):
        logger.info("%s %d", name, number, extra={"fields": {"number": number, "name": name}})


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _write(_pipeline: LogPipeline, name: str) -> None:
    _log(name, 0, LINES // 2)
    _say("half")
    _log(name, LINES // 2, LINES)


def _write_for_ever(_pipeline: LogPipeline, name: str) -> None:
    for number in itertools.count(step=20):
        _log(name, number, number + 20)
        _say(str(number))
        time.sleep(0.005)  # so that the old files that are kept hold all of it


def _fork(pipeline: LogPipeline, name: str) -> None:
    """Fork while lines are queued; the child ends by itself, its own child without any exit functions."""
    _log(name, 0, LINES)
    child = os.fork()
    if child == 0:
        _log(f"{name}-child", 0, LINES)
        grandchild = os.fork()
        if grandchild == 0:
            _log(f"{name}-grandchild", 0, LINES)
            pipeline.stop()
            os._exit(0)
        os.waitpid(grandchild, 0)
        _log(f"{name}-child", LINES, 2 * LINES)
        sys.exit(0)
    _log(name, LINES, 2 * LINES)
    assert os.waitpid(child, 0)[1] == 0


def _fork_in_pool(_pipeline: LogPipeline, name: str) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_log, args=(f"{name}-{number}", 0, LINES)) for number in range(2)]
    for child in children:
        child.start()
    _log(name, 0, LINES)
    for child in children:
        child.join()


def main() -> None:
    """Do what the arguments say."""
    what, folder, name = sys.argv[1:]
    pipeline = LogPipeline(max_bytes=MAX_BYTES, old_files=OLD_FILES)
    pipeline.start(folder, console=False)
    deeds = {"write": _write, "write for ever": _write_for_ever, "fork": _fork, "fork in pool": _fork_in_pool}
    deeds[what](pipeline, name)
    pipeline.stop()


if __name__ == "__main__":
    main()
