from __future__ import annotations

from ondol.tuning.guard import MemoryGuard, Move, Observation
from ondol.units import MIB

BASE = 200 * MIB


class Scene:
    def __init__(self) -> None:
        self.guard = MemoryGuard()
        self.cache_bytes = BASE
        self.base_bytes = BASE
        self.is_paused = False

    def look(self, percent: float | None) -> list[str]:
        return self.apply(self.guard.look(self.seen(percent)))

    def seen(self, percent: float | None) -> Observation:
        return Observation(percent, self.cache_bytes, self.base_bytes, self.is_paused)

    def apply(self, moves: list[Move]) -> list[str]:
        for move in moves:
            if move.cache_bytes is not None:
                self.cache_bytes = move.cache_bytes
            else:
                self.is_paused = move.action == "pause"
        return [move.action for move in moves]


def test_nothing_moves_below_the_limit() -> None:
    scene = Scene()
    assert [scene.look(percent) for percent in (0.0, 50.0, 74.9, 80.0, 84.9)] == [[]] * 5
    assert scene.guard.state == "normal"


def test_pressure_halves_the_cache_down_to_the_floor_and_pauses_once() -> None:
    scene = Scene()
    assert scene.look(85.0) == ["shrink", "pause"]
    assert scene.cache_bytes == 100 * MIB
    assert scene.guard.state == "pressure"
    assert [scene.look(99.0) for _ in range(5)] == [["shrink"], ["shrink"], ["shrink"], [], []]
    assert scene.cache_bytes == 20 * MIB


def test_recovery_takes_three_safe_looks_then_steps_then_resumes() -> None:
    scene = Scene()
    scene.look(90.0)
    scene.look(90.0)
    assert scene.cache_bytes == 50 * MIB
    assert [scene.look(70.0) for _ in range(6)] == [[], [], ["restore"], ["restore"], ["restore"], ["resume"]]
    assert scene.cache_bytes == BASE
    assert scene.guard.state == "normal"
    assert scene.look(70.0) == []


def test_between_the_limits_nothing_moves_and_the_count_begins_anew() -> None:
    scene = Scene()
    scene.look(90.0)
    assert [scene.look(p) for p in (70.0, 70.0, 80.0, 70.0, 70.0)] == [[]] * 5
    assert scene.look(70.0) == ["restore"]
    assert scene.guard.state == "recovering"
    assert scene.look(75.0) == []


def test_new_pressure_while_recovering_takes_again() -> None:
    scene = Scene()
    scene.look(90.0)
    for _ in range(3):
        scene.look(60.0)
    assert scene.cache_bytes == 150 * MIB
    assert scene.look(86.0) == ["shrink"]
    assert scene.cache_bytes == 75 * MIB
    assert scene.guard.state == "pressure"


def test_missing_figures_freeze_everything() -> None:
    scene = Scene()
    scene.look(90.0)
    assert [scene.look(None) for _ in range(10)] == [[]] * 10
    assert scene.guard.state == "pressure"


def test_what_somebody_else_paused_is_not_resumed() -> None:
    scene = Scene()
    scene.is_paused = True
    assert scene.look(90.0) == ["shrink"]
    seen = [scene.look(60.0) for _ in range(6)]
    assert "resume" not in [action for actions in seen for action in actions]
    assert scene.is_paused
    assert scene.guard.state == "normal"


def test_a_small_cache_is_not_enlarged_by_its_floor() -> None:
    scene = Scene()
    scene.cache_bytes = 10 * MIB  # somebody had set it below a tenth of the configured bound
    assert scene.look(90.0) == ["pause"]
    assert [scene.look(60.0) for _ in range(3)] == [[], [], ["resume"]]
    assert scene.cache_bytes == 10 * MIB


def test_giving_back_undoes_everything_at_once() -> None:
    scene = Scene()
    scene.look(90.0)
    assert scene.apply(scene.guard.give_back(scene.seen(None), "tuning was turned off")) == ["restore", "resume"]
    assert (scene.cache_bytes, scene.is_paused, scene.guard.state) == (BASE, False, "normal")
    assert scene.guard.give_back(scene.seen(None), "again") == []


def test_sentences_hold_the_figures() -> None:
    guard = MemoryGuard()
    shrink, pause = guard.look(Observation(91.25, BASE, BASE, is_paused=False))
    assert shrink.sentence == (
        "memory is at 91.2 % (limit for tuning: 85 %): cache bound lowered from 200.0 MiB to 100.0 MiB"
    )
    assert "background preloading paused" in pause.sentence
    for _ in range(2):
        guard.look(Observation(50.0, 100 * MIB, BASE, is_paused=True))
    (restore,) = guard.look(Observation(50.0, 100 * MIB, BASE, is_paused=True))
    assert "50.0 %" in restore.sentence
    assert "100.0 MiB to 150.0 MiB" in restore.sentence
