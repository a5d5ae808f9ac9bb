"""service: hybrid loading: models are loaded when wanted, shared while used, and leave when room is needed."""

from __future__ import annotations

from ondol.models.pool import ModelPool
from ondol.models.ports import Listener, MemoryProbe
from ondol.models.spec import ModelSpec, ModelState, ModelStatus, Residency

__all__ = ["Listener", "MemoryProbe", "ModelPool", "ModelSpec", "ModelState", "ModelStatus", "Residency"]
