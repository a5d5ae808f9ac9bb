from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from ondol.errors import MonitorError
from ondol.monitor.silences import MAX_SILENCE_S, MAX_SILENCES, Silence, SilenceBook, matcher_refusals

DISK = {"alertname": "disk_full", "severity": "critical", "team": "data"}


class Scene:
    def __init__(self) -> None:
        numbers = itertools.count(1)
        self.book = SilenceBook(lambda: f"s{next(numbers)}")
        self.now_s = 100.0
        self.wall_s = 1e9

    def add(self, matchers: Any = None, duration_s: Any = 60.0, **more: Any) -> Silence:
        matchers = {"alertname": "disk_*"} if matchers is None else matchers
        return self.book.add(matchers, duration_s, now_s=self.now_s, wall_s=self.wall_s, **more)

    def found(self, labels: dict[str, str] | None = None) -> str | None:
        silence = self.book.find(DISK if labels is None else labels, self.now_s)
        return None if silence is None else silence.id


@pytest.mark.parametrize(
    ("matchers", "is_matching"),
    [
        ({"alertname": "disk_full"}, True),
        ({"alertname": "disk_*"}, True),
        ({"alertname": "*"}, True),
        ({"alertname": "disk_ful[lm]"}, True),
        ({"alertname": "disk_ful?", "team": "data"}, True),
        ({"alertname": "DISK_*"}, False),
        ({"alertname": "disk"}, False),
        ({"alertname": "disk_*", "team": "web"}, False),
        ({"route": "*"}, False),  # a label that is not there fits nothing
    ],
)
def test_matchers_are_globs_that_must_all_fit(matchers: dict[str, str], is_matching: bool) -> None:
    scene = Scene()
    scene.add(matchers)
    assert (scene.found() is not None) is is_matching


def test_a_silence_ends() -> None:
    scene = Scene()
    scene.add(duration_s=60)
    scene.now_s += 59.9
    assert scene.found() == "s1"
    scene.now_s += 0.1
    assert scene.found() is None
    assert scene.book.current(scene.now_s) == []
    assert scene.book.remove("s1", scene.now_s) is False


def test_a_silence_may_begin_later() -> None:
    scene = Scene()
    silence = scene.add(duration_s=60, starts_in_s=30)
    assert (silence.starts_at, silence.ends_at) == (1e9 + 30, 1e9 + 90)
    assert scene.found() is None
    assert [row["state"] for row in scene.book.states(scene.now_s)] == ["future"]
    scene.now_s += 30
    assert scene.found() == "s1"
    (row,) = scene.book.states(scene.now_s)
    assert (row["state"], row["ends_in_seconds"]) == ("active", 60.0)
    scene.now_s += 60
    assert scene.found() is None


def test_a_machine_clock_that_is_set_neither_ends_nor_prolongs_a_silence() -> None:
    scene = Scene()
    scene.add(duration_s=60)
    for wall_s in (0.0, 2e9):
        scene.wall_s = wall_s
        assert scene.found() == "s1"
    scene.add({"alertname": "other"})
    assert [silence.id for silence in scene.book.current(scene.now_s)] == ["s1", "s2"]


def test_a_silence_can_be_ended_by_hand_once() -> None:
    scene = Scene()
    scene.add()
    assert scene.book.remove("s1", scene.now_s) is True
    assert scene.book.remove("s1", scene.now_s) is False
    assert scene.found() is None


def test_of_several_that_fit_the_one_that_ends_last_is_named() -> None:
    scene = Scene()
    scene.add(duration_s=60)
    scene.add({"severity": "critical"}, duration_s=600)
    scene.add({"team": "data"}, duration_s=300)
    assert scene.found() == "s2"


def test_a_silence_keeps_what_was_said_of_it() -> None:
    scene = Scene()
    matchers = {"alertname": "disk_*"}
    silence = scene.add(matchers, 3600.0, comment="the disk is being replaced", created_by="ondol")
    matchers["alertname"] = "*"
    assert silence == Silence("s1", {"alertname": "disk_*"}, 1e9, 1e9 + 3600.0, "the disk is being replaced", "ondol")
    assert json.loads(json.dumps(silence.as_dict()))["matchers"] == {"alertname": "disk_*"}
    with pytest.raises(TypeError):
        silence.matchers["alertname"] = "*"  # type: ignore[index]  # on purpose


def test_their_number_is_bounded_and_ended_ones_make_room() -> None:
    scene = Scene()
    for number in range(MAX_SILENCES):
        scene.add(duration_s=60.0 + number)
    with pytest.raises(MonitorError, match=r"200 silences already.*broader pattern"):
        scene.add()
    scene.now_s += 60.0
    scene.add()
    with pytest.raises(MonitorError, match="200 silences already"):
        scene.add()


def test_an_id_is_never_given_twice_and_a_source_that_repeats_itself_is_an_error() -> None:
    ids = iter(["a", "a", "b"])
    book = SilenceBook(lambda: next(ids))
    first, second = (book.add({"a": "b"}, 60.0, now_s=0.0, wall_s=0.0) for _ in range(2))
    assert (first.id, second.id) == ("a", "b")
    stuck = SilenceBook(lambda: "a")
    stuck.add({"a": "b"}, 60.0, now_s=0.0, wall_s=0.0)
    with pytest.raises(MonitorError, match="repeats itself"):
        stuck.add({"a": "b"}, 60.0, now_s=0.0, wall_s=0.0)


@pytest.mark.parametrize(
    "duration_s", [0, 0.0, -1.0, float("nan"), float("inf"), MAX_SILENCE_S + 1, 10**400, "60", None, True]
)
def test_an_end_is_compulsory(duration_s: object) -> None:
    scene = Scene()
    with pytest.raises(MonitorError, match=r"duration_s=.*> 0 and at most 31536000 \(365 days\)"):
        scene.add(duration_s=duration_s)
    assert scene.book.current(scene.now_s) == []


def test_the_longest_silence_is_allowed() -> None:
    assert Scene().add(duration_s=MAX_SILENCE_S).ends_at == 1e9 + MAX_SILENCE_S


@pytest.mark.parametrize(
    "matchers", [{}, [], "alertname", {"": "a"}, {"a": ""}, {"a": 5}, {5: "a"}, {"a": "x" * 201},
                 {f"l{number}": "a" for number in range(17)}]
)  # fmt: skip
def test_matchers_that_cannot_be_are_refused(matchers: object) -> None:
    assert len(list(matcher_refusals(matchers))) == 1
    with pytest.raises(MonitorError, match=r"silence: matchers.*is not allowed"):
        Scene().add(matchers)


@pytest.mark.parametrize(
    ("field", "value"), [("comment", "x" * 1001), ("comment", None), ("created_by", "x" * 201), ("starts_in_s", -1)]
)
def test_other_fields_are_checked_too(field: str, value: object) -> None:
    with pytest.raises(MonitorError, match=f"silence: {field}=.*is not allowed"):
        Scene().add(**{field: value})
