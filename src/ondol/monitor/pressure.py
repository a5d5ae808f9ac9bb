"""adapter: where the kernel tells how long work waits for memory, CPUs and disks (pressure stall information)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PRESSURES", "pressure_files"]

PRESSURES: Final = ("memory", "cpu", "io")


def pressure_files(proc_root: Path, own_group: Path | None) -> list[tuple[str, list[Path]]]:
    """Return for each of ``PRESSURES`` its files, best first: the own v2 group's, which not all have, the machine's."""
    of_group = [] if own_group is None else [own_group]
    return [
        (name, [*(folder / f"{name}.pressure" for folder in of_group), proc_root / "pressure" / name])
        for name in PRESSURES
    ]
