"""service: hybrid loading: models are loaded when wanted, shared while used, and leave when room is needed."""

from __future__ import annotations

from ondol.models.pool import ModelPool
from ondol.models.ports import Advisor, EstimateStore, Listener, MemoryProbe
from ondol.models.retry import RetryPolicy
from ondol.models.spec import Isolation, ModelSpec, ModelState, Residency
from ondol.models.status import LoadState, ModelStatus

__all__ = [
    "Advisor",
    "EstimateStore",
    "Isolation",
    "Listener",
    "LoadState",
    "MemoryProbe",
    "ModelPool",
    "ModelSpec",
    "ModelState",
    "ModelStatus",
    "Residency",
    "RetryPolicy",
]
