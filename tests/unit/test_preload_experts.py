from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from ondol.preload.experts import SAMPLED_MODELS, Experts, Ghost
from ondol.preload.gaps import GapPrior
from ondol.preload.track import Track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MB = 1_000_000


def track(name: str, size_bytes: int = 10, load_s: float = 1.0) -> Track:
    found = Track(name)
    found.describe(size_bytes, load_s, 5)
    return found


def by_name(found: Track, _now_s: float) -> float:
    """The later in the alphabet the worthier."""
    return float(ord(found.name[0]))


def least_recently(found: Track, _now_s: float) -> float:
    return found.last_s


def ghost_of(budget_bytes: float, index: Callable[[Track, float], float] = by_name) -> Ghost:
    ghost = Ghost(index)
    ghost.budget_bytes = budget_bytes
    return ghost


def requested(ghost: Ghost, tracks: Iterable[Track]) -> None:
    for at_s, found in enumerate(tracks):
        found.last_s = float(at_s)
        ghost.request(found, float(at_s))


def test_a_ghost_loses_the_loading_of_what_it_does_not_hold() -> None:
    a, b, c = track("a", load_s=2.0), track("b", load_s=3.0), track("c", load_s=5.0)
    ghost = ghost_of(20)
    requested(ghost, [a, b, a, b])  # a and b miss once
    assert (ghost.misses, ghost.loss_s, ghost.used_bytes) == (2, 5.0, 20)
    requested(ghost, [c])  # a, worth least, leaves
    assert (ghost.misses, ghost.loss_s, set(ghost.held)) == (3, 10.0, {"b", "c"})
    requested(ghost, [b, c, a])  # then b leaves, for what is new always comes in
    assert (ghost.misses, ghost.loss_s, set(ghost.held)) == (4, 12.0, {"a", "c"})


def test_a_ghost_keeps_what_need_not_leave() -> None:
    a, b, c, big = track("a", 10), track("b", 30), track("c", 40), track("z", 60)
    ghost = ghost_of(100)
    requested(ghost, [a, b, c])
    requested(ghost, [big])  # 40 bytes are missing: a and b have them together exactly
    assert set(ghost.held) == {"c", "z"}
    other = ghost_of(100)
    requested(other, [a, b, c, track("y", 50)])  # 30 are missing: a and b have 40, so a can stay
    assert set(other.held) == {"a", "c", "y"}
    assert other.used_bytes == 100


def test_a_ghost_does_not_take_in_what_is_larger_than_all_of_it() -> None:
    ghost = ghost_of(20)
    requested(ghost, [track("a"), track("z", 21), track("z", 21)])
    assert set(ghost.held) == {"a"}
    assert ghost.misses == 3


def test_old_losses_count_half() -> None:
    ghost = ghost_of(10)
    requested(ghost, [track("a", load_s=3.0), track("b", load_s=4.0), track("c")])
    ghost.halve()
    assert (ghost.loss_s, ghost.misses) == (4.0, 1)


def test_what_is_dropped_gives_its_bytes_back() -> None:
    ghost = ghost_of(100)
    requested(ghost, [track("a", 30), track("b", 40)])
    assert ghost.drop("a").name == "a"
    assert (ghost.used_bytes, set(ghost.held)) == (40, {"b"})


def admitted(experts: Experts, count: int, draw: random.Random) -> dict[str, Track]:
    tracks: dict[str, Track] = {}
    for index in range(count):
        found = track(f"model-{index}", draw.randrange(1, 100) * MB)
        tracks[found.name] = found
        experts.admit(found, tracks.values())
        sampled = sum(other.is_sampled for other in tracks.values()) if index % 97 == 0 or index < 300 else 0
        assert sampled <= SAMPLED_MODELS
        if index < SAMPLED_MODELS:
            assert sampled == index + 1
    return tracks


