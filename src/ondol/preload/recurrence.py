"""decision: when a model will be wanted: once, at an interval, or by the calendar of a time zone."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timezone, tzinfo
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard
from zoneinfo import ZoneInfo

from ondol.errors import ConfigurationError
from ondol.preload.cron import MAX_CRON_CHARS, Cron, describe_cron, instant_of, join_words, local_at, parse_cron

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LATEST_S", "MAX_STEP_S", "MIN_STEP_S", "Recurrence", "parse_recurrence"]

MIN_STEP_S: Final = 60.0
MAX_STEP_S: Final = 366 * 86400.0
LATEST_S: Final = 253_370_764_800.0
"""The year 9999 begins; no time is later."""
_MAX_AT_CHARS: Final = 64
_MAX_ZONE_CHARS: Final = 64
_TIME_OF_DAY: Final = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")
_DATE_AND_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][!-~]+")
_ZONE_NAME: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_FIXED_OFFSET: Final = re.compile(r"UTC([+-][0-9:.]{5,15})")
_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_SECONDS: Final = re.compile(_NUMBER)
_DURATION: Final = re.compile("".join(rf"(?:({_NUMBER})\s*{unit}\s*)?" for unit in "wdhms"))
_UNITS_S: Final = (604800, 86400, 3600, 60, 1)
_DAY_WORDS: Final = {"daily": "*", "weekdays": "1-5", "weekends": "0,6", "weekly": ""}
_PLAIN_NAMES: Final = {"starts_at_s", "zone", "step_s", "cron", "second"}


class Recurrence(NamedTuple):
    """The times at which a model is wanted; made by ``parse_recurrence``.

    With ``cron`` it follows the calendar of ``zone``, with ``step_s`` it comes every so many seconds, with neither it
    comes once. Nothing is before ``starts_at_s`` (0: no such bound).

    Where clocks change, a local time that does not exist is taken at the moment they jump, one that exists twice is
    taken the first time only; steps are seconds that really pass.
    """

    starts_at_s: float
    zone: tzinfo
    step_s: float | None = None
    cron: Cron | None = None

    def next_after(self, now_wall_s: float) -> float | None:
        """Return the first time strictly after ``now_wall_s`` in Unix seconds; ``None`` when there is none (any more).

        Cost: constant, but for rare dates such as 29 February a walk over the months until then.
        """
        if not now_wall_s < LATEST_S:
            return None
        if now_wall_s < self.starts_at_s and self.cron is None:
            return self.starts_at_s
        if self.cron is not None:
            bound_s = max(now_wall_s, math.nextafter(self.starts_at_s, -math.inf))
            return self.cron.next_after(bound_s, self.zone)
        if self.step_s is None:
            return None
        passed = math.floor((now_wall_s - self.starts_at_s) / self.step_s)
        near = (self.starts_at_s + count * self.step_s for count in range(passed, passed + 3))  # division rounds
        return next(at_s for at_s in near if at_s > now_wall_s)

    def describe(self) -> str:
        """Return it in plain English, such as ``every weekday at 08:55 (Asia/Seoul)``."""
        start = local_at(self.starts_at_s, self.zone)
        clock = f"{start:%H:%M:%S}" if start.second else f"{start:%H:%M}"
        moment, zone = f"{start.date()} {clock}", f"({_zone_name(self.zone) or 'local time'})"
        if self.cron is not None:
            return f"{describe_cron(self.cron)} {zone}" + (f", from {start.date()}" if self.starts_at_s else "")
        if self.step_s is not None:
            return f"{_step_phrase(self.step_s)} from {moment} {zone}"
        return f"once at {moment} {zone}"

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data for JSON; a zone without a name is ``None``."""
        return {
            "starts_at_s": self.starts_at_s,
            "zone": _zone_name(self.zone),
            "step_s": self.step_s,
            "cron": None if self.cron is None else self.cron.text,
            "second": 0.0 if self.cron is None else self.cron.second,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], *, local_zone: tzinfo | None = None) -> Recurrence:
        """Return what ``to_plain`` gave; ``local_zone`` stands for a zone without a name.

        Raises:
            ValueError: it is of another form, or no zone is known of that name.
        """
        if not isinstance(plain, dict) or set(plain) != _PLAIN_NAMES:
            message = f"a stored recurrence must have exactly the fields {', '.join(sorted(_PLAIN_NAMES))}"
            raise ValueError(message)
        start, step, cron, second = plain["starts_at_s"], plain["step_s"], plain["cron"], plain["second"]
        is_sound = (
            _is_within(start, 0, math.nextafter(LATEST_S, 0))
            and (step is None or _is_within(step, MIN_STEP_S, MAX_STEP_S))
            and (cron is None or (isinstance(cron, str) and step is None))
            and _is_within(second, 0, math.nextafter(60, 0) if cron is not None else 0)
        )
        if not is_sound:
            raise ValueError(f"a stored recurrence has values that are not allowed: {_shown(plain)}")
        zone = _zone_of(local_zone if plain["zone"] is None else plain["zone"])
        rule = None if cron is None else parse_cron(cron, second=float(second))
        return cls(float(start), zone, None if step is None else float(step), rule)


