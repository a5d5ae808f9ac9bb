from __future__ import annotations

import doctest
import json
import math
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import TZPATH, ZoneInfo

import pytest

import ondol.preload.cron as cron_module
import ondol.preload.recurrence as recurrence_module
from ondol.errors import ConfigurationError
from ondol.preload.cron import describe_cron, parse_cron
from ondol.preload.recurrence import LATEST_S, MAX_STEP_S, Recurrence, parse_recurrence

SEOUL = ZoneInfo("Asia/Seoul")
BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 27, 8, 0, tzinfo=SEOUL)  # a Friday
NOW_S = NOW.timestamp()


def hint(at: Any = None, repeat: Any = None, zone: str | tzinfo = "Asia/Seoul", now: datetime = NOW) -> Recurrence:
    return parse_recurrence(at, repeat, zone=zone, now_wall_s=now.timestamp())


def times(recurrence: Recurrence, after: datetime, count: int) -> list[str]:
    """The next ``count`` times, as local times with their offset."""
    found: list[str] = []
    now_s = after.timestamp()
    for _ in range(count):
        at_s = recurrence.next_after(now_s)
        if at_s is None:
            break
        found.append(f"{datetime.fromtimestamp(at_s, recurrence.zone):%a %Y-%m-%d %H:%M:%S%z}")
        now_s = at_s
    return found


def clock_times(recurrence: Recurrence, after: datetime, count: int) -> list[str]:
    return [text[15:20] for text in times(recurrence, after, count)]


@pytest.mark.parametrize("module", [cron_module, recurrence_module])
def test_the_examples_of_the_docstrings_hold(module: Any) -> None:
    result = doctest.testmod(module)
    assert (result.failed, result.attempted > 0) == (0, True)


# The time


@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 11, 27, 8, 55, tzinfo=SEOUL),
        datetime(2026, 11, 27, 8, 55),  # noqa: DTZ001  # local by definition
        datetime(2026, 11, 26, 23, 55, tzinfo=UTC),
        int(NOW_S) + 55 * 60,
        NOW_S + 55 * 60,
        "2026-11-27T08:55+09:00",
        "2026-11-27T08:55",
        "2026-11-26 23:55:00Z",
        " 08:55 ",
        "8:55",
        "08:55:00",
    ],
)
def test_every_form_of_at_names_the_same_time(at: Any) -> None:
    once = hint(at)
    assert once.next_after(NOW_S) == NOW_S + 55 * 60
    assert once.next_after(NOW_S + 55 * 60) is None
    assert once.describe() == "once at 2026-11-27 08:55 (Asia/Seoul)"


def test_a_time_of_day_is_its_next_occurrence_strictly_after_now() -> None:
    assert times(hint("08:00"), NOW, 2) == ["Sat 2026-11-28 08:00:00+0900"]
    assert times(hint("08:00:01"), NOW, 2) == ["Fri 2026-11-27 08:00:01+0900"]


def test_a_past_one_off_never_comes() -> None:
    assert hint("2020-01-01T00:00").next_after(NOW_S) is None


def test_fractions_of_a_second_are_kept() -> None:
    assert hint(NOW_S + 10.5).next_after(NOW_S) == NOW_S + 10.5
    daily = hint(NOW_S + 10.5, "daily")
    assert daily.next_after(NOW_S) == NOW_S + 10.5
    assert daily.next_after(NOW_S + 10.5) == NOW_S + 10.5 + 86400


@pytest.mark.parametrize(
    "at",
    [
        *(
            True,
            math.nan,
            math.inf,
            -1,
            10**400,
            pytest.param(10**5000, id="huge"),
            NOW_S * 1000,
            LATEST_S,
            [],
            b"08:55",
        ),
        *(
            "",
            "24:00",
            "8:5",
            "tomorrow",
            "2026-11-27",
            "20261127T0855",
            "2026-13-01T00:00",
            "2026-11-27T",
            "1795737300",
        ),
        *("0９:00", "2026-11-27T08:55" + " " * 60, "1969-12-31T23:59Z", "9999-01-02T00:00", "x" * 10_000),
        *(datetime(1, 1, 1), datetime(9999, 12, 31)),  # noqa: DTZ001  # local by definition
        *(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
        *(NOW.date(), NOW.time()),
    ],
)
def test_a_wrong_at_is_refused_and_the_message_says_what_is_allowed(at: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"at=.*is not allowed: it must be a datetime, .*'08:55'") as caught:
        hint(at)
    assert len(str(caught.value)) < 400


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="give at=, repeat= or both"):
        hint()


# Intervals


