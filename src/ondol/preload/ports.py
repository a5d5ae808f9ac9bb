"""decision: what keeps and exchanges the knowledge of preloading, and what that knowledge has to be able to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Foreign", "HintStore", "HistoryStore", "Kept", "Knowledge", "KnowledgeExchange", "Taken"]


class Knowledge(Protocol):
    """What was learnt from use. No locks of its own: whoever calls it holds the one of its owner."""

    def to_plain(self, now_s: float) -> dict[str, Any]:
        """Return everything as data that JSON can hold, with ages in place of times.

        The owner must not change it afterwards: it is written in another thread.
        """
        ...

    def take_in(self, plain: Mapping[str, Any], now_s: float) -> int:
        """Add what ``plain`` says of models that nothing, or less, is known of; its ages count from ``now_s``.

        Returns:
            How many models that were.

        Raises:
            ValueError: it is damaged; nothing was taken in.
        """
        ...

    def replay(self, name: str, at_s: float) -> None:
        """Take note of one use that happened at ``at_s``, which is never later than now."""
        ...


class Kept(NamedTuple):
    """What a store holds: a snapshot, and the uses since then."""

    generation: str | None = None
    """Which snapshot it is; another one has another. ``None``: there is nothing."""
    knowledge: dict[str, Any] | None = None
    uses: tuple[tuple[str, float], ...] = ()
    """Model and seconds since the snapshot, in the order in which they were written."""
    moment_s: float = 0.0
    """The last moment that is known of, in seconds since the snapshot."""
    damage: tuple[Exception, ...] = ()
    """What was found damaged, and set aside by the process that writes."""
    is_torn: bool = False
    """Whether the end was cut off in the middle of a record, as by a crash; what came before is in ``uses``."""


class HistoryStore(Protocol):
    """Where the knowledge outlives the process. Every method may block; they are not called at the same time."""

    def open(self) -> bool:
        """Become the one process that writes, unless another is; return whether this is the one. May be repeated.

        Raises:
            OSError: it cannot be found out.
        """
        ...

    def read(self) -> Kept:
        """Return what is there. Damage is no error.

        Raises:
            OSError: it cannot be read.
        """
        ...

    def write(self, plain: Mapping[str, Any]) -> str:
        """Replace everything by a snapshot and no uses; return its generation.

        Raises:
            OSError: it cannot be written; a snapshot is there still, the old one or this one.
            ValueError: it is larger than what is read again.
        """
        ...

    def append(self, uses: Sequence[tuple[str, float]], moment_s: float) -> bool:
        """Keep uses (model, seconds since the snapshot) and the moment; return false when a snapshot is due instead.

        Raises:
            OSError: it cannot be written; only a snapshot helps then.
        """
        ...

    def set_aside(self) -> None:
        """Rename the snapshot, which turned out to be of no use; one of that name is replaced.

        Raises:
            OSError: it cannot be renamed.
        """
        ...

    def close(self) -> None:
        """Let another process write. May be called twice, and opened again."""
        ...


class HintStore(Protocol):
    """Where hints outlive the process. Every method may block."""

    def read(self) -> dict[str, Any] | None:
        """Return what was written last, ``None`` when nothing was.

        Raises:
            OSError: it cannot be read.
            ValueError: it is damaged.
        """
        ...

    def write(self, plain: dict[str, Any]) -> None:
        """Replace what is there.

        Raises:
            OSError: it cannot be written; what was there is there still.
        """
        ...

    def set_aside(self) -> None:
        """Put away what turned out to be damaged.

        Raises:
            OSError: it cannot be put away.
        """
        ...


class Foreign(NamedTuple):
    """What another node knows."""

    node: str
    written_at_s: float
    """Seconds since the epoch by that node's clock: it tells a newer one from an older one, and nothing else."""
    knowledge: dict[str, Any]


class Taken(NamedTuple):
    """What other nodes have left, freshest first."""

    nodes: tuple[Foreign, ...] = ()
    damaged: int = 0
    """How many nodes left something that cannot be used."""


class KnowledgeExchange(Protocol):
    """Where nodes leave what they know for each other. The methods block, and are called in threads."""

    @property
    def address(self) -> str:
        """Where it is, without secrets."""
        ...

    @property
    def node(self) -> str:
        """What this node is called there."""
        ...

    def leave(self, plain: Mapping[str, Any]) -> None:
        """Put this node's knowledge in place of what it left before.

        Raises:
            StoreUnavailableError: that cannot be done now.
            ValueError: it is too large.
        """
        ...

    def take(self, seen: Mapping[str, float]) -> Taken:
        """Return what the freshest other nodes left, without those whose ``written_at_s`` is the one in ``seen``.

        Raises:
            StoreUnavailableError: that cannot be done now.
        """
        ...
