"""decision: which tiers lie below the memory of a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ondol.units import MIB

if TYPE_CHECKING:
    from pathlib import Path

    from ondol.cache.ports import SharedStore

__all__ = ["DEFAULT_DISK_BYTES", "DEFAULT_NAMESPACE", "TierOptions"]

DEFAULT_DISK_BYTES: Final = 1024 * MIB
DEFAULT_NAMESPACE: Final = "ondol"


class TierOptions(NamedTuple):
    """Which tiers lie below the memory."""

    disk_dir: str | Path | None = None
    """Folder of the disk tier; ``None``: there is none."""
    disk_max_bytes: int = DEFAULT_DISK_BYTES
    redis_url: str | None = None
    """Address of the shared tier, on Redis or Valkey; ``None``: there is none."""
    store: SharedStore | None = None
    """What to share through in place of ``redis_url``; each cache needs one of its own."""
    namespace: str = DEFAULT_NAMESPACE
    """What tells the entries of this application from others on the same server."""
    lease_s: float = 5.0
    """How long others wait for a process that computes and was killed."""
    timeout_s: float = 0.2
    """How long one round trip to the shared store may take before it counts as failed."""

    @property
    def is_any(self) -> bool:
        """Whether there are any."""
        return self.disk_dir is not None or self.is_shared

    @property
    def is_shared(self) -> bool:
        """Whether one of them is shared with other processes."""
        return self.redis_url is not None or self.store is not None
