from __future__ import annotations

import itertools

from ondol.models.graph import Urgency, dependencies, find_cycle, inherit, load_order, missing


def test_cycle_gives_the_path() -> None:
    graph = {"b": ["x", "c"], "c": ["d"], "d": ["a"], "x": []}
    assert find_cycle(graph, "a", ["b"]) == ["a", "b", "c", "d", "a"]


def test_no_cycle_in_a_diamond_or_beside_the_start() -> None:
    assert find_cycle({"b": ["d"], "c": ["d"], "d": []}, "a", ["b", "c"]) is None
    assert find_cycle({}, "a", []) is None


def test_load_order_puts_each_after_its_dependencies_once() -> None:
    graph = {"app": ["left", "right"], "left": ["base"], "right": ["base"], "base": []}
    assert load_order(graph, ["app", "left"]) == ["base", "left", "right", "app"]
    assert dependencies(graph, "app") == ["base", "left", "right"]
    assert dependencies(graph, "base") == []


def test_unregistered_dependencies_are_missing_also_indirectly() -> None:
    graph = {"app": ["mid"], "mid": ["gone"]}
    assert missing(graph, "app") == ["gone"]
    assert missing({"app": ["mid"], "mid": []}, "app") == []


def test_a_chain_of_thousands_needs_no_recursion() -> None:
    names = [f"m{i}" for i in range(5000)]
    graph = {name: [after] for name, after in itertools.pairwise(names)} | {names[-1]: []}
    assert load_order(graph, ["m0"]) == names[::-1]
    assert find_cycle(graph, names[-1], ["m0"]) == [names[-1], *names]


def test_urgency_is_inherited_the_greatest_wins() -> None:
    graph = {"page": ["base"], "batch": ["base"], "base": []}
    asked = {"batch": Urgency(is_demand=False, priority=10), "page": Urgency(is_demand=True, priority=2)}
    assert inherit(graph, asked) == {
        "base": Urgency(is_demand=True, priority=2),
        "batch": Urgency(is_demand=False, priority=10),
        "page": Urgency(is_demand=True, priority=2),
    }


def test_a_dependency_brings_the_most_relief_of_those_that_wait_for_it() -> None:
    graph = {"page": ["base"], "crowd": ["base"], "base": []}
    asked = {"page": Urgency(True, 8, 0.1), "crowd": Urgency(True, 2, 30.0)}
    assert inherit(graph, asked)["base"] == Urgency(True, 8, 30.0)
    assert inherit(graph, dict(reversed(asked.items())))["base"] == Urgency(True, 8, 30.0)
