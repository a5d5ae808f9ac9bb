from __future__ import annotations

from ondol.models.admission import Turn, Verdict, too_large
from ondol.models.ledger import Candidate, Ledger
from ondol.models.queue import Slots, Want, ordered


def want(name: str, *, is_demand: bool = True, priority: int = 5, position: int = 0) -> Want:
    return Want(name, is_demand, priority, position)


def turn(ledger: Ledger, *, demand: int = 4, background: int = 1, is_moving: bool = False) -> Turn:
    return Turn(ledger, Slots(demand=demand, background=background), is_anything_moving=is_moving)


def nobody() -> list[Candidate]:
    return []


def test_demand_goes_first_then_priority_then_registration() -> None:
    wants = [
        want("late", priority=5, position=2),
        want("background", is_demand=False, priority=10),
        want("early", priority=5, position=1),
        want("high", priority=6, position=3),
    ]
    assert [entry.name for entry in ordered(wants)] == ["high", "early", "late", "background"]


def test_of_equal_demands_the_one_goes_first_that_relieves_most_requests_per_second() -> None:
    wants = [
        Want("one in a second", True, 5, 0, 1.0),
        Want("crowd in long", True, 5, 1, 50 / 100),
        Want("crowd in short", True, 5, 2, 50 / 10),
        Want("as urgent, later", True, 5, 3, 1.0),
        Want("more important", True, 6, 4, 0.1),
        Want("ahead", False, 9, 5, 0.0),
    ]
    names = ["more important", "crowd in short", "one in a second", "as urgent, later", "crowd in long", "ahead"]
    assert [entry.name for entry in ordered(reversed(wants))] == names


def test_slots_of_each_kind_are_apart() -> None:
    now = turn(Ledger(), demand=1, background=1)
    verdicts = [
        now.judge(want("a"), 1, nobody).verdict,
        now.judge(want("b"), 1, nobody).verdict,
        now.judge(want("c", is_demand=False), 1, nobody).verdict,
        now.judge(want("d", is_demand=False), 1, nobody).verdict,
    ]
    assert verdicts == [Verdict.START, Verdict.WAIT, Verdict.START, Verdict.WAIT]


def test_room_that_is_being_made_is_promised_to_the_first() -> None:
    ledger = Ledger(100)
    ledger.reserve("old", 90)
    now = turn(ledger)
    first = now.judge(want("first"), 60, lambda: [Candidate("old", 90, 1)])
    second = now.judge(want("second"), 10, nobody)
    assert (first.verdict, first.victims) == (Verdict.WAIT, ("old",))
    assert second.verdict is Verdict.WAIT_FOR_LEASES  # 10 bytes are free, but they belong to the first


def test_bytes_that_leave_already_evict_nobody_else() -> None:
    ledger = Ledger(100)
    ledger.reserve("going", 50)
    ledger.settle("going", 50)
    ledger.leave("going")
    ledger.reserve("other", 50)
    admission = turn(ledger).judge(want("new"), 50, lambda: [Candidate("other", 50, 1)])
    assert (admission.verdict, admission.victims) == (Verdict.WAIT, ())


def test_a_demand_that_waits_for_leases_lets_others_pass_but_no_background() -> None:
    ledger = Ledger(100)
    ledger.reserve("leased", 60)
    now = turn(ledger)
    assert now.judge(want("large"), 50, nobody).verdict is Verdict.WAIT_FOR_LEASES
    assert now.judge(want("small"), 40, nobody).verdict is Verdict.START
    assert now.judge(want("ahead", is_demand=False), 0, nobody).verdict is Verdict.WAIT


def test_a_background_load_without_room_gives_up_with_the_figures_unless_something_moves() -> None:
    ledger = Ledger(100)
    ledger.reserve("a", 90)
    admission = turn(ledger).judge(want("b", is_demand=False), 20, lambda: [Candidate("a", 90, 1, priority=5)])
    assert admission.verdict is Verdict.NO_ROOM
    assert "20 B" in admission.reason
    assert "limit 100 B" in admission.reason
    assert turn(ledger, is_moving=True).judge(want("b", is_demand=False), 20, nobody).verdict is Verdict.WAIT


def test_a_background_load_displaces_what_it_was_told_of_whatever_its_priority() -> None:
    ledger = Ledger(100)
    ledger.reserve("a", 90)
    ahead = Want("b", is_demand=False, priority=5, position=0, displacing=frozenset({"a"}))
    admission = turn(ledger).judge(ahead, 20, lambda: [Candidate("a", 90, 1, priority=9)])
    assert (admission.verdict, admission.victims) == (Verdict.WAIT, ("a",))
    held = turn(ledger).judge(ahead, 20, lambda: [Candidate("a", 90, 1, priority=9, is_held=True)])
    assert held.verdict is Verdict.NO_ROOM


def test_too_large_names_the_figures() -> None:
    reason = too_large("big", 80, 30, 100)
    assert reason is not None
    assert "80 B" in reason
    assert "30 B" in reason
    assert "100 B" in reason
    assert too_large("big", 70, 30, 100) is None
    assert too_large("big", 10**12, 0, None) is None
