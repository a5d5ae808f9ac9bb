"""A slow model of cron, written another way: it asks of every minute of the world whether it is wanted."""

from __future__ import annotations

import contextlib
import json
import math
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ondol.errors import ConfigurationError
from ondol.preload.recurrence import Recurrence, parse_recurrence

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
ZONES = ("UTC", "Asia/Seoul", "Europe/Berlin", "Australia/Lord_Howe", "America/Havana", "America/St_Johns")
DAYS_SHOWN = 3
BERLIN_SPRING = datetime(2026, 3, 28, tzinfo=UTC)
BERLIN_AUTUMN = datetime(2026, 10, 24, tzinfo=UTC)


def items(low: int, high: int, names: tuple[str, ...]) -> SearchStrategy[str]:
    """One item of a field: a star, a number, a name, a range, with or without a step."""
    number = st.integers(low, high)
    spelled = number.map(lambda n: names[n - low] if names and n - low < len(names) else str(n))
    pairs = st.tuples(number, number).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    step = st.integers(1, high - low - (1 if high == 7 else 0)).map(lambda n: f"/{n}")
    with_step = st.tuples(st.one_of(st.just("*"), pairs), step).map("".join)
    return st.one_of(spelled, number.map(str), pairs, with_step)


def fields(low: int, high: int, names: tuple[str, ...]) -> SearchStrategy[str]:
    return st.one_of(st.just("*"), st.lists(items(low, high, names), min_size=1, max_size=3).map(",".join))


expressions = st.tuples(
    fields(0, 59, ()), fields(0, 23, ()), fields(1, 31, ()), st.one_of(st.just("*"), fields(1, 12, MONTHS)),
    fields(0, 7, WEEKDAYS),
).map(" ".join)  # fmt: skip
moments = st.one_of(
    st.datetimes(datetime(2024, 1, 1), datetime(2032, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC)),  # noqa: DTZ001
    st.sampled_from(
        [BERLIN_SPRING, BERLIN_AUTUMN, datetime(2026, 4, 4, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)]
    ),
)
seconds = st.one_of(st.floats(0, 4e9), moments.map(datetime.timestamp))


@cache
def fits(field: str, value: int, low: int, high: int, names: tuple[str, ...]) -> bool:
    """Whether ``value`` is named by ``field``, item by item and without a set of numbers."""
    for item in field.split(","):
        body, _, step = item.partition("/")
        first, _, last = body.partition("-")
        if body == "*":
            bounds = (low, high)
        else:
            ends = [names.index(word) + low if word in names else int(word) for word in (first, last or first)]
            bounds = (ends[0], high if step and not last else ends[1])
        if bounds[0] <= value <= bounds[1] and (value - bounds[0]) % int(step or 1) == 0:
            return True
    return False


def is_wanted(expression: str, local: datetime) -> bool:
    minute, hour, day, month, weekday = expression.split()
    if not fits(minute, local.minute, 0, 59, ()) or not fits(hour, local.hour, 0, 23, ()):
        return False
    number = local.isoweekday()  # Sunday is 7; as 0 it is asked for apart
    is_weekday = fits(weekday, number % 7, 0, 6, WEEKDAYS) or (
        number == 7 and "*" not in weekday and fits(weekday, 7, 0, 7, WEEKDAYS)
    )
    is_day = fits(day, local.day, 1, 31, ())
    is_date = is_day or is_weekday if "*" not in day and "*" not in weekday else is_day and is_weekday
    return is_date and fits(month, local.month, 1, 12, MONTHS)


def modelled(expression: str, zone: ZoneInfo, start: datetime) -> list[float]:
    """The times of some days: every minute that passes, and every wall time that is jumped over or repeated."""
    found: set[float] = set()
    latest: datetime | None = None  # how far the wall clock has ever been
    for count in range(DAYS_SHOWN * 1440 + 1):
        instant = start + timedelta(minutes=count)
        local = instant.astimezone(zone).replace(tzinfo=None, fold=0)
        step = timedelta(minutes=1)
        wall = local if latest is None else latest + step
        while wall <= local:  # usually once; not at all in a repeated hour, often at a jump
            if is_wanted(expression, wall):
                found.add(instant.timestamp())
            latest = wall
            wall += step
    return sorted(found)


