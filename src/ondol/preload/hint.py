"""decision: one hint: when its model is wanted next, when its load begins, and until when it is kept."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.errors import ConfigurationError
from ondol.models.spec import MAX_NAME_CHARS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, tzinfo

    from ondol.preload.recurrence import Recurrence

__all__ = ["LONGEST_HOLD_S", "Asked", "Hint", "HintStatus", "asked_of", "check_hint", "hint_from_plain", "hint_id"]

LONGEST_HOLD_S: Final = 86400.0
_LEAD_FACTOR: Final = 1.5
_LEAD_EXTRA_S: Final = 5.0
_PLAIN_NAMES: Final = {"asked", "hold_s", "recurrence"}


class Asked(NamedTuple):
    """A hint as it was given; what is the same here is the same hint."""

    model: str
    at: str | float | None
    repeat: str | float | None
    zone: str | None


class HintStatus(NamedTuple):
    """What can be seen of a hint.

    Attributes:
        id: what it is removed by; the same hint has always the same.
        model: the model that is wanted.
        description: when, in words.
        next_at_s: when it is wanted next, in seconds since 1970; ``None``: never again.
        load_at_s: when its load begins for that, if it is not in memory then.
        lead_s: how long before; from what is known of its load now.
        hold_s: how long it is kept after each of the times.
        is_active: it is being loaded, or kept, for one of the times now.
        is_registered: whether there is such a model (yet).
        loads: how many loads it led to; ``failures``: of them, those that failed; ``missed``: times at which none was
            possible, because preloading was off or paused, or the model not registered.
        last_error: of the last load, ``None`` when it succeeded.
    """

    id: str
    model: str
    description: str
    next_at_s: float | None
    load_at_s: float | None
    lead_s: float
    hold_s: float
    is_active: bool
    is_registered: bool
    loads: int
    failures: int
    missed: int
    last_error: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return self._asdict()


def asked_of(model: str, at: datetime | float | str | None, repeat: str | float | None, zone: object) -> Asked:
    """Return what was asked for in one spelling; the values have been found to be allowed."""
    spelled = at.strip() if isinstance(at, str) else at
    if spelled is not None and not isinstance(spelled, (str, int, float)):
        spelled = spelled.isoformat()
    often = " ".join(repeat.lower().split()) if isinstance(repeat, str) else repeat
    return Asked(model, spelled, often, None if zone is None else str(zone))


def hint_id(asked: Asked) -> str:
    """Return a short name for it, the same in every process.

    >>> hint_id(Asked("report", "08:55", "daily", None))
    'h66173c10d5'
    """
    import hashlib  # noqa: PLC0415  # an idle start shall not pay for it

    return "h" + hashlib.blake2s(json.dumps(asked).encode(), digest_size=5).hexdigest()


def check_hint(model: object, hold_s: object) -> None:
    """Check what a hint is for, and how long its model is kept.

    Raises:
        ConfigurationError: the model's name could be none, or the time is out of its range.
    """
    is_name = isinstance(model, str) and 0 < len(model) <= MAX_NAME_CHARS and model.isprintable()
    if not is_name or model != str(model).strip():
        message = f"a hint's model must be 1 to {MAX_NAME_CHARS} printable characters, not {model!r:.100}"
        raise ConfigurationError(message)
    if isinstance(hold_s, bool) or not isinstance(hold_s, (int, float)) or not 0.0 <= hold_s <= LONGEST_HOLD_S:
        message = f"a hint keeps its model for 0 to {LONGEST_HOLD_S:g} seconds (a day), not {hold_s!r:.100}"
        raise ConfigurationError(message)


class Hint:
    """One hint. All times are those of the wall clock.

    Attributes:
        next_at_s: the next time its model is wanted; ``None``: never again.
        last_at_s: the last one that was acted upon; until ``until_s`` the model is kept for it.
        lead_s: how long before each time the load begins.
        again_at_s: when a load that found no room is tried once more.
        is_pending: its model is to be loaded as soon as possible; ``is_begun``: that load is under way.
    """

    __slots__ = (
        *("again_at_s", "asked", "failures", "hold_s", "id", "is_begun", "is_pending", "last_at_s", "last_error"),
        *("lead_s", "loads", "missed", "next_at_s", "recurrence", "until_s"),
    )

    def __init__(self, asked: Asked, recurrence: Recurrence, hold_s: float) -> None:
        """Take what was asked for; it is planned by ``plan``."""
        self.id = hint_id(asked)
        self.asked = asked
        self.recurrence = recurrence
        self.hold_s = hold_s
        self.lead_s = _LEAD_EXTRA_S
        self.loads = self.failures = self.missed = 0
        self.last_error: str | None = None
        self.next_at_s: float | None = None
        self.restart()

    def restart(self) -> None:
        """Forget what was done for it: nothing of that outlives the loop it was done in."""
        self.last_at_s: float | None = None
        self.until_s = -math.inf
        self.again_at_s: float | None = None
        self.is_pending = self.is_begun = False

    def renew(self, recurrence: Recurrence, hold_s: float, now_s: float) -> None:
        """Take it as it was given again. An interval that begins at no certain time goes on as it began."""
        self.hold_s = hold_s
        if self.asked.at is not None or self.recurrence.next_after(now_s) is None:
            self.recurrence = recurrence
        self.plan(now_s)

    def set_load(self, load_s: float) -> None:
        """Take how long the load takes, with those of what it depends on."""
        self.lead_s = _LEAD_FACTOR * load_s + _LEAD_EXTRA_S

    def plan(self, now_s: float) -> None:
        """Find the next time; one so lately past that the model would still be kept counts, unless acted upon."""
        bound_s = now_s - self.hold_s
        last_s = self.last_at_s
        if last_s is not None and abs(last_s - now_s) <= self.hold_s + self.lead_s:
            bound_s = max(bound_s, last_s)
        else:
            self.until_s = min(self.until_s, now_s)  # the clock was set to another time
        self.next_at_s = self.recurrence.next_after(bound_s)

    def is_active(self, now_s: float) -> bool:
        """Tell whether it acts now."""
        return now_s < self.until_s

    def is_over(self, now_s: float) -> bool:
        """Tell whether it will never act again."""
        return self.next_at_s is None and not self.is_active(now_s)

    def load_at_s(self) -> float:
        """Return when it acts next; infinite: never."""
        return math.inf if self.next_at_s is None else self.next_at_s - self.lead_s

    def boundary_s(self, now_s: float) -> float:
        """Return when something about it changes next."""
        bounds = [self.load_at_s(), self.until_s if self.is_active(now_s) else math.inf]
        return min(bounds) if self.again_at_s is None else min(*bounds, self.again_at_s)

    def advance(self, now_s: float) -> bool:
        """Act on the times that have come; return whether its model is to be loaded anew, or no longer."""
        was_pending = self.is_pending
        is_due = False
        while self.next_at_s is not None and self.load_at_s() <= now_s:
            self.last_at_s, self.until_s = self.next_at_s, self.next_at_s + self.hold_s
            self.next_at_s = self.recurrence.next_after(self.last_at_s)
            is_due = True
        if self.again_at_s is not None and self.again_at_s <= now_s:
            self.again_at_s, is_due = None, True
        self.is_pending = (was_pending or is_due) and self.is_active(now_s)
        if (was_pending or is_due) and not self.is_pending:
            self.missed += 1
        return is_due or was_pending != self.is_pending

    def ended(self, error: str | None, *, has_no_room: bool, now_s: float) -> None:
        """Note how the load that was begun for it ended. What found no room too early is tried again at the time."""
        self.is_begun = False
        self.loads += 1
        self.last_error = error
        if error is not None:
            self.failures += 1
            last_s = self.last_at_s
            self.again_at_s = last_s if has_no_room and last_s is not None and now_s < last_s else None

    def status(self, now_s: float, *, is_registered: bool) -> HintStatus:
        """Return what can be seen of it."""
        return HintStatus(
            self.id,
            self.asked.model,
            self.recurrence.describe(),
            self.next_at_s,
            None if self.next_at_s is None else self.load_at_s(),
            self.lead_s,
            self.hold_s,
            self.is_active(now_s),
            is_registered,
            self.loads,
            self.failures,
            self.missed,
            self.last_error,
        )

    def to_plain(self) -> dict[str, Any]:
        """Return it as data for JSON."""
        return {"asked": list(self.asked), "hold_s": self.hold_s, "recurrence": self.recurrence.to_plain()}


def hint_from_plain(plain: Mapping[str, Any], local_zone: tzinfo) -> Hint:
    """Return what ``to_plain`` gave; ``local_zone`` stands for a zone without a name.

    Raises:
        ValueError: it is of another form.
    """
    from ondol.preload.recurrence import Recurrence  # noqa: PLC0415  # an idle start shall not pay for it

    if not isinstance(plain, dict) or set(plain) != _PLAIN_NAMES or not _is_asked(plain["asked"]):
        message = f"a stored hint must have exactly the fields {', '.join(sorted(_PLAIN_NAMES))}, not {plain!r:.100}"
        raise ValueError(message)
    asked = Asked(*plain["asked"])
    check_hint(asked.model, plain["hold_s"])
    recurrence = Recurrence.from_plain(plain["recurrence"], local_zone=local_zone)
    return Hint(asked, recurrence, float(plain["hold_s"]))


def _is_asked(asked: object) -> bool:
    if not isinstance(asked, list) or len(asked) != len(Asked._fields):
        return False
    _model, at, repeat, zone = asked
    are_times = all(each is None or isinstance(each, (str, int, float)) for each in (at, repeat))
    return are_times and (zone is None or isinstance(zone, str))
