"""facade: models in processes of their own."""

from __future__ import annotations

from ondol.models.isolation.ends import ModelExit
from ondol.models.isolation.memory import ProcessMemory
from ondol.models.isolation.model import IsolatedModel, start_isolated
from ondol.models.isolation.server import ForkServer
from ondol.models.isolation.target import Loader, resolve_target

__all__ = [
    "ForkServer",
    "IsolatedModel",
    "Loader",
    "ModelExit",
    "ProcessMemory",
    "resolve_target",
    "start_isolated",
]
