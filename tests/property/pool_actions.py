"""What can be done to a pool of fake models, with the values that each argument may have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ondol.models import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ACTIONS", "AT_FIRST", "LEASE_TIMEOUT_S", "LIMIT", "NAMES", "PAUSES_S", "RETRIES", "SIZES", "Arguments"]

NAMES = ("base", "left", "right", "app", "lone", "large", "odd", "late")
DEPENDENCIES: tuple[tuple[str, ...], ...] = (
    *((),) * 4,
    *(("base",),) * 3,
    ("left", "right"),
    ("right",),
    ("lone",),
    ("app",),
    ("ghost",),  # nobody ever registers it
)
AT_FIRST = {"left": ("base",), "right": ("base",), "app": ("left", "right")}
SIZES = {"base": 20, "left": 20, "right": 25, "app": 25, "lone": 60, "large": 95, "odd": 10}
LIMIT = 100
LEASE_TIMEOUT_S = 20.0

_WELL = ("well",) * 14
LOAD_MOODS = (
    *_WELL,
    "error",
    "error",
    "hopeless",
    "cancelled",
    "memory",
    "exit",
    "base",
    "hang",
    "stubborn",
    "timeout",
)
WARM_MOODS = (*_WELL, "error", "cancelled", "exit", "hang", "slow")
UNLOAD_MOODS = (*_WELL, "error", "cancelled", "exit", "slow", "stubborn")
RETRIES = (
    RetryPolicy(attempts=3, first_s=0.5),
    RetryPolicy(attempts=2, first_s=0.0, stable_s=0.0),
    RetryPolicy(attempts=5, first_s=4.0, most_s=9.0, stable_s=3.0),
    RetryPolicy(attempts=1),
    None,
)
PAUSES_S = (0.0, 0.0, 0.0, 0.3, 1.0, 1.0, 4.0, 15.0)
_BOTH = (False, True)

Arguments = dict[str, Any]

ACTIONS: Mapping[str, tuple[int, Mapping[str, Sequence[Any]]]] = {
    # kind: (weight, {argument: its possible values})
    "lease": (
        24,
        {
            "name": NAMES,
            "seconds": (0.0, 0.1, 1.0, 1.0, 3.0, 30.0),
            "nested": (None, None, None, *NAMES),
            "is_failing": (False, False, True),
        },
    ),
    "load": (
        8,
        {
            "name": NAMES,
            "is_background": _BOTH,
            "displacing": ((), (), ("base", "lone"), NAMES),
            "is_only": (False, False, True),
        },
    ),
    "promise": (2, {"name": NAMES, "seconds": (-1.0, 0.5, 10.0, 60.0)}),
    "advise": (2, {"names": (None, NAMES, NAMES[::-1], ("lone", "nobody", "base")), "fails_after": (0, 1, 9, 9, 9)}),
    "unload": (6, {"name": NAMES}),
    "reload": (6, {"name": NAMES}),
    "cancel": (8, {"number": tuple(range(12))}),
    "ambush": (
        8,
        {
            "event": ("ready", "ready", "failed", "unloaded", "leased", "crashed", "asked", "loading", "leaving"),
            "deed": ("cancel", "cancel", "cancel", "unload", "reload", "renew", "release", "limit", "crash"),
        },
    ),
    "register": (
        6,
        {
            "name": NAMES,
            "depends_on": DEPENDENCIES,
            "kind": ("async", "async", "sync", "process"),
            "size_bytes": (None, 0, 10, 25, 40),
            "seconds": (0.0, 1.0, 1.0, 5.0),
            "warm_up": (None, None, "async", "sync"),
            "ttl_s": (None, None, 2.0, 40.0),
            "load_timeout_s": (None, 3.0, 8.0),
            "residency": ("lazy", "lazy", "lazy", "pinned"),
            "priority": (1, 5, 9),
            "version": ("", "1", "2"),
        },
    ),
    "renew": (5, {"name": NAMES}),
    "load_mood": (10, {"name": NAMES, "mood": LOAD_MOODS}),
    "warm_mood": (3, {"name": NAMES, "mood": WARM_MOODS}),
    "unload_mood": (3, {"name": NAMES, "mood": UNLOAD_MOODS}),
    "grow": (3, {"name": NAMES, "extra_bytes": (0, 0, 0, 15, 45, -5)}),
    "crash": (8, {"number": tuple(range(4))}),
    "pin": (2, {"name": NAMES}),
    "unpin": (4, {"name": NAMES}),
    "release": (5, {"name": NAMES}),
    "limit": (3, {"limit_bytes": (30, 60, 80, LIMIT, LIMIT, 150, None)}),
    "slots": (2, {"demand": (1, 2, 4), "background": (1, 2)}),
    "lazy": (1, {"is_on": (True, True, False), "expected": ((), ("base", "app"), NAMES)}),
    "retry": (2, {"number": tuple(range(len(RETRIES)))}),
    "idle": (2, {"ttl_s": (None, None, 1.0, 10.0)}),
    "patience": (2, {"lease_timeout_s": (0.5, 5.0, LEASE_TIMEOUT_S), "load_timeout_s": (None, None, 0.7, 6.0)}),
    "disk": (1, {"is_broken": (False, False, True)}),
    "probe": (1, {"is_broken": (False, False, True)}),
    "calm": (6, {}),
    "start": (4, {}),
    "stop": (3, {"grace_s": (None, 0.0, 0.5, 3.0, 1000.0), "restarts": (True, True, True, False)}),
    "new_loop": (1, {"is_stopped": _BOTH}),
    "wait": (6, {"seconds": (0.1, 2.0, 20.0, 70.0)}),
}
