"""decision: what the gaps between a model's uses say of its next use, at any age."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import Final

from ondol.preload.gaps import EDGES_S, LAST_BIN, STEPS

__all__ = ["Curve"]

PRIOR_WEIGHT: Final = 4.0
"""How many gaps of its own outweigh what is known of all models."""
_NOTHING_LEFT: Final = 1e-6
_NOTABLE_SHARE: Final = 0.05
_LEAST_MASS: Final = 0.004
_LEAST_EDGE: Final = 0.02
_NEVER: Final = LAST_BIN + 10


class Curve:
    """What the gaps of a model say of its next use, by how long ago the last one was (its age).

    Two functions of the gap x, known at some points and straight between them: F, the probability that the gap is at
    most x, and I, the integral from 0 to x of 1 - F: how long the model is expected to be kept when it is let go of
    after x without a use.

    Source: the slope (F(x) - F(a)) / (I(x) - I(a)), the largest over all x beyond the age a, is the Gittins index of
    a job with that distribution (Aalto, Ayesta, Righter, Queueing Systems 63, 2009). There it says who is served; here
    it is the uses per second of keeping a model, when it is let go of at the best time.
    """

    __slots__ = ("_drops", "_edges", "_f", "_i", "_next", "_x")

    def __init__(self, bins: list[tuple[int, float]], prior: list[float]) -> None:
        """Join a model's own ``bins`` with the octaves of ``prior``. Cost: linear in their number (about 25)."""
        whole = sum([weight for _, weight in bins]) + PRIOR_WEIGHT
        self._x, self._f, self._i = _points(bins, prior, whole)
        self._next = _upper_hull(self._i, self._f)
        self._drops = _ends_of_runs(bins, whole)
        self._edges = _edges(bins, whole)

    def rate(self, age_s: float, least_s: float) -> float:
        """Return the uses a second that keeping the model brings, when it is let go of at the best time.

        Args:
            age_s: since its last use.
            least_s: no model leaves earlier: it counts as kept that long.
        """
        xs, fs, integrals = self._x, self._f, self._i
        k = bisect_right(xs, age_s)
        last = len(xs) - 1
        if k > last:
            return 0.0
        x0, f0, i0 = xs[k - 1], fs[k - 1], integrals[k - 1]
        part = (age_s - x0) / (xs[k] - x0)
        f_now = f0 + (fs[k] - f0) * part
        rest = 1.0 - f_now
        if rest <= _NOTHING_LEFT:
            return 0.0
        i_now = i0 + (integrals[k] - i0) * part - least_s * rest
        if integrals[k] <= i_now:
            return 0.0  # what is left is less than the numbers can tell
        best = (fs[k] - f_now) / (integrals[k] - i_now)
        following = self._next
        while k < last:  # along the upper hull, as _steepest does; written out, for it is the most frequent question
            k = following[k]
            slope = (fs[k] - f_now) / (integrals[k] - i_now)
            if slope <= best:
                break
            best = slope
        return best

    def sure_rate(self, age_s: float, least_s: float, least_probability: float) -> tuple[float, float]:
        """Return what ``rate`` does for times by which it is used with ``least_probability``, and that for the best.

        Both are 0 when there is no such time.
        """
        k, f_now, i_now = self._at(age_s)
        rest = 1.0 - f_now
        needed = f_now + least_probability * rest
        if k >= len(self._x) or rest <= _NOTHING_LEFT or needed > self._f[-1]:
            return 0.0, 0.0
        k = max(k, bisect_left(self._f, needed))
        best, k = self._steepest(k, f_now, i_now - least_s * rest)
        return best, (self._f[k] - f_now) / rest

    def probability(self, age_s: float, within_s: float) -> float:
        """Return the probability of a use within ``within_s``, after ``age_s`` without one."""
        f_now, f_then = self._at(age_s)[1], self._at(age_s + within_s)[1]
        return 0.0 if f_now >= 1.0 else (f_then - f_now) / (1.0 - f_now)

    def quantile(self, age_s: float, share: float) -> float:
        """Return the age by which it is used with a probability of ``share``; infinite when it never may be."""
        f_now = self._at(age_s)[1]
        needed = f_now + share * (1.0 - f_now)
        k = bisect_left(self._f, needed)
        if k >= len(self._f):
            return math.inf
        if k == 0:
            return age_s
        f0, x0 = self._f[k - 1], self._x[k - 1]
        return max(age_s, x0 + (self._x[k] - x0) * (needed - f0) / (self._f[k] - f0))

    def edge_after(self, age_s: float) -> float:
        """Return the next age at which one of its own bins begins or ends; infinite after the last."""
        k = bisect_right(self._edges, age_s)
        return self._edges[k] if k < len(self._edges) else math.inf

    def drop_after(self, age_s: float) -> float:
        """Return the next age at which it is worth less: a time at which many uses came is over. Infinite: never."""
        k = bisect_right(self._drops, age_s)
        return self._drops[k] if k < len(self._drops) else math.inf

    def _at(self, age_s: float) -> tuple[int, float, float]:
        """Return the first point beyond an age, and F and I at the age."""
        xs = self._x
        k = bisect_right(xs, age_s)
        if k >= len(xs):
            return k, self._f[-1], self._i[-1]
        x0, f0, i0 = xs[k - 1], self._f[k - 1], self._i[k - 1]
        part = (age_s - x0) / (xs[k] - x0)
        return k, f0 + (self._f[k] - f0) * part, i0 + (self._i[k] - i0) * part

    def _steepest(self, k: int, f_now: float, i_now: float) -> tuple[float, int]:
        """Return the largest slope from a point to those from ``k`` on, and to which: a walk along their upper hull."""
        fs, integrals, following = self._f, self._i, self._next
        if integrals[k] <= i_now:
            return 0.0, k
        best = (fs[k] - f_now) / (integrals[k] - i_now)
        last = len(fs) - 1
        while k < last:
            beyond = following[k]
            slope = (fs[beyond] - f_now) / (integrals[beyond] - i_now)
            if slope <= best:
                break
            best, k = slope, beyond
        return best, k