class _Moment(NamedTuple):
    """What ``at`` says. ``local`` keeps the wall time that was written, also where clocks skip it."""

    at_s: float
    local: datetime
    is_dated: bool = True


def parse_recurrence(
    at: datetime | float | str | None, repeat: str | float | None, *, zone: str | tzinfo, now_wall_s: float
) -> Recurrence:
    """Return the times that ``at`` and ``repeat`` name.

    Args:
        at: the first time: a datetime or ISO 8601 text (local in ``zone`` without an offset), Unix seconds, or a time
            of day such as ``08:55``, which means its next occurrence.
        repeat: ``None`` for once; a number of seconds or a duration such as ``1h30m`` (from 1 minute to 366 days, from
            ``at`` on, or from now); ``hourly``, the same as ``1h``; ``daily``, ``weekdays``, ``weekends`` or
            ``weekly`` at the local time of ``at``; or a cron expression, not before ``at``.
        zone: an IANA name, or the machine's zone as an object.
        now_wall_s: the time now in Unix seconds.

    Raises:
        ConfigurationError: one of them is not allowed, or they do not fit each other.

    >>> hint = parse_recurrence("08:55", "weekdays", zone="Asia/Seoul", now_wall_s=1.8e9)
    >>> hint.describe(), hint.next_after(1.8e9)
    ('every weekday at 08:55 (Asia/Seoul)', 1800230100.0)
    """
    place = _zone_of(zone)
    moment = None if at is None else _moment_of(at, place, now_wall_s)
    if repeat is None:
        if moment is None:
            raise ConfigurationError("a hint needs a time: give at=, repeat= or both")
        return Recurrence(moment.at_s, place)
    if isinstance(repeat, str) and len(repeat) <= MAX_CRON_CHARS:
        word = repeat.strip().lower()
        if word in _DAY_WORDS:
            return _by_word(word, moment, place)
        if "*" in word or (len(word.split()) == 5 and not _DURATION.fullmatch(word)):
            return _by_cron(word, moment, place)
    step_s = _step_of(repeat)
    return Recurrence(now_wall_s if moment is None else moment.at_s, place, step_s)


def _by_word(word: str, moment: _Moment | None, zone: tzinfo) -> Recurrence:
    if moment is None:
        raise ConfigurationError(f"repeat={word!r} does not say at what time: give at= too, such as at='08:55'")
    local = moment.local
    weekdays = _DAY_WORDS[word] or str(local.isoweekday() % 7)
    rule = parse_cron(
        f"{local.minute} {local.hour} * * {weekdays}", second=local.second + local.microsecond / 1_000_000
    )
    if not moment.is_dated:
        return Recurrence(0.0, zone, None, rule)
    return Recurrence(max(0.0, min(moment.at_s, instant_of(local, zone))), zone, None, rule)


def _by_cron(expression: str, moment: _Moment | None, zone: tzinfo) -> Recurrence:
    if moment is not None and not moment.is_dated:
        raise ConfigurationError(
            f"at= and repeat={expression!r} both say the time of day: leave at= out, or give the date and time before "
            "which nothing is wanted"
        )
    return Recurrence(0.0 if moment is None else moment.at_s, zone, None, parse_cron(expression))


def _step_of(repeat: object) -> float:
    """Return an interval in seconds."""
    step_s = repeat
    if isinstance(repeat, str) and len(repeat) <= MAX_CRON_CHARS:
        text = repeat.strip().lower()
        if text == "hourly":
            step_s = 3600.0
        elif _SECONDS.fullmatch(text):
            step_s = float(text)
        elif match := _DURATION.fullmatch(text):
            parts = zip(match.groups(), _UNITS_S, strict=True)
            step_s = sum(float(number) * unit_s for number, unit_s in parts if number)
    if not _is_within(step_s, MIN_STEP_S, MAX_STEP_S):
        message = (
            f"repeat={_shown(repeat)} is not allowed: it must be seconds or a duration such as '15m' or '1h30m' from 1 "
            f"minute to 366 days, one of hourly, {', '.join(_DAY_WORDS)}, or a cron expression such as '55 8 * * 1-5' "
            f"(at most {MAX_CRON_CHARS} characters)"
        )
        raise ConfigurationError(message)
    return float(step_s)


