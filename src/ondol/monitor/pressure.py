"""adapter: where the kernel tells how long work waits for memory, CPUs and disks (pressure stall information)."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from ondol.monitor.kernel_text import pressure_percent
from ondol.monitor.proc_files import KeptRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["PRESSURES", "SeldomPressures", "pressure_files"]

PRESSURES: Final = ("memory", "cpu", "io")


def pressure_files(proc_root: Path, own_group: Path | None) -> list[tuple[str, list[Path]]]:
    """Return for each of ``PRESSURES`` its files, best first: the own v2 group's, which not all have, the machine's."""
    of_group = [] if own_group is None else [own_group]
    return [
        (name, [*(folder / f"{name}.pressure" for folder in of_group), proc_root / "pressure" / name])
        for name in PRESSURES
    ]


class SeldomPressures:
    """Reads some of the files no more often than the kernel's means cover: every ten seconds. Not thread-safe."""

    INTERVAL_S: Final = 10.0

    def __init__(self) -> None:
        """Look at nothing yet."""
        self._row: KeptRow[str] = KeptRow(())
        self._read_at_s = -inf
        self._percent: dict[str, float | None] = {}

    def look_at(self, files: Sequence[tuple[str, Sequence[Path]]]) -> None:
        """Read these from now on."""
        self._row.close()
        self._row, self._read_at_s = KeptRow(files), -inf

    def read(self, now_s: float) -> Mapping[str, float | None]:
        """Return the percentages by name."""
        if now_s - self._read_at_s >= self.INTERVAL_S:
            self._read_at_s = now_s
            texts = self._row.read()
            self._percent = dict(zip(self._row.keys, map(pressure_percent, texts), strict=False))
        return self._percent

    def forget_missing(self) -> None:
        """Look again for files that did not exist."""
        self._row.forget_missing()

    def close(self) -> None:
        """Give the descriptors back; the next call opens the files again."""
        self._row.close()
        self._read_at_s = -inf
