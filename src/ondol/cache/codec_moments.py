"""decision: the types of ``datetime`` as a few plain parts, and back."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Final

from ondol.cache.codec_arrays import RefusedError
from ondol.errors import CorruptEntryError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MOMENT_KINDS", "moment_of", "moment_parts"]

_DATETIME, _DATE, _TIME, _TIMEDELTA, _TIMEZONE, _ZONE = 32, 33, 34, 35, 36, 37

MOMENT_KINDS: Final = frozenset({_DATETIME, _DATE, _TIME, _TIMEDELTA, _TIMEZONE, _ZONE})

_ZONE_NAME: Final = re.compile(r"[A-Za-z0-9_+\-]{1,32}(/[A-Za-z0-9_+\-]{1,32}){0,3}")


def _clock_parts(value: Any) -> tuple[Any, ...]:
    return value.hour, value.minute, value.second, value.microsecond, value.fold, value.tzinfo


def _day_parts(value: Any) -> tuple[Any, ...]:
    return value.year, value.month, value.day


_PARTS: Final[dict[str, tuple[int, Callable[[Any], tuple[Any, ...]]]]] = {
    "datetime": (_DATETIME, lambda value: _day_parts(value) + _clock_parts(value)),
    "date": (_DATE, _day_parts),
    "time": (_TIME, _clock_parts),
    "timedelta": (_TIMEDELTA, lambda value: (value.days, value.seconds, value.microseconds)),
    "timezone": (_TIMEZONE, lambda value: value.__getinitargs__()),
}


def moment_parts(value: Any, kind: type) -> tuple[int, tuple[Any, ...]] | None:
    """Return the code and the parts of a date, a time, a span or a time zone; ``None`` when it is none of these.

    Raises:
        RefusedError: a time zone that cannot be found again by a name.
    """
    if _is_named(kind, "zoneinfo", "ZoneInfo"):
        if value.key is None or not _ZONE_NAME.fullmatch(value.key):
            raise RefusedError("it is a ZoneInfo without a name of the usual form")
        return _ZONE, (value.key,)
    if kind.__name__ not in _PARTS or not _is_named(kind, "datetime", kind.__name__):
        return None
    code, parts_of = _PARTS[kind.__name__]
    return code, parts_of(value)


def moment_of(code: int, parts: list[Any]) -> Any:
    """Return the value of these parts.

    Raises:
        CorruptEntryError: there is no such time zone.
        ValueError, TypeError, OverflowError: the parts are no moment.
    """
    import datetime as dt  # noqa: PLC0415  # not every program has one in its cache

    if code == _ZONE:
        return _zone_of(*parts)
    if code in {_DATETIME, _TIME}:
        *numbers, fold, zone = parts
        moment: Any = dt.datetime if code == _DATETIME else dt.time
        return moment(*numbers, tzinfo=zone, fold=fold)
    if code == _TIMEZONE:
        return dt.timezone(*parts)
    return (dt.date if code == _DATE else dt.timedelta)(*_integers(parts))


def _integers(parts: list[Any]) -> list[int]:
    if any(type(part) is not int for part in parts):
        raise CorruptEntryError("an entry's value holds a date or a span of time that is none")
    return parts


def _zone_of(name: Any) -> Any:
    import zoneinfo  # noqa: PLC0415  # reads files; most programs have no such values

    if type(name) is not str or not _ZONE_NAME.fullmatch(name):
        raise CorruptEntryError("an entry's value holds a time zone that is none")
    try:
        return zoneinfo.ZoneInfo(name)
    except (OSError, LookupError) as exc:
        raise CorruptEntryError(f"this machine knows no time zone {name!r}") from exc


def _is_named(kind: type, module: str, name: str) -> bool:
    """Whether ``kind`` is that class of the standard library; does not import its module."""
    return kind.__name__ == name and kind is getattr(sys.modules.get(module), name, None)