@pytest.mark.parametrize(
    ("repeat", "seconds", "words"),
    [
        ("15m", 900, "every 15 minutes"),
        ("1h30m", 5400, "every 1 hour and 30 minutes"),
        (" 1H 30m 5s ", 5405, "every 1 hour, 30 minutes and 5 seconds"),
        ("1w 1d 1h 1m 1s", 694_861, "every 193 hours, 1 minute and 1 second"),
        ("90", 90, "every 1 minute and 30 seconds"),
        ("1.5h", 5400, "every 1 hour and 30 minutes"),
        (3600.0, 3600, "every hour"),
        (60, 60, "every minute"),
        ("366d", MAX_STEP_S, "every 8784 hours"),
        ("hourly", 3600, "every hour"),
    ],
)
def test_intervals_are_anchored_at_at(repeat: Any, seconds: float, words: str) -> None:
    every = hint("2026-11-27T08:55", repeat)
    first_s = NOW_S + 55 * 60
    assert every.next_after(NOW_S - 1e6) == first_s
    assert every.next_after(first_s) == first_s + seconds
    assert every.next_after(first_s + 2.5 * seconds) == first_s + 3 * seconds
    assert every.describe() == f"{words} from 2026-11-27 08:55 (Asia/Seoul)"


def test_without_at_an_interval_is_anchored_at_now() -> None:
    assert hint(None, "15m").next_after(NOW_S) == NOW_S + 900
    assert clock_times(hint(None, "hourly"), NOW, 2) == ["09:00", "10:00"]


def test_an_interval_anchored_long_ago_keeps_its_phase() -> None:
    assert clock_times(hint("2020-01-01T00:07", "15m"), NOW, 2) == ["08:07", "08:22"]


@pytest.mark.parametrize(
    "repeat",
    [
        *(True, 59.9, 0, -60, math.nan, math.inf, MAX_STEP_S + 1, 10**400, timedelta(hours=1), b"1h"),
        *(
            "",
            "59s",
            "30m1h",
            "1h1h",
            "-1h",
            "1x",
            "1e3",
            "monthly",
            "@daily",
            "every hour",
            "h",
            "9" * 190 + "d",
            "１h",
        ),
        "60" + " " * 200,
    ],
)
def test_a_wrong_repeat_is_refused_and_the_message_says_what_is_allowed(repeat: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"repeat=.*not allowed: .*'15m'.* hourly, daily, .*'55 8 \* \* 1-5'"):
        hint("08:55", repeat)


# Words


def test_daily_weekdays_weekends_weekly() -> None:
    assert times(hint("08:55", "daily"), NOW, 2) == ["Fri 2026-11-27 08:55:00+0900", "Sat 2026-11-28 08:55:00+0900"]
    assert [text[:3] for text in times(hint("08:55", "Weekdays"), NOW, 3)] == ["Fri", "Mon", "Tue"]
    assert [text[:3] for text in times(hint("08:55:30", "weekends"), NOW, 3)] == ["Sat", "Sun", "Sat"]
    assert times(hint("07:30", "weekly"), NOW, 2) == ["Sat 2026-11-28 07:30:00+0900", "Sat 2026-12-05 07:30:00+0900"]


@pytest.mark.parametrize(
    ("repeat", "words"),
    [
        ("daily", "every day at 08:55"),
        ("weekdays", "every weekday at 08:55"),
        ("weekends", "every Sunday and Saturday at 08:55"),
        ("weekly", "every Friday at 08:55"),
    ],
)
def test_words_in_words(repeat: str, words: str) -> None:
    assert hint("08:55", repeat).describe() == f"{words} (Asia/Seoul)"
    assert hint("2026-11-27T08:55", repeat).describe() == f"{words} (Asia/Seoul), from 2026-11-27"
    assert hint("08:55:30", repeat).describe() == f"{words}:30 (Asia/Seoul)"


def test_words_take_the_local_time_of_the_zone_and_start_at_at() -> None:
    weekdays = hint("2026-12-05T23:55Z", "weekdays")  # a Sunday in Seoul
    assert times(weekdays, NOW, 1) == ["Mon 2026-12-07 08:55:00+0900"]
    assert times(hint("2026-12-05T23:55Z", "daily"), NOW, 1) == ["Sun 2026-12-06 08:55:00+0900"]


def test_a_word_without_a_time_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="repeat='daily' does not say at what time: give at= too"):
        hint(None, "daily")


