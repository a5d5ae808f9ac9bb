"""decision: eviction policies by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ondol.cache.policies.adaptive import AdaptivePolicy
from ondol.cache.policies.gdsf import GdsfPolicy
from ondol.cache.policies.lru import LruPolicy
from ondol.cache.policies.s3fifo import S3FifoPolicy
from ondol.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from ondol.cache.policies.protocol import EvictionPolicy

__all__ = ["DEFAULT_POLICY", "POLICY_NAMES", "make_policy"]

DEFAULT_POLICY: Final = "adaptive"

_MAKERS: Final[dict[str, Callable[[], EvictionPolicy]]] = {
    "adaptive": AdaptivePolicy,
    "lru": LruPolicy,
    "s3fifo": S3FifoPolicy,
    "gdsf": GdsfPolicy,
}

POLICY_NAMES: Final = tuple(_MAKERS)


def make_policy(name: str, *, random: Random | None = None) -> EvictionPolicy:  # noqa: ARG001  # none of these draws lots
    """Return a new policy.

    Args:
        name: one of ``POLICY_NAMES``.
        random: where a policy that draws lots takes them from; none of the present ones does.

    Raises:
        ConfigurationError: an unknown name.
    """
    maker = _MAKERS.get(name)
    if maker is None:
        raise ConfigurationError(f"policy={name!r} is not known: it must be one of {', '.join(POLICY_NAMES)}")
    return maker()
