from __future__ import annotations

import copy
import json
import math
import random
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from ondol.preload.gaps import EDGES_S, MOST_BINS
from ondol.preload.knowledge import FORMAT, knowledge_of, take_in
from ondol.preload.policy import KeepWarmPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

MB = 1_000_000
PATH = tuple[str | int, ...]


def lived(names: list[str], uses: int, seed: int = 0, period_s: float = 60.0) -> tuple[KeepWarmPolicy, float]:
    """A policy that has seen uses at random, and the time after them."""
    draw = random.Random(seed)
    policy = KeepWarmPolicy(20 * MB)
    now_s = 1000.0
    for name in names:
        policy.know(name, size_bytes=10 * MB, load_s=2.0)
    for _ in range(uses):
        now_s += draw.expovariate(1.0 / period_s)
        name = draw.choice(names)
        policy.used(name, now_s)
        policy.look_at_due(now_s + 1.0)
    return policy, now_s + 1.0


def known(names: list[str], uses: int, seed: int = 0) -> dict[str, Any]:
    policy, now_s = lived(names, uses, seed)
    found: dict[str, Any] = json.loads(json.dumps(knowledge_of(policy, now_s)))
    return found


def test_what_was_learnt_is_the_same_after_a_restart() -> None:
    plain = known(["a", "b", "c"], 60)
    policy = KeepWarmPolicy()
    assert take_in(policy, plain, 5.0) == 3
    assert json.loads(json.dumps(knowledge_of(policy, 5.0))) == plain
    assert policy.events == plain["events"] == 60
    assert policy.experts.chosen == plain["expert"]


def test_a_model_takes_no_more_than_a_kibibyte() -> None:
    policy = KeepWarmPolicy()
    names = [f"sentence-transformers/some-longer-name-of-a-model-{index:04}" for index in range(20)]
    now_s = 1.0
    for name in names:
        for gap_bin in range(60, 60 + 2 * MOST_BINS):  # as many different gaps as are kept
            now_s += math.sqrt(EDGES_S[gap_bin] * EDGES_S[gap_bin + 1])
            policy.used(name, now_s)
    found = knowledge_of(policy, now_s)
    rows = found["models"].values()
    assert {len(row[-1]) for row in rows} == {2 * MOST_BINS}
    assert len(json.dumps(found["models"])) <= 1024 * len(names)
    assert len(json.dumps({**found, "models": {}})) <= 4096


def test_only_models_that_were_used_are_kept_those_used_last() -> None:
    policy = KeepWarmPolicy()
    policy.know("registered", size_bytes=MB, load_s=1.0)
    for index in range(10_050):
        policy.used(f"m{index}", float(index))
    models = knowledge_of(policy, 20_000.0)["models"]
    assert len(models) == 10_000
    assert "registered" not in models
    assert "m49" not in models
    assert next(iter(models)) == "m50"
    assert list(models)[-1] == "m10049"


def test_downtime_is_no_gap() -> None:
    policy = KeepWarmPolicy()
    for index in range(20):
        policy.used("timer", 600.0 * index)
    plain = json.loads(json.dumps(knowledge_of(policy, 600.0 * 19 + 100.0)))  # 100 s after the last use
    later = KeepWarmPolicy()
    take_in(later, plain, 5e6)  # however long nobody ran, on a clock of its own
    track = later.tracks["timer"]
    assert 5e6 - track.last_s == pytest.approx(100.0)
    before = track.gaps.bins()
    later.used("timer", 5e6 + 500.0)
    assert [gap_bin for gap_bin, _ in later.tracks["timer"].gaps.bins()] == [gap_bin for gap_bin, _ in before]


def test_an_age_before_the_start_of_the_clock_is_no_trouble() -> None:
    plain = known(["a"], 30)
    policy = KeepWarmPolicy()
    take_in(policy, plain, 0.0)
    assert policy.tracks["a"].last_s < 0.0
    policy.loaded("a", 0.5)
    policy.used("a", 1.0)
    assert policy.worth_of("a", 2.0) > 0.0