# Cron expressions


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("55 8 * * 1-5", ["Fri 2026-11-27 08:55", "Mon 2026-11-30 08:55"]),
        ("55 8 * * MON-fri", ["Fri 2026-11-27 08:55", "Mon 2026-11-30 08:55"]),
        ("*/20 8,9 * * *", ["Fri 2026-11-27 08:20", "Fri 2026-11-27 08:40", "Fri 2026-11-27 09:00"]),
        ("10-30/10 8 * * *", ["Fri 2026-11-27 08:10", "Fri 2026-11-27 08:20", "Fri 2026-11-27 08:30"]),
        ("40/10 8 * * *", ["Fri 2026-11-27 08:40", "Fri 2026-11-27 08:50", "Sat 2026-11-28 08:40"]),
        ("0 0 * * 0", ["Sun 2026-11-29 00:00", "Sun 2026-12-06 00:00"]),
        ("0 0 * * 7", ["Sun 2026-11-29 00:00", "Sun 2026-12-06 00:00"]),
        ("0 0 * * sat-sun", ["Sat 2026-11-28 00:00", "Sun 2026-11-29 00:00", "Sat 2026-12-05 00:00"]),
        ("0 0 * * 7-1", ["Sun 2026-11-29 00:00", "Mon 2026-11-30 00:00", "Sun 2026-12-06 00:00"]),
        ("0 0 * * 5-7", ["Sat 2026-11-28 00:00", "Sun 2026-11-29 00:00", "Fri 2026-12-04 00:00"]),
        ("0 0 13 * fri", ["Fri 2026-12-04 00:00", "Fri 2026-12-11 00:00", "Sun 2026-12-13 00:00"]),  # either
        ("0 0 1-7 * */2", ["Tue 2026-12-01 00:00", "Thu 2026-12-03 00:00"]),  # `*`: not restricted, so both
        ("0 0 1-31 * mon", ["Sat 2026-11-28 00:00", "Sun 2026-11-29 00:00"]),  # either, and one always fits
        ("0 0 31 * *", ["Thu 2026-12-31 00:00", "Sun 2027-01-31 00:00", "Wed 2027-03-31 00:00"]),
        ("0 0 1 jan,jul *", ["Fri 2027-01-01 00:00", "Thu 2027-07-01 00:00"]),
        ("0 12 29 feb *", ["Tue 2028-02-29 12:00", "Sun 2032-02-29 12:00"]),
    ],
)
def test_cron_times(expression: str, wanted: list[str]) -> None:
    found = times(hint(None, expression), NOW, len(wanted))
    assert [text[:20] for text in found] == wanted


def test_rare_dates_are_found_and_the_search_ends() -> None:
    leap_day = hint(None, "0 0 29 2 *", zone=UTC)
    assert times(leap_day, datetime(2096, 3, 1, tzinfo=UTC), 1) == ["Fri 2104-02-29 00:00:00+0000"]
    one_weekday = hint(None, "0 0 29 2 */6", zone=UTC)  # Sunday or Saturday, by the `*` rule
    assert times(one_weekday, datetime(2080, 3, 1, tzinfo=UTC), 2) == [
        "Sun 2088-02-29 00:00:00+0000",
        "Sat 2116-02-29 00:00:00+0000",
    ]
    assert times(leap_day, datetime(9998, 1, 1, tzinfo=UTC), 1) == []
    for end_s in (LATEST_S, math.inf, math.nan):
        assert leap_day.next_after(end_s) is None
    assert leap_day.next_after(-math.inf) == datetime(1972, 2, 29, tzinfo=UTC).timestamp()