def _points(
    bins: list[tuple[int, float]], prior: list[float], whole: float
) -> tuple[list[float], list[float], list[float]]:
    """Return the points at which F has a bend, and F and I there.

    What an octave of the prior holds is spread evenly over it; next to nothing waits for the next octave.
    """
    share = PRIOR_WEIGHT / whole
    xs, fs, integrals = [0.0], [0.0], [0.0]
    x = f = i = waiting = start = 0.0
    position, count = 0, len(bins)
    following = bins[0][0] if bins else _NEVER
    for octave, mass in enumerate(prior):
        end = octave * STEPS + 1  # the first bin after the octave
        high = EDGES_S[end]
        density = 0.0
        if following < end:
            if waiting and x < start:
                before, length = f, start - x
                f += waiting
                i += length * (1.0 - (f + before) / 2.0)
                x, waiting = start, 0.0
                xs.append(x)
                fs.append(f)
                integrals.append(i)
            density, waiting = (waiting + mass * share) / (high - x), 0.0
        else:
            waiting += mass * share
        start = high
        while following < end:
            low, top = EDGES_S[following], EDGES_S[following + 1]
            if low > x:
                before = f
                f += density * (low - x)
                i += (low - x) * (1.0 - (f + before) / 2.0)
                xs.append(low)
                fs.append(f)
                integrals.append(i)
            x, before = top, f
            f += density * (top - low) + bins[position][1] / whole
            i += (top - low) * (1.0 - (f + before) / 2.0)
            xs.append(x)
            fs.append(f)
            integrals.append(i)
            position += 1
            following = bins[position][0] if position < count else _NEVER
        if high > x and (density or waiting >= _LEAST_MASS):
            before, length = f, high - x
            f += waiting + density * length
            i += length * (1.0 - (f + before) / 2.0)
            x, waiting = high, 0.0
            xs.append(x)
            fs.append(f)
            integrals.append(i)
    return xs, fs, integrals


def _upper_hull(xs: list[float], ys: list[float]) -> list[int]:
    """Return for each point the next one on the upper hull of it and those after it."""
    last = len(xs) - 1
    following = [last] * (last + 1)
    for k in range(last - 1, -1, -1):
        x, y = xs[k], ys[k]
        top = k + 1
        dx, dy = xs[top] - x, ys[top] - y
        while top < last:
            beyond = following[top]
            ex, ey = xs[beyond] - x, ys[beyond] - y
            if ey * dx < dy * ex:
                break
            top, dx, dy = beyond, ex, ey
        following[k] = top
    return following


def _edges(bins: list[tuple[int, float]], whole: float) -> list[float]:
    """Return where the bins that matter begin and end."""
    found: list[float] = []
    for own, weight in bins:
        if weight >= _LEAST_EDGE * whole:
            low = EDGES_S[own]
            if not found or found[-1] != low:
                found.append(low)
            found.append(EDGES_S[own + 1])
    return found


def _ends_of_runs(bins: list[tuple[int, float]], whole: float) -> list[float]:
    """Return where adjoining bins end that have a notable share of all gaps together."""
    found, run = [], 0.0
    for place, (own, weight) in enumerate(bins):
        run += weight
        if place + 1 == len(bins) or bins[place + 1][0] > own + 1:
            if run >= _NOTABLE_SHARE * whole:
                found.append(EDGES_S[min(own + 1, LAST_BIN)])
            run = 0.0
    return found
