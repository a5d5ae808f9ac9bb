"""A loader whose pace and outcome the test decides, and that knows what became of each model it made."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ondol.models import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.models import ModelPool


@dataclass(eq=False)
class FakeModel:
    name: str
    is_unloaded: bool = False


@dataclass(eq=False)
class Fleet:
    """Makes specifications of fake models; all of one test share its journal."""

    load_seconds: float = 1.0
    unload_seconds: float = 0.0
    failing: set[str] = field(default_factory=set)
    journal: list[str] = field(default_factory=list)
    made: list[FakeModel] = field(default_factory=list)
    loading: int = 0
    most_loading: int = 0
    resident_bytes: int = 0

    def spec(self, name: str, depends_on: tuple[str, ...] = (), **fields: Any) -> ModelSpec:
        async def load() -> FakeModel:
            self.journal.append(f"load {name}")
            self.loading += 1
            self.most_loading = max(self.most_loading, self.loading)
            try:
                await asyncio.sleep(self.load_seconds)
            finally:
                self.loading -= 1
            if name in self.failing:
                message = f"{name} is broken"
                raise OSError(message)
            model = FakeModel(name)
            self.made.append(model)
            return model

        async def unload(model: FakeModel) -> None:
            self.journal.append(f"unload {name}")
            assert not model.is_unloaded
            model.is_unloaded = True
            await asyncio.sleep(self.unload_seconds)

        return ModelSpec(name, load=load, depends_on=depends_on, **({"unload": unload} | fields))

    def loads(self) -> list[str]:
        return [line.removeprefix("load ") for line in self.journal if line.startswith("load ")]


def loader_of(spec: ModelSpec) -> Callable[[], Any]:
    """Return the function of a specification that is not loaded in a process of its own."""
    assert callable(spec.load)
    return spec.load


async def use(pool: ModelPool, name: str, seconds: float = 0.0) -> FakeModel:
    """Lease a model for a while; it must not go meanwhile."""
    async with pool.lease(name) as model:
        assert isinstance(model, FakeModel)
        assert not model.is_unloaded
        await asyncio.sleep(seconds)
        assert not model.is_unloaded, f"{name} was unloaded while leased"
        return model


def check_ended(pool: ModelPool, fleet: Fleet) -> None:
    """Assert what must hold after every stop: no bytes booked, nothing held, nothing forgotten."""
    stats = pool.get_stats()
    assert stats["used_bytes"] == 0
    assert all(row["leases"] == 0 for row in stats["models"])
    assert {row["state"] for row in stats["models"]} <= {"registered", "unloaded", "failed", "quarantined", "blocked"}
    assert all(model.is_unloaded for model in fleet.made)
