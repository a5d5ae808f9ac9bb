"""The ledger against a model of it: whatever is booked, the sums are right and the limit holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.errors import ModelBudgetError
from ondol.models.ledger import Candidate, Ledger, by_worth, choose_victims

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

NAMES = st.sampled_from("abcd")
SIZES = st.integers(0, 60)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), NAMES, SIZES),
        st.tuples(st.just("settle"), NAMES, SIZES),
        st.tuples(st.just("leave"), NAMES, st.just(0)),
        st.tuples(st.just("release"), NAMES, st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_never_over_the_limit_never_negative_and_always_the_sum(steps: list[tuple[str, str, int]]) -> None:
    ledger = Ledger(100)
    booked: dict[str, int] = {}
    for step, name, size in steps:
        if step == "reserve":
            fits = name not in booked and sum(booked.values()) + size <= 100
            try:
                ledger.reserve(name, size)
            except ModelBudgetError:
                assert not fits
            else:
                assert fits
                booked[name] = size
        elif name not in booked:
            continue
        elif step == "settle":
            fits = size <= booked[name] or sum(booked.values()) - booked[name] + size <= 100
            assert ledger.settle(name, size) is fits
            booked[name] = size if fits else booked[name]
        elif step == "leave":
            ledger.leave(name)
            assert ledger.leaving_bytes >= booked[name]
        else:
            ledger.release(name)
            del booked[name]
        assert ledger.used_bytes == sum(booked.values())
        assert 0 <= ledger.leaving_bytes <= ledger.used_bytes <= 100
        assert {n: ledger.size(n) for n in "abcd"} == {n: booked.get(n, 0) for n in "abcd"}


@st.composite
def residents(draw: st.DrawFn) -> list[Candidate]:
    count = draw(st.integers(0, 7))
    names = [f"m{index}" for index in range(count)]
    return [
        Candidate(
            name,
            draw(st.integers(0, 50)),
            float(draw(st.integers(0, 20))),
            priority=draw(st.integers(1, 10)),
            is_held=draw(st.booleans()),
            # dependents have greater numbers, so the graph has no circle
            dependents=frozenset(draw(st.sets(st.sampled_from(names[index + 1 :]), max_size=2)))
            if index + 1 < count
            else frozenset(),
        )
        for index, name in enumerate(names)
    ]


def may_go_below(priority: int | None) -> Callable[[Candidate], bool]:
    return lambda candidate: priority is None or candidate.priority < priority


@settings(max_examples=200, deadline=None)
@given(residents(), st.integers(0, 150), st.none() | st.integers(1, 10), st.booleans())
def test_victims_are_free_to_go_enough_and_leave_nobody_without_a_dependency(
    rows: list[Candidate], needed: int, below: int | None, is_partial: bool
) -> None:
    by_name = {row.name: row for row in rows}
    victims = choose_victims(by_worth(rows), needed, may_go=may_go_below(below), is_partial=is_partial)
    gone: set[str] = set()
    for name in victims:
        row = by_name[name]
        assert not row.is_held
        assert below is None or row.priority < below
        assert row.dependents <= gone
        gone.add(name)
    freed = sum(by_name[name].size_bytes for name in victims)
    assert len(gone) == len(victims)
    assert freed >= needed or is_partial or not victims
    if victims and freed >= needed:
        for name in victims:  # nobody leaves in vain
            is_needed_gone = any(name in by_name[other].dependents for other in gone)
            assert is_needed_gone or freed - by_name[name].size_bytes < needed or by_name[name].size_bytes == 0


def choose_from_all(
    rows: Sequence[Candidate], needed_bytes: int, *, below: int | None, gone: frozenset[str], is_partial: bool
) -> list[str]:
    """Choose as it was done before candidates came one by one: sort all, and look at all of them for each victim."""
    eligible = [row for row in by_worth(rows) if row.name not in gone and not row.is_held]
    eligible = [
        row._replace(dependents=row.dependents - gone) for row in eligible if below is None or row.priority < below
    ]
    chosen: dict[str, Candidate] = {}
    freed = 0
    while freed < needed_bytes:
        free_to_go = (row for row in eligible if row.name not in chosen and row.dependents <= chosen.keys())
        victim = next(free_to_go, None)
        if victim is None:
            return list(chosen) if is_partial else []
        chosen[victim.name] = victim
        freed += victim.size_bytes
    spare = freed - needed_bytes
    going = dict(chosen)
    while True:
        needed_gone = {name for other in going.values() for name in other.dependents}
        removable = [row for row in reversed(by_worth(chosen.values())) if row.name in going.keys() - needed_gone]
        spared = next((row for row in removable if row.size_bytes <= spare), None)
        if spared is None:
            return list(going)
        spare -= spared.size_bytes
        del going[spared.name]


@settings(max_examples=500, deadline=None)
@given(
    residents(),
    st.integers(0, 150),
    st.none() | st.integers(1, 10),
    st.frozensets(st.sampled_from([f"m{index}" for index in range(7)]), max_size=3),
    st.booleans(),
)
def test_one_by_one_the_same_are_chosen_as_from_all_at_once(
    rows: list[Candidate], needed: int, below: int | None, gone: frozenset[str], is_partial: bool
) -> None:
    rows = [row._replace(worth=float(place)) for place, row in enumerate(by_worth(rows))]  # no ties
    pulled: list[Candidate] = []
    is_closed = False

    def one_by_one() -> Generator[Candidate]:
        nonlocal is_closed
        try:
            for row in rows:
                pulled.append(row)
                yield row
        finally:
            is_closed = True

    victims = choose_victims(one_by_one(), needed, may_go=may_go_below(below), gone=gone, is_partial=is_partial)
    assert victims == choose_from_all(rows, needed, below=below, gone=gone, is_partial=is_partial)
    assert is_closed or not pulled
    if not any(row.is_held or row.dependents or row.name in gone for row in rows) and below is None:
        before_last = sum(row.size_bytes for row in pulled[:-1])
        assert before_last < needed or not pulled  # the last one was needed
