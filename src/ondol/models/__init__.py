"""service: hybrid loading: models are loaded when wanted, shared while used, and leave when room is needed."""

from __future__ import annotations

from ondol.models.pool import ModelPool
from ondol.models.ports import EstimateStore, Listener, MemoryProbe
from ondol.models.retry import RetryPolicy
from ondol.models.spec import Isolation, ModelSpec, ModelState, Residency
from ondol.models.status import ModelStatus

__all__ = [
    "EstimateStore",
    "Isolation",
    "Listener",
    "MemoryProbe",
    "ModelPool",
    "ModelSpec",
    "ModelState",
    "ModelStatus",
    "Residency",
    "RetryPolicy",
]
