"""decision: values with a unit: percentages, bytes, durations."""

from __future__ import annotations

import math
import re
from typing import Final

__all__ = ["GIB", "KIB", "MIB", "Percent", "format_bytes", "format_seconds", "parse_bool"]

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_PERCENT: Final = r"\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*%?\s*\Z"


def _percent_value(other: object) -> float | None:
    if isinstance(other, (int, float)):
        return float(other)
    if isinstance(other, str):
        match = re.match(_PERCENT, other)
        return float(match.group(1)) if match else None
    return None


class Percent(float):
    """A percentage (0 to 100) that prints like ``83.2%`` and compares as a number.

    It compares with numbers (percent points) and with strings such as ``"80%"``.
    Ordering against any other string raises ``TypeError``; equality is then simply false.

    >>> f"{Percent(83.21)}", Percent(9.5) < "80%", Percent(100.0) < "80%"
    ('83.2%', True, False)
    """

    __slots__ = ()

    @classmethod
    def of(cls, part: float, whole: float) -> Percent:
        """Return ``part`` of ``whole`` in percent; 0 % of nothing.

        >>> Percent.of(1, 4), Percent.of(0, 0)
        (Percent(25.0), Percent(0.0))
        """
        return cls(100.0 * part / whole if whole else 0.0)

    def __str__(self) -> str:
        """Return the percentage with one decimal and the sign."""
        return f"{float(self):.1f}%"

    def __repr__(self) -> str:
        """Return an expression that makes the same value."""
        return f"Percent({float(self)!r})"

    def __format__(self, spec: str) -> str:
        """Format like ``str`` without a spec, like a float with one (then without the sign)."""
        return str(self) if not spec else format(float(self), spec)

    def __lt__(self, other: object) -> bool:
        """Compare as numbers."""
        value = _percent_value(other)
        return NotImplemented if value is None else float(self) < value

    def __le__(self, other: object) -> bool:
        """Compare as numbers."""
        value = _percent_value(other)
        return NotImplemented if value is None else float(self) <= value

    def __gt__(self, other: object) -> bool:
        """Compare as numbers."""
        value = _percent_value(other)
        return NotImplemented if value is None else float(self) > value

    def __ge__(self, other: object) -> bool:
        """Compare as numbers."""
        value = _percent_value(other)
        return NotImplemented if value is None else float(self) >= value

    def __eq__(self, other: object) -> bool:
        """Compare as numbers; unlike anything that is no percentage."""
        value = _percent_value(other)
        return NotImplemented if value is None else float(self) == value

    def __ne__(self, other: object) -> bool:
        """Be the opposite of equality (float defines its own)."""
        value = _percent_value(other)
        return NotImplemented if value is None else float(self) != value

    def __hash__(self) -> int:
        """Hash like the float it is."""
        return hash(float(self))


def parse_bool(text: str) -> bool | None:
    """Read ``true/false/1/0/yes/no/on/off`` in any case; ``None`` when it is none of these.

    >>> parse_bool(" Yes "), parse_bool("OFF"), parse_bool("maybe")
    (True, False, None)
    """
    word = text.strip().lower()
    if word in _TRUE:
        return True
    return False if word in _FALSE else None


def format_bytes(count: float) -> str:
    """Return ``count`` bytes for people, in binary units.

    >>> format_bytes(512), format_bytes(32 * 1024 * 1024)
    ('512 B', '32.0 MiB')
    """
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < KIB:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= KIB
    return f"{value:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """Return a duration for people.

    >>> format_seconds(0.0004), format_seconds(0.25), format_seconds(3.5), format_seconds(125)
    ('400 µs', '250 ms', '3.50 s', '2 min 5 s')
    """
    if not math.isfinite(seconds):
        return str(seconds)
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
