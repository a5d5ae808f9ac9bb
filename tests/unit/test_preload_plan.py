from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ondol.preload.plan import Prospect, Room, Wish, find_hopeless, plan_loads


def wish(name: str, priority: int = 5, rate: float = 0.0, position: int = 0) -> Wish:
    return Wish(name, priority, rate, position)


def test_priority_then_learned_use_then_order() -> None:
    names = ("plain", "used", "high", "later")
    wishes = [
        wish("plain", position=0),
        wish("used", rate=2.0, position=1),
        wish("high", 9, position=2),
        wish("later", position=3),
    ]
    plan = plan_loads(wishes, {name: Prospect(()) for name in names}, failed=(), loading=())
    assert plan.loads == ("high", "used", "plain", "later")


def test_a_dependency_goes_first_with_the_urgency_of_who_waits() -> None:
    known = {"app": Prospect(("base",)), "base": Prospect(()), "other": Prospect(())}
    wishes = [wish("other", 7), wish("base", 1, position=1), wish("app", 8, position=2)]
    plan = plan_loads(wishes, known, failed=(), loading=())
    assert plan.loads == ("base", "other")
    assert plan.waiting == ("app",)


def test_a_dependency_nobody_wished_for_is_loaded_too() -> None:
    plan = plan_loads([wish("app")], {"app": Prospect(("base",)), "base": Prospect(())}, failed=(), loading=())
    assert plan.loads == ("base",)


def test_what_is_ready_or_loading_is_not_loaded_again() -> None:
    known = {"app": Prospect(("base",)), "base": Prospect((), is_ready=True), "slow": Prospect(())}
    plan = plan_loads([wish("app"), wish("slow")], known, failed=(), loading=("slow",))
    assert plan.loads == ("app",)
    assert plan.waiting == ()


def test_missing_and_failed_dependencies_block_and_are_named() -> None:
    known = {"a": Prospect(("gone",)), "b": Prospect(("broken",)), "broken": Prospect(()), "ok": Prospect(())}
    plan = plan_loads([wish("a"), wish("b"), wish("ok"), wish("unknown")], known, failed=("broken",), loading=())
    assert plan.blocked == {"a": ["gone"], "b": ["broken"], "unknown": ["unknown"]}
    assert plan.loads == ("ok",)


def test_a_failed_dependency_that_is_ready_meanwhile_blocks_nobody() -> None:
    known = {"b": Prospect(("base",)), "base": Prospect((), is_ready=True)}
    assert plan_loads([wish("b")], known, failed=("base",), loading=()).loads == ("b",)


def test_what_fits_not_even_alone_is_found_before_anything_is_ordered() -> None:
    known = {
        **{f"big{index}": Prospect((), size_bytes=200) for index in range(3000)},
        "needs": Prospect(("base",), size_bytes=60),
        "base": Prospect((), size_bytes=60),
        "app": Prospect(("gone",), size_bytes=500),
        "urgent": Prospect((), size_bytes=150),
        "fits": Prospect((), size_bytes=80),
        "beside": Prospect((), size_bytes=80),
        "coming": Prospect((), size_bytes=500),
    }
    room = Room(100, {3: 50})
    asked = [(name, 9 if name == "urgent" else 3) for name in (*known, "unknown")]
    hopeless = find_hopeless(asked, known, failed=(), loading=("coming",), room=room)
    assert hopeless.keys() == {*(f"big{index}" for index in range(3000)), "needs"}
    left = [
        wish(name, priority, position=place) for place, (name, priority) in enumerate(asked) if name not in hopeless
    ]
    plan = plan_loads(left, known, failed=(), loading=("coming",), room=room, hopeless=hopeless)
    assert plan.blocked == {"app": ["gone"], "unknown": ["unknown"]}
    assert plan.loads == ("urgent",)
    assert plan.left_out.keys() == hopeless.keys() | {"base", "fits", "beside"}
    assert plan.left_out["needs"] == "needs 120 B, there is 100 B of room beside what is worth more"
    assert plan.left_out["beside"] == "needs 80 B, there is 0 B of room beside what is worth more"
    assert "urgent" not in plan.left_out
    assert len(plan.left_out) == len(dict(plan.left_out)) == 3004


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3), st.integers(0, 3)), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=8),
    st.integers(-10, 100),
    st.dictionaries(st.integers(1, 3), st.integers(0, 40)),
)
def test_finding_the_hopeless_first_changes_nothing(
    models: list[tuple[int, int, int]], edges: list[tuple[int, int]], free_bytes: int, idle_bytes: dict[int, int]
) -> None:
    bases = [[f"m{low}" for high, low in edges if high == place and low < place] for place in range(len(models))]
    known = {f"m{place}": Prospect(bases[place], size_bytes=size) for place, (size, _, _) in enumerate(models)}
    wishes = [wish(f"m{place}", priority, worth, place) for place, (_, priority, worth) in enumerate(models)]
    room = Room(free_bytes, idle_bytes)
    plain = plan_loads(wishes, known, failed=(), loading=(), room=room)
    asked = [(one.name, one.priority) for one in wishes]
    hopeless = find_hopeless(asked, known, failed=(), loading=(), room=room)
    rest = [one for one in wishes if one.name not in hopeless]
    quick = plan_loads(rest, known, failed=(), loading=(), room=room, hopeless=hopeless)
    assert quick[:3] == plain[:3]
    assert quick.left_out.keys() == plain.left_out.keys()


def test_what_comes_with_another_or_is_being_loaded_is_not_left_out() -> None:
    known = {"app": Prospect(("base",), size_bytes=0), "base": Prospect((), size_bytes=60), "coming": Prospect(())}
    room = Room(-10, {5: 100})
    asked = [("base", 3), ("coming", 3)]
    hopeless = find_hopeless(asked, known, failed=(), loading=("coming",), room=room)
    plan = plan_loads([wish("app", 9)], known, failed=(), loading=("coming",), room=room, hopeless=hopeless)
    assert plan.loads == ("base",)
    assert plan.waiting == ("app",)
    assert plan.left_out == {}