def test_the_one_that_knows_more_of_a_model_wins() -> None:
    policy, now_s = lived(["a", "b"], 40)
    counts = {name: policy.tracks[name].count for name in ("a", "b")}
    poorer, richer = known(["a", "b"], 6, seed=1), known(["a", "b"], 400, seed=2)
    poorer["models"]["new"] = poorer["models"]["a"]
    assert take_in(policy, poorer, now_s) == 1  # only the new one
    assert {name: policy.tracks[name].count for name in ("a", "b")} == counts
    assert policy.events == 40
    assert take_in(policy, richer, now_s) == 2
    assert policy.events == 400
    assert policy.tracks["a"].count == richer["models"]["a"][2]
    assert take_in(policy, richer, now_s) == 0  # a second time there is nothing new


def test_a_model_used_here_last_is_not_made_older_by_another_that_knows_more() -> None:
    policy = KeepWarmPolicy()
    policy.used("a", 1000.0)
    richer = known(["a", "b"], 400)
    richer["models"]["a"][:2] = [500.0, 300]
    take_in(policy, richer, 1001.0)
    track = policy.tracks["a"]
    assert track.last_s == 1000.0
    assert policy.events - track.last_event <= 1, "in seconds it is fresh, in events it is 300 old"


def test_models_of_which_more_is_known_here_do_not_age_by_the_uses_of_another() -> None:
    policy = KeepWarmPolicy(20 * MB)
    for index in range(10):
        policy.used("mine", 10.0 * index)
    take_in(policy, known(["other"], 5000), 100.0)
    track = policy.tracks["mine"]
    assert policy.events - track.last_event <= 1, "it was the last used, and counts as 5000 events old"


def test_the_order_is_the_same_after_a_restart() -> None:
    names = [f"m{index}" for index in range(8)]
    first = KeepWarmPolicy()
    take_in(first, known(names, 200), 100.0)
    second = KeepWarmPolicy()
    take_in(second, json.loads(json.dumps(knowledge_of(first, 100.0))), 7e7)
    orders = []
    for policy, now_s in ((first, 100.0), (second, 7e7)):
        for place, name in enumerate(names):
            policy.know(name, size_bytes=(place + 1) * MB, load_s=2.0)
            policy.loaded(name, now_s)
        with closing(policy.coldest_first(now_s + 1.0)) as found:
            orders.append(list(found))
    assert orders[0] == orders[1]


@pytest.mark.parametrize("other", [None, 0, 2, "1", [], math.nan])
def test_another_format_is_refused(other: Any) -> None:
    plain = {**known(["a"], 5), "format": other}
    with pytest.raises(ValueError, match="format"):
        take_in(KeepWarmPolicy(), plain, 1.0)
    assert FORMAT == 1


GARBAGE: list[Any] = [None, "x", -1, -0.5, math.nan, math.inf, 1e308, 10**400, [], {}, [[]], True]
REFUSED: dict[PATH, list[Any]] = {
    ("models",): [None, [], "x", 5],
    ("models", "a"): [None, {}, [], "x", [1.0, 2, 3]],
    ("models", "a", 0): [None, "1", -1.0, math.nan, math.inf, True, []],
    ("models", "a", 1): [None, "1", -1, 1.0, True],
    ("models", "a", 2): [None, "1", 0, -1, 1.0, True],
    ("models", "a", 3): [None, "1", -1.0, math.nan, math.inf],
    ("models", "a", 4): [None, "1", -1.0, math.nan, math.inf],
    ("models", "a", 5): [None, "1", {}, [1], [1, None], [1.0, 1.0], [-1, 1.0], [10_000, 1.0], [1, -1.0]],
    ("events",): [None, "1", -1, 1.5, True],
    ("least_s",): [None, "1", -1.0, math.nan, math.inf],
    ("prior",): [None, [], {}, "x", [1, 2, 3]],
    ("prior", 0, 0): [None, "1", -1.0, math.nan, math.inf],
    ("prior", 2, 22): [None, "1", -1.0, math.nan, math.inf],
    ("trust",): [None, [], {}, "x", 5],
    ("trust", 0): [None, "x", -1.0, math.nan, math.inf],
    ("trust", 1): [None, [], [[1, 1]], "x"],
    ("trust", 1, 3): [None, [1], [1.0, 2.0], [1.0, -1.0], [math.nan, 0.0], "x"],
}
MUST_REFUSE = [(path, value) for path, values in REFUSED.items() for value in values]


