"""decision: five-field cron expressions: the times one names in a time zone, and what it says in words."""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time, timedelta, tzinfo
from typing import TYPE_CHECKING, Final, NamedTuple

from ondol.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["MAX_CRON_CHARS", "Cron", "describe_cron", "instant_of", "join_words", "local_at", "parse_cron"]

MAX_CRON_CHARS: Final = 200
_LAST_YEAR: Final = 9998
_SEARCH_YEARS: Final = 50  # the rarest date, 29 February on one day of the week, comes within 40
_MONTH_LENGTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_WEEKDAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_ITEM: Final = re.compile(r"(\*|[0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?(?:/([0-9]{1,2}))?")
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # arithmetic with local times
_WORK_DAYS: Final = (1, 2, 3, 4, 5)


class _Field(NamedTuple):
    """What one of the five fields may hold: ``first`` to ``last``, and names that stand for numbers."""

    name: str
    first: int
    last: int
    names: dict[str, int]


_DAY_OF_WEEK: Final = _Field("day-of-week", 0, 6, {name[:3].lower(): place for place, name in enumerate(_WEEKDAYS)})
_FIELDS: Final = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day-of-month", 1, 31, {}),
    _Field("month", 1, 12, {name[:3].lower(): place for place, name in enumerate(_MONTHS, 1)}),
    _DAY_OF_WEEK,
)


class Cron(NamedTuple):
    """A read expression. Every tuple ascends; Sunday is 0.

    Attributes:
        text: the expression in lower case, its fields parted by one space.
        second: seconds after each minute; 0 but for words such as ``daily``, which keep those of their time.
        is_either: whether the day of the month *or* that of the week suffices (both are restricted); else both must
            fit.
    """

    text: str
    second: float
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    is_either: bool

    def next_after(self, bound_s: float, zone: tzinfo) -> float | None:
        """Return the first of its times in ``zone`` that is strictly after ``bound_s``, in Unix seconds."""
        for local in self._times_from(local_at(bound_s, zone)):
            at_s = instant_of(local, zone)
            if at_s > bound_s:
                return at_s
        return None

    def _times_from(self, start: datetime) -> Iterator[datetime]:
        """Yield the local times (naive) it names from ``start`` on, ascending, of the next 50 years."""
        for day in self._dates_from(start.date()):
            is_first = day == start.date()
            for hour in self.hours:
                if is_first and hour < start.hour:
                    continue
                for minute in self.minutes:
                    moment = datetime.combine(day, time(hour, minute)) + timedelta(seconds=self.second)
                    if moment >= start:
                        yield moment

    def _dates_from(self, start: date) -> Iterator[date]:
        for year in range(start.year, min(start.year + _SEARCH_YEARS, _LAST_YEAR) + 1):
            for month in self.months:
                if (year, month) < (start.year, start.month):
                    continue
                for number in range(1, _month_length(year, month) + 1):
                    day = date(year, month, number)
                    if day >= start and self._has_date(day):
                        yield day

    def _has_date(self, day: date) -> bool:
        is_day, is_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return is_day or is_weekday if self.is_either else is_day and is_weekday


def local_at(at_s: float, zone: tzinfo) -> datetime:
    """Return the wall time in ``zone``, naive."""
    return datetime.fromtimestamp(at_s, zone).replace(tzinfo=None, fold=0)


def instant_of(local: datetime, zone: tzinfo) -> float:
    """Return Unix seconds of a wall time: the first of two, and the clocks' jump when it is skipped."""
    aware = local.replace(tzinfo=zone, fold=0)
    before, after = aware.utcoffset(), aware.replace(fold=1).utcoffset()
    assert before is not None  # the parser refuses zones without offsets
    assert after is not None
    if before >= after:
        return (local - _EPOCH - before).total_seconds()
    low_s, high_s = (math.floor((local - _EPOCH - offset).total_seconds()) for offset in (after, before))
    while high_s - low_s > 1:
        middle_s = (low_s + high_s) // 2
        if datetime.fromtimestamp(middle_s, zone).utcoffset() == before:
            low_s = middle_s
        else:
            high_s = middle_s
    return float(high_s)


def _month_length(year: int, month: int) -> int:
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 28 if month == 2 and not is_leap else _MONTH_LENGTHS[month - 1]


def parse_cron(expression: str, *, second: float = 0.0) -> Cron:
    """Return what ``expression`` says.

    Fields are minute, hour, day of the month, month and day of the week; each a list of ``*``, numbers, names
    (``mon``, ``jan``), ranges ``a-b`` and steps ``*/n``, ``a-b/n`` or ``a/n`` (from ``a`` to the end). 0 and 7 are
    Sunday. When neither day field contains ``*``, a date that fits one of them is enough.

    Raises:
        ConfigurationError: it is no such expression, or names a date that never comes.

    Source: crontab(5) of Vixie cron; ours adds ``a/n`` and ranges that end on Sunday (``sat-sun``), and refuses
    steps beyond the field.

    >>> parse_cron("55 8 * * mon-fri").weekdays
    (1, 2, 3, 4, 5)
    """
    fields = expression.lower().split()
    text = " ".join(fields)
    if len(expression) > MAX_CRON_CHARS or len(fields) != len(_FIELDS):
        message = (
            f"cron expression {expression!r:.100} is not valid: it must have five fields (minute hour day-of-month "
            f"month day-of-week) and at most {MAX_CRON_CHARS} characters, like '55 8 * * 1-5'"
        )
        raise ConfigurationError(message)
    minutes, hours, days, months, weekdays = (
        _numbers(field, content, text) for field, content in zip(_FIELDS, fields, strict=True)
    )
    is_either = "*" not in fields[2] and "*" not in fields[4]
    if is_either and (len(days) == 31 or len(weekdays) == 7):  # then every date fits one of them
        days, weekdays, is_either = tuple(range(1, 32)), tuple(range(7)), False
    if not is_either and all(days[0] > _MONTH_LENGTHS[month - 1] for month in months):
        named = join_words([_MONTHS[month - 1] for month in months])
        message = f"cron expression {text!r} names a date that never comes: there is no day {days[0]} in {named}"
        raise ConfigurationError(message)
    return Cron(text, second, minutes, hours, days, months, weekdays, is_either)


