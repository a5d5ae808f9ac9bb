"""decision: which alerts are silent for now, by labels and until an end that every silence has."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.errors import MonitorError
from ondol.monitor.alert_rule import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MAX_SILENCES", "MAX_SILENCE_S", "PlannedSilence", "Silence", "SilenceBook", "matcher_refusals"]

MAX_SILENCES: Final = 200
MAX_SILENCE_S: Final = 365 * 86400.0
MAX_MATCHERS: Final = 16
MAX_TEXT_CHARS: Final = 200
_MAX_COMMENT_CHARS: Final = 1000
_ID_TRIES: Final = 100


class PlannedSilence(NamedTuple):
    """A silence with ends on the calendar, as files give it; in wall-clock seconds since the Unix epoch."""

    matchers: Mapping[str, str]
    ends_at: float
    starts_at: float | None = None
    """``None``: at once."""
    comment: str = ""
    created_by: str = ""


class Silence(NamedTuple):
    """Holds back the notices of the alerts that it matches; the alerts themselves are evaluated and shown."""

    id: str
    matchers: Mapping[str, str]
    """A glob (``*``, ``?``, ``[…]``; case matters) for each label that an alert must have."""
    starts_at: float
    ends_at: float
    """Both in wall-clock seconds since the Unix epoch, as they looked when the silence was made."""
    comment: str = ""
    created_by: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**self._asdict(), "matchers": dict(self.matchers)}

    def is_matching(self, labels: Mapping[str, str]) -> bool:
        """Return whether ``labels`` have every label of the matchers, with a value that fits its glob."""
        return all(name in labels and fnmatchcase(labels[name], glob) for name, glob in self.matchers.items())


class _Kept(NamedTuple):
    silence: Silence
    starts_s: float
    ends_s: float


class SilenceBook:
    """The silences that are or will be. Not thread-safe: its owner locks.

    Monotonic time decides when one begins and ends: setting the machine's clock neither ends nor prolongs it.
    """

    def __init__(self, make_id: Callable[[], str]) -> None:
        """Begin empty; ``make_id`` gives short random texts."""
        self._make_id = make_id
        self._kept: dict[str, _Kept] = {}

    def add(
        self,
        matchers: Mapping[str, str],
        duration_s: float,
        *,
        now_s: float,
        wall_s: float,
        starts_in_s: float = 0.0,
        comment: str = "",
        created_by: str = "",
    ) -> Silence:
        """Silence what ``matchers`` fit, for ``duration_s`` from ``starts_in_s`` on.

        Raises:
            MonitorError: an argument is not valid, or there are ``MAX_SILENCES`` silences already.
        """
        for refusal in matcher_refusals(matchers):
            raise MonitorError(f"silence: {refusal}")
        _check_span("duration_s", duration_s, is_zero_allowed=False)
        _check_span("starts_in_s", starts_in_s, is_zero_allowed=True)
        _check_text("comment", comment, _MAX_COMMENT_CHARS)
        _check_text("created_by", created_by, MAX_TEXT_CHARS)
        self._drop_ended(now_s)
        if len(self._kept) >= MAX_SILENCES:
            raise MonitorError(
                f"there are {MAX_SILENCES} silences already, which is the most there may be: end some of them, or use "
                "one with a broader pattern"
            )
        starts_at = wall_s + starts_in_s
        fixed = MappingProxyType(dict(matchers))
        silence = Silence(self._new_id(), fixed, starts_at, starts_at + duration_s, comment, created_by)
        starts_s = now_s + starts_in_s
        self._kept[silence.id] = _Kept(silence, starts_s, starts_s + duration_s)
        return silence

    def _new_id(self) -> str:
        for _ in range(_ID_TRIES):
            new = self._make_id()
            if new not in self._kept:
                return new
        raise MonitorError(f"no unused id for a silence in {_ID_TRIES} tries: the source of ids repeats itself")

    def remove(self, silence_id: str, now_s: float) -> bool:
        """End a silence; return whether there was one of that id that had not ended."""
        self._drop_ended(now_s)
        return self._kept.pop(silence_id, None) is not None

    def current(self, now_s: float) -> list[Silence]:
        """Return the silences that are or will be, in the order they were made."""
        self._drop_ended(now_s)
        return [kept.silence for kept in self._kept.values()]

    def states(self, now_s: float) -> list[dict[str, Any]]:
        """Return the same as plain values, with ``state`` (``active`` or ``future``) and ``ends_in_seconds``."""
        self._drop_ended(now_s)
        return [
            {
                **kept.silence.as_dict(),
                "state": "active" if kept.starts_s <= now_s else "future",
                "ends_in_seconds": kept.ends_s - now_s,
            }
            for kept in self._kept.values()
        ]

    def find(self, labels: Mapping[str, str], now_s: float) -> Silence | None:
        """Return the silence that holds back an alert with ``labels`` now; of several, the one that ends last."""
        fitting = [
            kept
            for kept in self._kept.values()
            if kept.starts_s <= now_s < kept.ends_s and kept.silence.is_matching(labels)
        ]
        return max(fitting, key=lambda kept: kept.ends_s).silence if fitting else None

    def _drop_ended(self, now_s: float) -> None:
        self._kept = {key: kept for key, kept in self._kept.items() if now_s < kept.ends_s}


def matcher_refusals(matchers: object) -> Iterator[str]:
    """Yield what is wrong with the matchers of a silence, one sentence each."""
    if not isinstance(matchers, Mapping) or not 1 <= len(matchers) <= MAX_MATCHERS:
        allowed = f"it must be a mapping of 1 to {MAX_MATCHERS} label names to globs, such as alertname = 'disk_*'"
        yield f"matchers={shown(matchers)} is not allowed: {allowed}"
        return
    for name, glob in matchers.items():
        if not _is_short_text(name) or not _is_short_text(glob):
            allowed = f"both must be texts of 1 to {MAX_TEXT_CHARS} characters"
            yield f"matchers: {shown(name)}={shown(glob)} is not allowed: {allowed}"


def _is_short_text(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= MAX_TEXT_CHARS


def _check_span(name: str, value: object, *, is_zero_allowed: bool) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Compared before it is asked whether it is finite: an int may be beyond what a float can hold.
    if is_number and 0 <= value <= MAX_SILENCE_S and isfinite(value) and (value or is_zero_allowed):  # type: ignore[operator,arg-type]  # a number
        return
    sign = "≥ 0" if is_zero_allowed else "> 0"
    allowed = f"it must be a number of seconds {sign} and at most {MAX_SILENCE_S:.0f} (365 days)"
    raise MonitorError(f"silence: {name}={shown(value)} is not allowed: {allowed}")


def _check_text(name: str, value: object, limit: int) -> None:
    if not isinstance(value, str) or len(value) > limit:
        raise MonitorError(
            f"silence: {name}={shown(value)} is not allowed: it must be a text of at most {limit} characters"
        )