def mutated(plain: dict[str, Any], path: PATH, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(plain)
    place: Any = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return changed


def paths_of(plain: Any, so_far: PATH = ()) -> Iterator[PATH]:
    """Yield the way to every part."""
    if so_far:
        yield so_far
    steps: list[str | int] = []
    if isinstance(plain, dict):
        steps = list(plain)
    elif isinstance(plain, list):
        steps = list(range(len(plain)))
    for step in steps:
        yield from paths_of(plain[step], (*so_far, step))


def check_untouched(policy: KeepWarmPolicy, before: dict[str, Any], now_s: float) -> None:
    assert json.dumps(knowledge_of(policy, now_s)) == json.dumps(before)


@pytest.mark.parametrize(("path", "value"), MUST_REFUSE, ids=str)
def test_damaged_parts_are_refused_and_nothing_is_taken_in(path: PATH, value: Any) -> None:
    plain = known(["a", "b"], 60)
    policy, now_s = lived(["b", "c"], 10, seed=3)
    before = copy.deepcopy(knowledge_of(policy, now_s))
    with pytest.raises(ValueError, match=r"damaged|format"):
        take_in(policy, mutated(plain, path, value), now_s)
    check_untouched(policy, before, now_s)


@pytest.mark.parametrize("part", ["format", "events", "least_s", "prior", "trust", "models"])
def test_a_missing_part_is_refused(part: str) -> None:
    plain = known(["a", "b"], 60)
    del plain[part]
    policy, now_s = lived(["b", "c"], 10, seed=3)
    before = copy.deepcopy(knowledge_of(policy, now_s))
    with pytest.raises(ValueError, match=r"damaged|format"):
        take_in(policy, plain, now_s)
    check_untouched(policy, before, now_s)


def test_damaged_precision_is_refused_also_when_it_would_not_be_taken_over() -> None:
    plain = mutated(known(["a"], 5), ("trust",), "x")
    policy, now_s = lived(["b"], 10)
    with pytest.raises(ValueError, match="damaged"):
        take_in(policy, plain, now_s)
    assert "a" not in policy.tracks


def check_usable(policy: KeepWarmPolicy, now_s: float) -> None:
    for name in ("a", "b", "c", "new"):
        policy.used(name, now_s + 1.0)
        policy.know(name, size_bytes=5 * MB, load_s=1.0)
        policy.loaded(name, now_s + 2.0)
    policy.propose(now_s + 3.0, MB)
    with closing(policy.coldest_first(now_s + 4.0)) as found:
        assert sorted(found) == ["a", "b", "c", "new"]
    for expert in ("hazard", "frequency"):
        policy.take_over(policy.prior, expert, policy.least_s, policy.events)
        for name in policy.tracks:
            assert policy.worth_of(name, now_s + 5.0) >= 0.0
    for name in ("a", "b"):
        policy.left(name, now_s + 6.0)
    json.dumps(knowledge_of(policy, now_s + 7.0), allow_nan=False)


@pytest.mark.parametrize("value", GARBAGE, ids=lambda value: str(value)[:12])
def test_any_garbage_anywhere_is_refused_or_harmless(value: Any) -> None:
    """Refused with ``ValueError`` and nothing taken in, or else the policy works on."""
    plain = known(["a", "b"], 60)
    faults: dict[str, str] = {}
    for path in paths_of(plain):
        policy, now_s = lived(["b", "c"], 10, seed=3)
        before = copy.deepcopy(knowledge_of(policy, now_s))
        try:
            try:
                take_in(policy, mutated(plain, path, value), now_s)
            except ValueError:
                check_untouched(policy, before, now_s)
            else:
                check_usable(policy, now_s)
        except Exception as exc:  # noqa: BLE001  # all of them are wanted, with their places
            faults[".".join(map(str, path))] = f"{type(exc).__name__}: {exc}"[:80]
    assert not faults


def test_a_prior_of_zeros_is_refused_or_harmless() -> None:
    plain = known(["a", "b"], 60)
    plain["prior"] = [[0.0] * len(row) for row in plain["prior"]]
    policy, now_s = lived(["b", "c"], 10, seed=3)
    before = copy.deepcopy(knowledge_of(policy, now_s))
    try:
        take_in(policy, plain, now_s)
    except ValueError:
        check_untouched(policy, before, now_s)
    else:
        check_usable(policy, now_s)
