"""decision: a part of the memory tier with a bound and a policy of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ondol.cache.policies.protocol import EvictionPolicy

__all__ = ["Partition", "most_over"]


class Partition:
    """Entries that compete for ``max_bytes`` with each other: those of one name with a quota, or all others."""

    __slots__ = ("admit", "is_shared", "max_bytes", "policy", "used_bytes")

    def __init__(self, policy: EvictionPolicy, max_bytes: int, *, is_shared: bool = False) -> None:
        self.policy = policy
        self.admit = policy.admitted
        self.max_bytes = max_bytes
        self.is_shared = is_shared
        """Whether it is that of all names without a quota."""
        self.used_bytes = 0
        """Kept for names with quotas; what all others take is the rest."""
        policy.resized(max_bytes)

    def change(self, policy: EvictionPolicy) -> None:
        """Let another policy decide, which knows none of the entries yet."""
        self.policy = policy
        self.admit = policy.admitted
        policy.resized(self.max_bytes)

    def resize(self, max_bytes: int) -> None:
        """Set the bound."""
        if max_bytes != self.max_bytes:
            self.max_bytes = max_bytes
            self.policy.resized(max_bytes)

    def get_stats(self) -> dict[str, Any]:
        """Return its figures and those of its policy."""
        return {**self.policy.get_stats(), "used_bytes": self.used_bytes, "max_bytes": self.max_bytes}


def most_over(partitions: list[Partition], shared: Partition, total_bytes: int) -> Partition:
    """Return the partition that gives way when the whole tier is full.

    That is the one that takes the most of its share. A quota is a bound, not a reservation: what names with quotas do
    not use, the others may; the share of ``shared`` is what the quotas leave, at least a tenth.
    """
    kept_bytes = max(total_bytes - sum(p.max_bytes for p in partitions if p is not shared), total_bytes // 10, 1)

    def fullness(partition: Partition) -> float:
        return partition.used_bytes / (kept_bytes if partition is shared else partition.max_bytes)

    return max(partitions, key=fullness)