def test_cron_does_not_begin_before_at() -> None:
    later = hint("2026-12-24T08:55", "55 8 * * *")
    assert times(later, NOW, 2) == ["Thu 2026-12-24 08:55:00+0900", "Fri 2026-12-25 08:55:00+0900"]
    assert later.describe() == "every day at 08:55 (Asia/Seoul), from 2026-12-24"
    with pytest.raises(ConfigurationError, match="both say the time of day"):
        hint("08:55", "55 8 * * *")


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("0 0 31 2 *", "names a date that never comes: there is no day 31 in February"),
        ("0 0 30,31 feb *", "there is no day 30 in February"),
        ("0 0 31 2,4,jun */2", "there is no day 31 in February, April and June"),
        ("60 * * * *", "its minute field has '60'; it must be a number from 0 to 59"),
        ("* 24 * * *", "its hour field has '24'"),
        ("* * 0 * *", "its day-of-month field has '0'; it must be a number from 1 to 31"),
        ("* * * 13 *", "its month field has '13'; it must be a number from 1 to 12, or one of jan, feb"),
        ("* * * * 8", "its day-of-week field has '8'; it must be a number from 0 to 7, or one of sun, mon"),
        ("* * * mon *", "its month field has 'mon'"),
        ("jan * * * *", "its minute field has 'jan'"),
        ("30-10 * * * *", "it must be an ascending range"),
        ("*/0 * * * *", "it must be a step from 1 to 59"),
        ("*/90 * * * *", "it must be a step from 1 to 59"),
        *(
            (f"{item} * * * *", "its minute field has")
            for item in ("*-5", "5-", "-5", "1,", ",", "?", "5#2", "0x1", "１")
        ),
        ("* * * *", "must have five fields"),
        ("0 * * * * *", "must have five fields"),
    ],
)
def test_wrong_expressions_are_refused(expression: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        hint(None, expression)
    assert problem in str(caught.value)


def test_a_long_expression_is_refused_and_not_repeated_in_full() -> None:
    with pytest.raises(ConfigurationError, match="at most 200 characters") as caught:
        parse_cron("0," * 1000 + "0 * * * *")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/15 * * * *", "every 15 minutes"),
        ("5 * * * *", "at minute 5 of every hour"),
        ("5,20,50 * * * *", "at minutes 5, 20 and 50 of every hour"),
        ("*/10 9-17 * * 1-5", "every weekday, every 10 minutes in the hours 9 to 17"),
        ("0 9-17 * * *", "at minute 0 of the hours 9 to 17"),
        ("0-5 9 * * *", "at minutes 0 to 5 of the hour 9"),
        ("0,30 9 * * *", "every day at 09:00 and 09:30"),
        ("0 0 1,15 * *", "on days 1 and 15 of every month at 00:00"),
        ("0 0 1 1,7 *", "on day 1 of January and July at 00:00"),
        ("0 0 * dec sun", "every Sunday in December at 00:00"),
        ("0 0 * dec *", "every day in December at 00:00"),
        ("0 0 13 * 5", "on day 13 of every month and every Friday at 00:00"),
        ("0 0 13 6 5", "on day 13 of June and every Friday in June at 00:00"),
        ("0 0 1-7 * */6", "on days 1 to 7 of every month when it is a Sunday or Saturday at 00:00"),
    ],
)
def test_cron_in_words(expression: str, words: str) -> None:
    assert describe_cron(parse_cron(expression)) == words


# Time zones


def test_berlin_in_spring_takes_skipped_times_at_the_jump() -> None:
    before = datetime(2026, 3, 28, 12, 0, tzinfo=BERLIN)
    daily = hint("02:30", "daily", zone="Europe/Berlin", now=before)
    assert times(daily, before, 2) == ["Sun 2026-03-29 03:00:00+0200", "Mon 2026-03-30 02:30:00+0200"]
    assert times(hint("2026-03-29T02:30", zone=BERLIN), before, 2) == ["Sun 2026-03-29 03:00:00+0200"]
    skipped = datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN)
    assert times(hint(skipped), before, 1) == ["Sun 2026-03-29 10:00:00+0900"]
    night = datetime(2026, 3, 29, 1, 0, tzinfo=BERLIN)
    every = hint(None, "*/20 * * * *", zone="Europe/Berlin")
    assert clock_times(every, night, 5) == ["01:20", "01:40", "03:00", "03:20", "03:40"]


def test_berlin_in_autumn_takes_doubled_times_once() -> None:
    before = datetime(2026, 10, 24, 12, 0, tzinfo=BERLIN)
    daily = hint("02:30", "daily", zone="Europe/Berlin", now=before)
    assert times(daily, before, 2) == ["Sun 2026-10-25 02:30:00+0200", "Mon 2026-10-26 02:30:00+0100"]
    assert times(hint("2026-10-25T02:30", zone=BERLIN), before, 2) == ["Sun 2026-10-25 02:30:00+0200"]
    night = datetime(2026, 10, 25, 2, 40, tzinfo=BERLIN)
    every = hint(None, "*/30 * * * *", zone="Europe/Berlin")
    assert times(every, night, 1) == ["Sun 2026-10-25 03:00:00+0100"]
    second = datetime(2026, 10, 25, 2, 10, tzinfo=BERLIN, fold=1)
    assert times(every, second, 1) == ["Sun 2026-10-25 03:00:00+0100"]


def test_an_exact_time_in_the_doubled_hour_is_exact_and_daily_from_it_starts_that_day() -> None:
    before = datetime(2026, 10, 24, 12, 0, tzinfo=BERLIN)
    second = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)
    assert times(hint(second, zone=BERLIN), before, 1) == ["Sun 2026-10-25 02:30:00+0100"]
    assert times(hint("2026-10-25T02:30+01:00", "daily", zone=BERLIN), before, 2) == [
        "Sun 2026-10-25 02:30:00+0200",
        "Mon 2026-10-26 02:30:00+0100",
    ]


