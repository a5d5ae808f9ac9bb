"""decision: where a process's control groups are to be seen: its memberships and the mounts that show them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["UNIFIED", "Mount", "memberships", "mounts_of", "path_below"]

UNIFIED: Final = ""
"""The name of the v2 hierarchy where v1 has the name of a controller, as in /proc/self/cgroup."""

_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A place that shows a hierarchy from the group ``root`` on; a container's begins at its own group."""

    root: str
    point: str


def memberships(cgroup_text: str) -> dict[str, tuple[str, str]]:
    """Return for each controller (and ``UNIFIED``) the group's path and the controllers mounted with it."""
    found: dict[str, tuple[str, str]] = {}
    for line in cgroup_text.splitlines():
        _, _, rest = line.partition(":")
        controllers, separator, path = rest.partition(":")
        if separator and path.startswith("/"):
            found |= dict.fromkeys(controllers.split(","), (path, controllers))
    return found


def mounts_of(mountinfo_text: str, controller: str) -> list[Mount]:
    """Return the mounts of a controller, those that show the most of its hierarchy first."""
    found = []
    for line in mountinfo_text.splitlines():
        before, separator, after = line.partition(" - ")
        place, kind = before.split(" "), after.split(" ")
        if not separator or len(place) < 5 or len(kind) < 3:
            continue
        wanted = "cgroup2" if controller == UNIFIED else "cgroup"
        if kind[0] == wanted and (controller == UNIFIED or controller in kind[2].split(",")):
            found.append(Mount(_unescaped(place[3]), _unescaped(place[4])))
    return sorted(found, key=lambda mount: len(mount.root))


def path_below(group: str, root: str) -> list[str] | None:
    """Return the steps from a mount's root to a group; ``None`` when the mount does not show the group."""
    steps = [step for step in group.split("/") if step]
    above = [step for step in root.split("/") if step]
    if ".." in steps or ".." in above or steps[: len(above)] != above:
        return None
    return steps[len(above) :]


def _unescaped(text: str) -> str:
    """Return a path of mountinfo, where spaces and the like are written as octal numbers."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