def _moment_of(at: object, zone: tzinfo, now_wall_s: float) -> _Moment:
    value, local = at, None
    if isinstance(at, str) and len(at) <= _MAX_AT_CHARS:
        if match := _TIME_OF_DAY.fullmatch(at.strip()):
            return _next_time_of_day([int(part or 0) for part in match.groups()], zone, now_wall_s)
        value = _from_iso(at.strip())
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            local = value.replace(tzinfo=None, fold=0)
            value = instant_of(local, zone)
        else:
            value = _aware_instant_of(value)
    if _is_within(value, 0, LATEST_S - 1):
        return _Moment(float(value), local or local_at(value, zone))
    message = (
        f"at={_shown(at)} is not allowed: it must be a datetime, Unix seconds (not milliseconds), a date with a time "
        "such as '2026-11-27T08:55+09:00', or a time of day such as '08:55'; from 1970 to 9998"
    )
    raise ConfigurationError(message)


def _from_iso(text: str) -> datetime | None:
    if not _DATE_AND_TIME.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _next_time_of_day(clock: list[int], zone: tzinfo, now_wall_s: float) -> _Moment:
    hour, minute, second = clock
    at_s = Recurrence(0.0, zone, None, parse_cron(f"{minute} {hour} * * *", second=second)).next_after(now_wall_s)
    if at_s is None:
        raise ConfigurationError(f"there is no time of day after {now_wall_s!r}: the clock is wrong")
    day = local_at(at_s, zone)
    local = day.replace(hour=hour, minute=minute, second=second, microsecond=0)
    return _Moment(at_s, local, is_dated=False)


def _aware_instant_of(moment: datetime) -> float:
    """Return Unix seconds; ``fold`` counts, for it is what tells the two of a doubled time apart."""
    if moment.fold or moment.tzinfo is None:
        return moment.timestamp()
    return instant_of(moment.replace(tzinfo=None), moment.tzinfo)


def _zone_of(zone: object) -> tzinfo:
    """Return the zone in one form: equal zones are equal objects."""
    found = zone
    if isinstance(zone, str):
        found = _zone_named(zone) if len(zone) <= _MAX_ZONE_CHARS else None
    if isinstance(found, tzinfo) and (offset := found.utcoffset(datetime(2000, 1, 1, tzinfo=found))) is not None:
        return timezone(offset) if isinstance(found, timezone) or str(found) == "UTC" else found
    message = (
        f"zone={_shown(zone)} is not a known time zone: it must be an IANA name such as 'Asia/Seoul' or 'UTC' (on "
        "a machine without time zone data: pip install tzdata)"
    )
    raise ConfigurationError(message)


def _zone_named(name: str) -> tzinfo | None:
    try:
        if match := _FIXED_OFFSET.fullmatch(name):
            return datetime.fromisoformat(f"2000-01-01T00:00{match[1]}").tzinfo
        if name == "UTC":
            return UTC
        return ZoneInfo(name) if _ZONE_NAME.fullmatch(name) else None
    except (ValueError, LookupError, OSError):
        return None


def _zone_name(zone: tzinfo) -> str | None:
    """Return the name that ``_zone_of`` knows it by; ``None`` for a zone without one."""
    return str(zone) if isinstance(zone, timezone) else getattr(zone, "key", None)


def _step_phrase(step_s: float) -> str:
    """Return such as ``every 1 hour and 30 minutes``."""
    minutes, seconds = divmod(step_s, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = [(hours, "hour"), (minutes, "minute"), (seconds, "second")]
    words = [f"{count:g} {unit}{'s' if count != 1 else ''}" for count, unit in parts if count]
    return f"every {words[0].removeprefix('1 ') if len(words) == 1 else join_words(words)}"


def _is_within(value: object, low: float, high: float) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _shown(value: object) -> str:
    try:
        return f"{value!r:.100}"
    except ValueError:  # an integer of thousands of digits
        return f"<{type(value).__name__}>"
