"""How long a set takes that has to evict, in caches bounded in the same real bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cache_speed_timing import ROUNDS, Contender, taken_in_turn
from harness import Figure, machine, package

from ondol import Cache
from ondol.cache.sizing import entry_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["set_rows"]

OURS = "ondol"
BOUND_BYTES = 32 * 1024 * 1024
VALUES = [f"{number:04d}" * 256 for number in range(64)]
"""Of 1 KB each."""
_COUNT = 10_000
_KEY = "item-0000000000"
_ENTRIES = BOUND_BYTES // entry_size(_KEY, VALUES[0])


def weigh(key: Any, value: Any) -> int:
    """Return what an entry weighs in every cache: what it weighs in ours."""
    return entry_size(key, value)


def weigh_value(value: Any) -> int:
    """Do what ``weigh`` does where the key is not given; all keys are equally long."""
    return entry_size(_KEY, value)


def set_rows() -> Iterator[Figure]:
    """Measure it."""
    import cachebox
    import cachetools
    import lru
    import moka_py
    import theine

    weighed: dict[str, Any] = {
        package("cachetools"): cachetools.LRUCache(maxsize=BOUND_BYTES, getsizeof=weigh_value),
        package("cachebox"): cachebox.LRUCache(BOUND_BYTES, getsizeof=weigh),
    }
    moka: Any = moka_py.Moka(BOUND_BYTES, weigher=weigh)
    by_count: Any = lru.LRU(_ENTRIES)
    counted: Any = theine.Cache(_ENTRIES)
    setters: dict[str, Callable[..., object]] = {
        OURS: Cache(max_bytes=BOUND_BYTES).set_nowait,
        **{label: theirs.__setitem__ for label, theirs in weighed.items()},
        package("moka-py"): moka.set,
        f"{package('lru-dict')} (entries)": by_count.__setitem__,
        f"{package('theine')} (entries)": counted.set,
    }
    names = {label.split()[0]: label for label in setters}
    times = taken_in_turn([contender(label, put) for label, put in setters.items()])
    counted.close()
    what = "byte-bounded set with eviction, 1 KB"
    how = (
        "new keys into a full cache of 32 MiB, each entry weighed by ondol's entry_size (those marked are bounded in "
        f"as many entries and weigh nothing); CPU time of the process, {ROUNDS} rounds in turn, one core; {machine()}"
    )
    yield Figure(what, times.of(OURS), "ns", conditions=how)
    for name, label in names.items():
        if name != OURS:
            target = 1.0 if name in {"cachetools", "moka-py"} else None
            yield Figure(f"{what}: time against {name}", times.ratio(OURS, label), "x", target, "lower", label, how)


def contender(label: str, put: Callable[..., object]) -> Contender:
    """Return one that sets new keys in each round, after filling the cache before the first."""
    set_all = set_all_of_ours if label == OURS else set_all_of_theirs

    def prepare(number: int) -> Callable[[], object]:
        if number == 0:
            set_all(put, [f"fill-{place:010d}" for place in range(_ENTRIES)])
        keys = [f"item-{number * _COUNT + place:010d}" for place in range(_COUNT)]
        return lambda: set_all(put, keys)

    return Contender(label, _COUNT, prepare)


def set_all_of_ours(put: Callable[..., object], keys: list[str]) -> None:
    """Set each key under one name."""
    for place, key in enumerate(keys):
        put("item", VALUES[place & 63], key)


def set_all_of_theirs(put: Callable[..., object], keys: list[str]) -> None:
    """Set each key."""
    for place, key in enumerate(keys):
        put(key, VALUES[place & 63])