@pytest.mark.parametrize("count", [100, 129, 5000])
def test_the_sample_stays_small_and_has_its_share_of_the_budget(count: int) -> None:
    draw = random.Random(count)
    experts = Experts({"hazard": by_name, "frequency": least_recently})
    tracks = admitted(experts, count, draw)
    sampled = [found for found in tracks.values() if found.is_sampled]
    assert min(count, SAMPLED_MODELS) // 3 <= len(sampled) <= SAMPLED_MODELS
    budget_bytes = 1000 * MB
    experts.share(budget_bytes, tracks.values())
    part = sum(found.size_bytes for found in sampled) / sum(found.size_bytes for found in tracks.values())
    for ghost in experts.ghosts.values():
        assert ghost.budget_bytes == pytest.approx(budget_bytes * part)


def test_what_leaves_the_sample_leaves_the_ghosts() -> None:
    draw = random.Random(1)
    experts = Experts({"hazard": by_name, "frequency": least_recently})
    tracks = admitted(experts, SAMPLED_MODELS, draw)
    experts.share(10**12, tracks.values())
    for found in tracks.values():
        experts.request(found, 1.0)
    assert all(len(ghost.held) == SAMPLED_MODELS for ghost in experts.ghosts.values())
    for index in range(1000):
        found = track(f"late-{index}", MB)
        tracks[found.name] = found
        experts.admit(found, tracks.values())
    for ghost in experts.ghosts.values():
        assert all(tracks[name].is_sampled for name in ghost.held)
        assert ghost.used_bytes == sum(found.size_bytes for found in ghost.held.values())
        assert len(ghost.held) < SAMPLED_MODELS


def test_without_a_budget_or_bytes_there_is_no_share() -> None:
    experts = Experts({"hazard": by_name, "frequency": least_recently})
    experts.share(None, [track("a")])
    assert {ghost.budget_bytes for ghost in experts.ghosts.values()} == {0.0}
    experts.share(100, [])
    assert {ghost.budget_bytes for ghost in experts.ghosts.values()} == {0.0}


def in_a_circle(experts: Experts, count: int, rounds: int) -> list[bool]:
    """Uses of ``count`` models by turns, room for all but one of them: least recently used is always wrong."""
    tracks = {name: track(name) for name in "abcdefgh"[:count]}
    for found in tracks.values():
        experts.admit(found, tracks.values())
    experts.share(10 * (count - 1), tracks.values())
    changes = []
    for at in range(rounds * count):
        found = list(tracks.values())[at % count]
        found.note_use(float(at), at, GapPrior())
        changes.append(experts.request(found, float(at)))
    return changes


def test_the_expert_changes_once_when_the_other_is_clearly_better() -> None:
    experts = Experts({"recency": least_recently, "alphabet": by_name})
    changes = in_a_circle(experts, 4, 300)
    assert experts.chosen == "alphabet"
    assert experts.changes == changes.count(True) == 1
    losses = {name: ghost.loss_s for name, ghost in experts.ghosts.items()}
    assert losses["alphabet"] < 0.97 * losses["recency"]


def test_the_expert_stays_when_the_other_is_not_better() -> None:
    alike = Experts({"one": by_name, "other": by_name})
    assert not any(in_a_circle(alike, 4, 300))
    better = Experts({"alphabet": by_name, "recency": least_recently})
    assert not any(in_a_circle(better, 4, 300))
    assert (alike.chosen, better.chosen, better.changes) == ("one", "alphabet", 0)


def test_the_expert_does_not_change_before_enough_misses() -> None:
    experts = Experts({"recency": least_recently, "alphabet": by_name})
    changes = in_a_circle(experts, 4, 20)
    assert not any(changes)
    assert experts.chosen == "recency"


def test_losses_are_halved_so_that_an_expert_can_come_back() -> None:
    experts = Experts({"recency": least_recently, "alphabet": by_name})
    in_a_circle(experts, 4, 3000)
    assert max(ghost.misses for ghost in experts.ghosts.values()) < 2000 + 256


def test_what_is_released_is_in_no_ghost() -> None:
    experts = Experts({"one": by_name, "other": least_recently})
    found = track("a")
    experts.admit(found, [found])
    experts.share(100, [found])
    experts.request(found, 1.0)
    experts.release(found)
    experts.release(found)
    assert not any(ghost.held or ghost.used_bytes for ghost in experts.ghosts.values())
