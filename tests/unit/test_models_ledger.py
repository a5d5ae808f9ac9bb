from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ondol.errors import ModelBudgetError
from ondol.models.ledger import Candidate, Ledger, Phase, by_worth, choose_victims, judge_size
from ondol.models.meter import MemoryMeter
from ondol.models.queue import Want

if TYPE_CHECKING:
    from collections.abc import Generator


def test_bytes_pass_from_reserved_over_measured_and_leaving_to_free() -> None:
    ledger = Ledger(100)
    ledger.reserve("a", 40)
    assert (ledger.phase("a"), ledger.used_bytes) == (Phase.RESERVED, 40)
    assert ledger.settle("a", 60)
    assert (ledger.phase("a"), ledger.used_bytes) == (Phase.RESIDENT, 60)
    ledger.leave("a")
    assert (ledger.leaving_bytes, ledger.used_bytes) == (60, 60)
    ledger.release("a")
    assert (ledger.phase("a"), ledger.used_bytes, ledger.leaving_bytes) == (None, 0, 0)


def test_what_does_not_fit_is_not_booked() -> None:
    ledger = Ledger(100)
    ledger.reserve("a", 80)
    with pytest.raises(ModelBudgetError, match="limit 100 B"):
        ledger.reserve("b", 21)
    assert not ledger.settle("a", 101)
    assert (ledger.used_bytes, ledger.size("a"), ledger.size("b")) == (80, 80, 0)
    with pytest.raises(ModelBudgetError):
        ledger.reserve("a", 1)


def test_a_lowered_limit_shows_as_excess_and_still_lets_nothing_through_but_nothing() -> None:
    ledger = Ledger(100)
    ledger.reserve("a", 80)
    ledger.limit_bytes = 50
    assert (ledger.excess_bytes, ledger.shortage(10), ledger.shortage(0)) == (30, 40, 0)
    assert ledger.settle("a", 70)
    ledger.limit_bytes = None
    assert (ledger.excess_bytes, ledger.shortage(10**15)) == (0, 0)


def row(name: str, size: int, used: int, **fields: object) -> Candidate:
    return Candidate(name, size, used, **fields)  # type: ignore[arg-type]  # each test gives fields of their types


def test_the_least_recently_used_leaves() -> None:
    rows = [row("new", 50, 9), row("old", 50, 1), row("mid", 50, 5), row("older", 10, 1, used_at_s=-1.0)]
    assert [candidate.name for candidate in by_worth(rows)] == ["older", "old", "mid", "new"]
    assert choose_victims(by_worth(rows[:3]), 60) == ["old", "mid"]


def test_held_models_stay_and_too_little_evicts_nobody() -> None:
    rows = [row("held", 50, 1, is_held=True), row("free", 30, 2)]
    assert choose_victims(rows, 30) == ["free"]
    assert choose_victims(rows, 31) == []
    assert choose_victims(rows, 31, is_partial=True) == ["free"]
    assert choose_victims(rows, 0) == []


def test_a_small_old_model_stays_when_the_large_one_has_to_go_anyway() -> None:
    assert choose_victims([row("small", 10, 1), row("large", 100, 2)], 100) == ["large"]


def test_a_dependency_goes_only_with_its_dependents_and_after_them() -> None:
    base = row("base", 50, 1, dependents=frozenset({"app"}))
    assert choose_victims([base, row("app", 10, 5)], 55) == ["app", "base"]
    assert choose_victims([base, row("app", 10, 5, is_held=True)], 20) == []
    assert choose_victims([base, row("app", 60, 5)], 55) == ["app"]


def test_a_background_load_displaces_only_lower_priorities() -> None:
    rows = [row("equal", 50, 1, priority=5), row("lower", 50, 2, priority=4)]
    may_go = Want("new", is_demand=False, priority=5, position=0, displaces_below=5).may_displace
    assert choose_victims(rows, 40, may_go=may_go) == ["lower"]
    assert choose_victims(rows, 60, may_go=may_go) == []
    told = Want("new", is_demand=False, priority=5, position=0, displacing=frozenset({"equal"}), displaces_below=5)
    assert choose_victims(rows, 40, may_go=told.may_displace) == ["equal"]
    assert choose_victims(rows, 60, may_go=told.may_displace) == ["equal", "lower"]
    only = told._replace(displaces_below=1)
    assert choose_victims(rows, 60, may_go=only.may_displace) == []
    assert choose_victims([rows[0]._replace(is_promised=True)], 40, may_go=told.may_displace) == []
    assert choose_victims(rows, 40, may_go=Want("new", is_demand=True, priority=1, position=0).may_displace) == [
        "equal"
    ]


def test_what_leaves_anyway_is_neither_chosen_nor_waited_for() -> None:
    rows = [row("copy", 50, 1), row("base", 50, 2, dependents=frozenset({"copy"})), row("other", 50, 3)]
    assert choose_victims(rows, 40, gone={"copy"}) == ["base"]
    assert choose_victims(rows, 120, gone={"copy"}) == []


def test_no_more_candidates_are_looked_at_than_it_takes_and_the_rest_is_closed() -> None:
    pulled: list[str] = []
    closed: list[bool] = []

    def coldest_first() -> Generator[Candidate]:
        try:
            for number in range(1000):
                pulled.append(f"m{number}")
                yield row(f"m{number}", 10, number, is_held=number == 1)
        finally:
            closed.append(True)

    assert choose_victims(coldest_first(), 25) == ["m0", "m2", "m3"]
    assert (pulled, closed) == (["m0", "m1", "m2", "m3"], [True])
    assert choose_victims(coldest_first(), 0) == []
    assert len(pulled) == 4


@pytest.mark.parametrize(
    ("growth", "expected", "has_unloaded", "size"),
    [
        (None, 70, False, 70),
        (-5, 70, False, 70),
        (0, 70, True, 70),
        (50, 70, False, 50),
        (50, 70, True, 70),
        (90, 70, True, 90),
    ],
)
def test_size_is_measured_where_growth_can_be_believed(
    growth: int | None, expected: int, has_unloaded: bool, size: int
) -> None:
    assert judge_size(growth, expected, has_unloaded=has_unloaded) == size


def test_growth_is_believed_only_of_a_load_that_ran_alone() -> None:
    rss = [1000]
    meter = MemoryMeter(lambda: rss[0])
    alone = meter.begin()
    rss[0] += 7
    assert meter.end(alone) == 7
    first, second = meter.begin(), meter.begin()
    assert (meter.end(first), meter.end(second)) == (None, None)
    late = meter.begin()
    assert meter.end(late) == 0


def test_no_probe_or_a_failing_one_measures_nothing() -> None:
    def unreadable() -> int:
        raise OSError

    for meter in (MemoryMeter(None), MemoryMeter(unreadable)):
        assert meter.end(meter.begin()) is None


def test_a_model_that_would_leave_for_one_that_stays_after_all_stays_too() -> None:
    rows = [row("tiny", 5, 0, dependents=frozenset({"user"})), row("user", 5, 1), row("large", 100, 2)]
    assert choose_victims(rows, 100) == ["large"]
