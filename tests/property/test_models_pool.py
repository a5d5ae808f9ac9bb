"""Random histories of a pool on virtual time, chosen and shrunk by hypothesis.

Whatever is registered, leased, cancelled, unloaded, crashed, limited and stopped in whatever order: no leased model is
unloaded, the ledger stays within the budget, every waiter ends, and nothing is left over. The world, what can be done
to it and what must hold are in ``pool_machine.py`` and beside it; ``make soak`` drives a million steps of the same.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.property.pool_machine import ACTIONS, PAUSES_S, World, WorldError, quiet_logs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_PAUSES = st.sampled_from(PAUSES_S)


class PoolMachine(RuleBasedStateMachine):
    """One world; its rules are ``ACTIONS``, added below."""

    world: World | None = None
    is_sound = True

    @initialize(seed=st.integers(0, 15))
    def begin(self, seed: int) -> None:
        self.world = World(seed)
        self.world.__enter__()

    def act(self, kind: str, pause_s: float, /, **arguments: Any) -> None:
        assert self.world is not None
        try:
            self.world.step(kind, arguments, pause_s)
        except WorldError:
            self.is_sound = False
            raise

    def teardown(self) -> None:
        if self.world is None:
            return
        try:
            if self.is_sound:
                self.world.settle()
        finally:
            self.world.__exit__()


def _rule_of(action: str, values: Mapping[str, Sequence[Any]]) -> Any:
    def act(self: PoolMachine, pause_s: float, **arguments: Any) -> None:
        self.act(action, pause_s, **arguments)

    act.__name__ = action
    choices: dict[str, Any] = {name: st.sampled_from(choice) for name, choice in values.items()}
    return rule(pause_s=_PAUSES, **choices)(act)  # type: ignore[no-untyped-call]  # what hypothesis makes has no types


for _action, (_, _values) in ACTIONS.items():
    setattr(PoolMachine, _action, _rule_of(_action, _values))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with quiet_logs():
        yield


@pytest.mark.timeout(900)  # it takes seconds, but shrinking what does not hold may take minutes
def test_any_history_ends_well() -> None:
    checks = list(HealthCheck)  # each example is a whole life of a pool
    limits = settings(max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(PoolMachine, settings=limits)


@pytest.mark.parametrize("seed", range(8))
def test_a_long_history_ends_well(seed: int) -> None:
    """Histories longer than hypothesis makes them, as ``make soak`` runs them."""
    draw = Random(seed)
    kinds, weights = [*ACTIONS], [weight for weight, _ in ACTIONS.values()]
    with World(seed) as world:
        for _ in range(300):
            kind = draw.choices(kinds, weights)[0]
            arguments = {name: draw.choice(values) for name, values in ACTIONS[kind][1].items()}
            world.step(kind, arguments, draw.choice(PAUSES_S))
        world.settle()
        assert world.steps == 300


def test_a_world_tells_what_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    with World() as world:
        world.step("lease", {"name": "base", "seconds": 30.0, "nested": None, "is_failing": False}, 4.0)
        run = world.pool._run
        assert run is not None
        resident = run.ready["base"]
        resident.leases -= 1  # as if the hand-over did not count
        with pytest.raises(WorldError, match=r"(?s)0 leases, but 1 holders.*lease\(name='base'.*ready base"):
            world.step("wait", {"seconds": 0.1}, 1.0)
        resident.leases += 1