def _numbers(field: _Field, content: str, text: str) -> tuple[int, ...]:
    """Return the numbers that one field names, ascending."""
    numbers: set[int] = set()
    for item in content.split(","):
        match = _ITEM.fullmatch(item)
        if match is None or (match[1] == "*" and match[2]):
            raise _refusal(field, item, text, "*, a number, a range a-b, or one of these with a step such as */15")
        first, last = _ends(field, match, item, text)
        step = int(match[3] or 1)
        if not 1 <= step <= field.last - field.first:
            raise _refusal(field, item, text, f"a step from 1 to {field.last - field.first}")
        numbers.update(range(first, last + 1, step))
    return tuple(sorted({number % 7 for number in numbers} if field is _DAY_OF_WEEK else numbers))


def _ends(field: _Field, match: re.Match[str], item: str, text: str) -> tuple[int, int]:
    """Return the first and last number of one item of a field."""
    if match[1] == "*":
        return field.first, field.last
    first = _number(field, match[1], text)
    if match[2] is None:
        return first, field.last if match[3] and first < field.last else first
    last = _number(field, match[2], text)
    if field is _DAY_OF_WEEK:  # a Sunday that begins a range is 0, one that ends it is 7
        first = 0 if first == 7 and last < 7 else first
        last = 7 if last == 0 and first > 0 else last
    if first > last:
        raise _refusal(field, item, text, f"an ascending range; write it as two, like {first}-{field.last},…")
    return first, last


def _number(field: _Field, word: str, text: str) -> int:
    number = int(word) if word.isdigit() else field.names.get(word, -1)
    last = 7 if field is _DAY_OF_WEEK else field.last
    if not field.first <= number <= last:
        names = f", or one of {', '.join(field.names)}" if field.names else ""
        raise _refusal(field, word, text, f"a number from {field.first} to {last}{names}")
    return number


def _refusal(field: _Field, item: str, text: str, allowed: str) -> ConfigurationError:
    return ConfigurationError(
        f"cron expression {text!r:.100} is not valid: its {field.name} field has {item!r:.40}; it must be {allowed}"
    )


def describe_cron(cron: Cron) -> str:
    """Return it in plain English.

    >>> describe_cron(parse_cron("55 8 * * 1-5")), describe_cron(parse_cron("*/15 9-17 1 * *"))
    ('every weekday at 08:55', 'on day 1 of every month, every 15 minutes in the hours 9 to 17')
    """
    days, times = _days_phrase(cron), _times_phrase(cron)
    if times.startswith("at ") and ":" in times:
        return f"{days} {times}"
    return times if days == "every day" else f"{days}, {times}"


def _times_phrase(cron: Cron) -> str:
    if len(cron.hours) * len(cron.minutes) <= 4:
        second = f":{int(cron.second):02}" if cron.second >= 1 else ""
        return "at " + join_words([f"{hour:02}:{minute:02}{second}" for hour in cron.hours for minute in cron.minutes])
    hours = f"the {_plural('hour', cron.hours)}"
    is_any_hour = len(cron.hours) == 24
    gap = cron.minutes[1] - cron.minutes[0] if len(cron.minutes) > 1 else 60
    if 60 % gap == 0 and gap < 60 and cron.minutes == tuple(range(0, 60, gap)):
        often = "every minute" if gap == 1 else f"every {gap} minutes"
        return often if is_any_hour else f"{often} in {hours}"
    return f"at {_plural('minute', cron.minutes)} of {'every hour' if is_any_hour else hours}"


def _days_phrase(cron: Cron) -> str:
    months = join_words([_MONTHS[month - 1] for month in cron.months])
    is_any_month = len(cron.months) == 12
    day = f"on {_plural('day', cron.days)}{' of every month' if is_any_month else f' of {months}'}"
    weekday = "weekday" if cron.weekdays == _WORK_DAYS else join_words([_WEEKDAYS[number] for number in cron.weekdays])
    if cron.is_either:
        return f"{day} and every {weekday}{'' if is_any_month else f' in {months}'}"
    if len(cron.days) < 31:
        return day if len(cron.weekdays) == 7 else f"{day} when it is a {weekday.replace(' and ', ' or ')}"
    if len(cron.weekdays) < 7:
        return f"every {weekday}{'' if is_any_month else f' in {months}'}"
    return "every day" if is_any_month else f"every day in {months}"


def _plural(noun: str, numbers: Sequence[int]) -> str:
    """Return such as ``minute 5``, ``hours 9 to 17`` or ``days 1 and 15``."""
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{noun}s {numbers[0]} to {numbers[-1]}"
    return f"{noun}{'s' if len(numbers) > 1 else ''} {join_words([str(number) for number in numbers])}"


def join_words(words: Sequence[str]) -> str:
    """Return ``a``, ``a and b`` or ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
