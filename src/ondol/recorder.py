"""decision: the one protocol through which every room hands its measurements on.

The middle rooms never import the monitor. They call a ``Recorder``; the service passes the monitor's
``add_metric``, tests pass a list's ``append`` in disguise, and alone they use ``discard``.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Recorder", "discard"]


class Recorder(Protocol):
    """Takes one measurement; must return at once and never raise for a valid name."""

    def __call__(self, name: str, value: float, unit: str = "", **labels: str) -> None:
        """Record ``value`` of the metric ``name`` (dotted lower-case words) in ``unit``."""
        ...


def discard(name: str, value: float, unit: str = "", **labels: str) -> None:
    """Record nothing: the recorder of an object that stands alone."""
