from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ondol.monitor.log_queue import LineQueue

if TYPE_CHECKING:
    from ondol.monitor.log_lines import CapturedLine


def line(number: int) -> CapturedLine:
    return (float(number), "INFO", "ondol.cache", f"line {number}", {}, "")


def rung_queue(max_lines: int, patience_s: float) -> LineQueue:
    def call() -> None:
        queue.ring()

    queue = LineQueue(max_lines, patience_s, call)
    return queue


def numbers(lines: list[CapturedLine]) -> list[float]:
    return [each[0] for each in lines]


def test_only_a_line_for_an_idle_writer_calls_it() -> None:
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        queue.ring()

    queue = LineQueue(10, 0.0, call)
    for number in range(3):
        queue.put(line(number))
    assert len(calls) == 1
    assert numbers(queue.take(2)) == [0, 1]
    assert numbers(queue.take(2)) == [2]
    queue.put(line(3))
    assert len(calls) == 1  # the writer is between two batches
    queue.wait()  # returns at once: there is a line
    queue.wait()
    assert numbers(queue.take(9)) == [3]


def test_a_waiting_writer_is_woken() -> None:
    queue = rung_queue(1000, 0.0)
    found: list[float] = []

    def write() -> None:
        while len(found) < 100:
            queue.wait()
            found.extend(numbers(queue.take(7)))

    writer = threading.Thread(target=write)
    writer.start()
    for number in range(100):
        queue.put(line(number))
    writer.join(30)
    assert found == list(range(100))


def test_it_is_waited_for_room_once_and_dropped_without_waiting_then() -> None:
    queue = rung_queue(1, 0.01)
    queue.put(line(0))
    queue.put(line(1))
    assert queue.dropped == 1

    class Untouchable(threading.Condition):
        def __enter__(self) -> bool:
            raise AssertionError("waited for again")

    room, queue._room = queue._room, Untouchable()
    queue.put(line(2))
    assert queue.dropped == 2
    queue._room = room
    assert numbers(queue.take(9)) == [0]
    queue.put(line(3))
    assert numbers(queue.take(9)) == [3]
    assert queue.dropped == 2


def test_a_line_that_waits_gets_the_room_that_the_writer_makes() -> None:
    queue = rung_queue(1, 30.0)
    queue.put(line(0))
    late = threading.Thread(target=queue.put, args=(line(1),))
    late.start()
    while not queue._waiting:
        late.join(0.001)
    assert numbers(queue.take(9)) == [0]
    late.join(30)
    assert numbers(queue.take(9)) == [1]
    assert queue.dropped == 0