def test_intervals_are_seconds_that_pass() -> None:
    night = datetime(2026, 10, 25, 1, 55, tzinfo=BERLIN)
    hourly = hint("01:55", "hourly", zone=BERLIN, now=night - timedelta(hours=1))
    assert clock_times(hourly, night, 4) == ["02:55", "02:55", "03:55", "04:55"]


def test_a_day_that_a_zone_skipped_is_taken_at_the_jump() -> None:
    before = datetime(2011, 12, 29, 12, 0, tzinfo=ZoneInfo("Pacific/Apia"))
    noon = hint("13:00", "daily", zone="Pacific/Apia", now=before)
    assert [text[:20] for text in times(noon, before, 3)] == [
        "Thu 2011-12-29 13:00",
        "Sat 2011-12-31 00:00",
        "Sat 2011-12-31 13:00",
    ]


def test_seoul_has_no_jumps() -> None:
    daily = hint("02:30", "daily")
    found = [daily.next_after(NOW_S + day * 86400) for day in range(400)]
    assert found == [NOW_S + 18.5 * 3600 + day * 86400 for day in range(400)]


def test_the_zone_may_be_an_object() -> None:
    fixed = timezone(timedelta(hours=9), "KST")  # what datetime.now().astimezone() has
    assert hint("08:55", "daily", zone=fixed).describe() == "every day at 08:55 (UTC+09:00)"
    assert hint("08:55", "daily", zone=ZoneInfo("UTC")) == hint("08:55", "daily", zone="UTC")
    assert hint("08:55", zone=unnamed_zone()).describe() == "once at 2026-11-27 08:55 (local time)"


@pytest.mark.parametrize(
    "zone",
    ["", "Mars/Olympus", "Europe", "../../etc/passwd", "/etc/localtime", "A" * 10_000, "UTC+25:00", "a\0b", 9, None],
)
def test_a_wrong_zone_is_refused(zone: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"zone=.* is not a known time zone: .*'Asia/Seoul'") as caught:
        hint("08:55", zone=zone)
    assert len(str(caught.value)) < 400


def unnamed_zone() -> ZoneInfo:
    """The machine's own zone as one reads it from /etc/localtime: rules, but no name."""
    for folder in TZPATH:
        path = Path(folder, "Asia", "Seoul")
        if path.is_file():
            with path.open("rb") as file:
                return ZoneInfo.from_file(file)
    pytest.skip("no time zone files here")


# Plain data


@pytest.mark.parametrize("repeat", [None, "90s", "daily", "weekly", "*/15 9-17 13 jan-mar FRI"])
@pytest.mark.parametrize("zone", ["Asia/Seoul", "UTC", timezone(timedelta(hours=-3, minutes=-30))])
def test_plain_data_goes_through_json_and_back(repeat: str | None, zone: str | tzinfo) -> None:
    wanted = hint("2026-11-27T08:55:30.25", repeat, zone=zone)
    assert Recurrence.from_plain(json.loads(json.dumps(wanted.to_plain()))) == wanted


def test_a_zone_without_a_name_is_given_again() -> None:
    zone = unnamed_zone()
    wanted = hint("08:55", "daily", zone=zone)
    plain = wanted.to_plain()
    assert plain["zone"] is None
    assert Recurrence.from_plain(plain, local_zone=zone) == wanted
    with pytest.raises(ValueError, match="not a known time zone"):
        Recurrence.from_plain(plain)


@pytest.mark.parametrize(
    "change",
    [
        *({"starts_at_s": value} for value in (None, True, "1", math.nan, -1, LATEST_S)),
        *({"zone": value} for value in (1, "Mars/Olympus", b"UTC")),
        *({"step_s": value} for value in (0, 59, math.inf, "60", True, 3600)),
        *({"cron": value} for value in (1, "", "* * * *", "0 0 31 2 *")),
        *({"second": value} for value in (None, -1, 60, "0", math.nan)),
        {"cron": None},  # the second stays
        {"more": 1},
    ],
)
def test_bad_data_is_refused(change: dict[str, Any]) -> None:
    plain = hint("08:55:30", "daily").to_plain()
    with pytest.raises(ValueError, match=r"stored recurrence|cron expression|time zone"):
        Recurrence.from_plain({**plain, **change})


@pytest.mark.parametrize("plain", [None, [], "x", {}])
def test_data_of_another_form_is_refused(plain: Any) -> None:
    with pytest.raises(ValueError, match="must have exactly the fields"):
        Recurrence.from_plain(plain)
