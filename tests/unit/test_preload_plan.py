from __future__ import annotations

from ondol.preload.plan import Prospect, Wish, plan_loads


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
