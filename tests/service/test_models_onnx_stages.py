"""The change from the first session to the fast one, with sessions that are held where the test wants them."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ondol.errors import AlreadyClosedError, ModelError
from ondol.models.adapters.two_stage import TwoStage

SOON_S = 20


class FakeSession:
    """Answers with its name; with ``is_held`` only once ``go`` is set."""

    def __init__(self, name: str, *, is_held: bool = False) -> None:
        self.name = name
        self.begun = threading.Event()
        self.go = threading.Event()
        if not is_held:
            self.go.set()

    def run(self, output_names: Any, input_feed: Any) -> Any:
        self.begun.set()
        assert self.go.wait(SOON_S)
        if input_feed == "bad":
            raise ValueError("bad input")
        return self.name


class FakeBuilder:
    """Builds ``session`` once ``go`` is set, or fails when cancelled or told to."""

    def __init__(self, session: FakeSession, fault: Exception | None = None) -> None:
        self.session: FakeSession | None = session
        self.fault = fault
        self.begun = threading.Event()
        self.go = threading.Event()
        self.is_cancelled = False

    def build(self) -> FakeSession:
        self.begun.set()
        assert self.go.wait(SOON_S)
        if self.is_cancelled:
            raise RuntimeError("cancelled")
        if self.fault is not None:
            raise self.fault
        assert self.session is not None
        return self.session

    def cancel(self) -> None:
        self.is_cancelled = True
        self.go.set()


class Releases:
    """Counts how often memory was given back, and can be waited for."""

    def __init__(self) -> None:
        self.count = threading.Semaphore(0)

    def __call__(self) -> None:
        self.count.release()

    def wait(self) -> bool:
        return self.count.acquire(timeout=SOON_S)

    @property
    def is_none_left(self) -> bool:
        return not self.count.acquire(blocking=False)


def test_it_answers_at_once_and_changes_over() -> None:
    builder, releases = FakeBuilder(FakeSession("fast")), Releases()
    stages = TwoStage("m", FakeSession("mapped"), builder, release=releases)
    stages.start()
    assert (stages.run(None, {}), stages.stage) == ("mapped", "mapped")
    assert builder.begun.wait(SOON_S)
    assert stages.run(None, {}) == "mapped"
    builder.go.set()
    assert stages.wait_until_fast(SOON_S)
    assert (stages.run(None, {}), stages.stage) == ("fast", "fast")
    assert releases.wait()
    stages.close()
    assert releases.wait()
    assert releases.is_none_left


def test_the_build_waits_for_the_first_answer() -> None:
    builder, first = FakeBuilder(FakeSession("fast")), FakeSession("mapped", is_held=True)
    stages = TwoStage("m", first, builder, head_start_s=SOON_S, release=Releases())
    with ThreadPoolExecutor() as threads:
        stages.start()
        call = threads.submit(stages.run, None, {})
        assert first.begun.wait(SOON_S)
        assert not builder.begun.is_set()
        first.go.set()
        assert call.result(SOON_S) == "mapped"
        assert builder.begun.wait(SOON_S)
        stages.close()


def test_the_build_begins_without_any_call_after_its_patience() -> None:
    builder = FakeBuilder(FakeSession("fast"))
    builder.go.set()
    stages = TwoStage("m", FakeSession("mapped"), builder, head_start_s=0, release=Releases())
    stages.start()
    assert stages.wait_until_fast(SOON_S)
    stages.close()


def test_a_call_ends_on_the_session_it_began_with() -> None:
    first, builder, releases = FakeSession("mapped", is_held=True), FakeBuilder(FakeSession("fast")), Releases()
    builder.go.set()
    stages = TwoStage("m", first, builder, head_start_s=0, release=releases)
    with ThreadPoolExecutor() as threads:
        call = threads.submit(stages.run, None, {})
        assert first.begun.wait(SOON_S)
        stages.start()
        assert stages.wait_until_fast(SOON_S)
        assert stages.run(None, {}) == "fast"
        assert not call.done()
        assert releases.is_none_left  # the first session is still computing
        first.go.set()
        assert call.result(SOON_S) == "mapped"
        assert releases.wait()
    stages.close()


def test_a_failed_build_leaves_the_first_serving_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    builder = FakeBuilder(FakeSession("fast"), MemoryError("no room"))
    builder.go.set()
    stages = TwoStage("m", FakeSession("mapped"), builder, head_start_s=0, release=Releases())
    with caplog.at_level(logging.ERROR, "ondol.models"):
        stages.start()
        assert stages.wait_until_fast(SOON_S) is False
        stages.close()
    assert (stages.stage, stages.fault) == ("mapped", "MemoryError: no room")
    (record,) = caplog.records
    assert "the mapped one serves on" in record.message
    assert record.exc_info is not None


def test_after_a_failed_build_calls_are_answered() -> None:
    builder = FakeBuilder(FakeSession("fast"), RuntimeError("broken"))
    builder.go.set()
    stages = TwoStage("m", FakeSession("mapped"), builder, head_start_s=0, release=Releases())
    stages.start()
    stages.wait_until_fast(SOON_S)
    assert stages.run(None, {}) == "mapped"
    stages.close()


def test_closing_during_the_build_cancels_it_quietly(caplog: pytest.LogCaptureFixture) -> None:
    builder = FakeBuilder(FakeSession("fast"))
    stages = TwoStage("m", FakeSession("mapped"), builder, head_start_s=0, release=Releases())
    stages.start()
    assert builder.begun.wait(SOON_S)
    stages.close()
    assert builder.is_cancelled
    assert stages.fault is None
    assert caplog.records == []
    with pytest.raises(AlreadyClosedError):
        stages.run(None, {})


def test_closing_before_the_build_begins() -> None:
    builder = FakeBuilder(FakeSession("fast"))
    stages = TwoStage("m", FakeSession("mapped"), builder, head_start_s=SOON_S, release=Releases())
    stages.start()
    stages.close()
    assert not builder.begun.is_set()
    assert stages.wait_until_fast() is False


def test_closing_waits_for_calls_under_way() -> None:
    session, releases = FakeSession("only", is_held=True), Releases()
    stages = TwoStage("m", session, release=releases)
    with ThreadPoolExecutor() as threads:
        call = threads.submit(stages.run, None, {})
        assert session.begun.wait(SOON_S)
        closing = threads.submit(stages.close)
        while not stages.is_closed:
            pass
        assert not closing.done()
        session.go.set()
        assert call.result(SOON_S) == "only"
        closing.result(SOON_S)
    assert releases.wait()
    stages.close()
    assert releases.is_none_left  # there was nothing left to release


def test_a_fault_of_the_runtime_is_translated() -> None:
    stages = TwoStage("m", FakeSession("only"), release=Releases())
    with pytest.raises(ModelError, match="'m' could not compute: bad input") as caught:
        stages.run(None, "bad")
    assert isinstance(caught.value.__cause__, ValueError)
    stages.close()


def test_an_error_that_is_kept_holds_no_session() -> None:
    session = FakeSession("only")
    seen = weakref.ref(session)
    stages = TwoStage("m", session, release=Releases())
    with pytest.raises(ModelError) as caught:
        stages.run(None, "bad")
    stages.close()
    del session
    gc.collect()
    assert caught.value.__cause__ is not None
    assert seen() is None


def test_without_a_thread_to_build_in_the_first_serves_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stages = TwoStage("m", FakeSession("mapped"), FakeBuilder(FakeSession("fast")), release=Releases())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        stages.start()
    assert stages.fault == "RuntimeError: can't start new thread"
    assert "the mapped one serves on" in caplog.text
    assert stages.wait_until_fast(SOON_S) is False
    assert stages.run(None, {}) == "mapped"
    stages.close()


END_DURING_A_BUILD = """
import threading
from ondol.models.adapters.two_stage import TwoStage
class Builder:
    begun, go = threading.Event(), threading.Event()
    def build(self):
        self.begun.set()
        self.go.wait()
        print("the build ended")
        raise RuntimeError
    def cancel(self):
        print("cancelled")
        self.go.set()
stages = TwoStage("m", None, Builder(), head_start_s=0)
stages.start()
assert Builder.begun.wait(20)
"""


def test_the_end_of_the_process_cancels_a_build_and_waits_for_it() -> None:
    result = subprocess.run([sys.executable, "-c", END_DURING_A_BUILD], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "cancelled\nthe build ended\n", "")