def listed(recurrence: Recurrence, after_s: float, until_s: float) -> list[float]:
    found: list[float] = []
    at_s = recurrence.next_after(after_s)
    while at_s is not None and at_s <= until_s:
        found.append(at_s)
        at_s = recurrence.next_after(at_s)
    return found


def parsed(at: Any, repeat: Any, zone: str, now_s: float = 1.8e9) -> Recurrence:
    try:
        return parse_recurrence(at, repeat, zone=zone, now_wall_s=now_s)
    except ConfigurationError as exc:
        assume("never comes" not in str(exc))
        raise


def check_against_the_model(expression: str, zone: str, start: datetime) -> None:
    start = start.replace(hour=12, minute=0, second=0, microsecond=0)  # no clocks change at this time in ZONES
    found = listed(
        parsed(None, expression, zone), start.timestamp() - 1, (start + timedelta(days=DAYS_SHOWN)).timestamp()
    )
    assert found == modelled(expression, ZoneInfo(zone), start)


@settings(max_examples=60, deadline=None)
@given(expressions, st.sampled_from(ZONES), moments, st.integers(0, DAYS_SHOWN))
def test_cron_is_what_a_walk_over_every_minute_finds(expression: str, zone: str, start: datetime, before: int) -> None:
    check_against_the_model(expression, zone, start)
    if (at_s := parsed(None, expression, zone).next_after(start.timestamp())) is not None:  # also where there is one
        check_against_the_model(expression, zone, datetime.fromtimestamp(at_s, UTC) - timedelta(days=before))


@pytest.mark.parametrize("start", [BERLIN_SPRING, BERLIN_AUTUMN])
@pytest.mark.parametrize("expression", ["* * * * *", "*/7 1-3 * * *", "30 2 * * *", "0 3 * * 0", "59 1,2 25,29 3,10 *"])
def test_the_model_agrees_where_clocks_change(expression: str, start: datetime) -> None:
    check_against_the_model(expression, "Europe/Berlin", start)


recurrences = st.builds(
    parsed,
    seconds,
    st.one_of(
        st.none(),
        st.sampled_from(["hourly", "daily", "weekdays", "weekends", "weekly"]),
        st.floats(60, 1e6),
        expressions,
    ),
    st.sampled_from(ZONES),
)


@settings(max_examples=300, deadline=None)
@given(recurrences, seconds, seconds)
def test_the_next_time_is_later_monotone_and_not_passed_over(hint: Recurrence, one_s: float, other_s: float) -> None:
    early_s, late_s = sorted((one_s, other_s))
    first_s, second_s = hint.next_after(early_s), hint.next_after(late_s)
    if first_s is None:
        assert second_s is None
        return
    assert first_s > early_s
    assert first_s >= hint.starts_at_s
    assert hint.next_after(math.nextafter(first_s, 0)) == first_s
    if second_s is not None:
        assert second_s > late_s
        assert first_s <= second_s
        assert first_s == second_s or first_s <= late_s


@settings(max_examples=200, deadline=None)
@given(recurrences, seconds)
def test_plain_data_makes_the_same_recurrence(hint: Recurrence, now_s: float) -> None:
    again = Recurrence.from_plain(json.loads(json.dumps(hint.to_plain())))
    assert again == hint
    assert again.next_after(now_s) == hint.next_after(now_s)
    assert again.describe() == hint.describe()


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=80), st.datetimes(), st.timedeltas(),
    st.text("0123456789 */-,:hmdsTZ", max_size=40),
    st.lists(st.text("0123456789*/-,", min_size=1), max_size=6).map(" ".join),
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(anything, anything, st.one_of(st.sampled_from(ZONES), st.text(max_size=20)))
def test_any_input_is_taken_or_refused_with_the_one_error(at: Any, repeat: Any, zone: str) -> None:
    with contextlib.suppress(ConfigurationError):
        hint = parse_recurrence(at, repeat, zone=zone, now_wall_s=1.8e9)
        hint.next_after(1.8e9)
        assert Recurrence.from_plain(hint.to_plain()) == hint
        assert 0 < len(hint.describe()) < 1000


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["starts_at_s", "zone", "step_s", "cron", "second"]), anything, min_size=5))
def test_any_plain_data_is_taken_or_refused(plain: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        Recurrence.from_plain(plain).next_after(1.8e9)
