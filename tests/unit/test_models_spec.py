from __future__ import annotations

from typing import Any

import pytest

from ondol.errors import ConfigurationError, DependencyCycleError, LifecycleError
from ondol.models import ModelSpec, ModelState
from ondol.models.entry import FOLLOWERS, Entry


def spec(name: Any = "m", **fields: Any) -> ModelSpec:
    return ModelSpec(name, **({"load": object} | fields))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": ""}, "name"),
        ({"name": " m"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": 5}, "name"),
        ({"load": None}, "load"),
        ({"priority": 0}, "priority"),
        ({"priority": 11}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": 5.0}, "priority"),
        ({"depends_on": "base"}, "depends_on"),
        ({"depends_on": 3}, "depends_on"),
        ({"depends_on": ["ok", ""]}, "dependency"),
        ({"residency": "sometimes"}, "residency"),
        ({"size_bytes": -1}, "size_bytes"),
        ({"size_bytes": 1.5}, "size_bytes"),
        ({"load_seconds": -0.1}, "load_seconds"),
        ({"load_seconds": float("nan")}, "load_seconds"),
        ({"load_seconds": float("inf")}, "load_seconds"),
        ({"load_seconds": True}, "load_seconds"),
        ({"warm_up": 1}, "warm_up"),
        ({"unload": "no"}, "unload"),
    ],
)
def test_a_field_that_is_not_allowed_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        spec(**fields)


def test_dependencies_become_a_tuple_without_duplicates() -> None:
    assert spec(depends_on=["b", "a", "b"]).depends_on == ("b", "a")


def test_a_model_cannot_depend_on_itself() -> None:
    with pytest.raises(DependencyCycleError, match="m -> m"):
        spec(depends_on=["m"])


def test_numbers_in_their_range_are_taken() -> None:
    made = spec(size_bytes=0, load_seconds=30.0, priority=10, name="한국어 모델")
    assert (made.size_bytes, made.load_seconds, made.priority, made.name) == (0, 30.0, 10, "한국어 모델")


def test_entry_keeps_the_time_of_the_state_and_renews_the_reason() -> None:
    entry = Entry(spec(), 0, changed_at_s=1.0)
    entry.move(ModelState.QUEUED, "waits", 2.0)
    entry.move(ModelState.QUEUED, "waits longer", 3.0)
    assert (entry.state, entry.reason, entry.changed_at_s) == (ModelState.QUEUED, "waits longer", 2.0)


def test_a_state_that_cannot_follow_is_refused() -> None:
    entry = Entry(spec(), 0, changed_at_s=1.0)
    with pytest.raises(LifecycleError, match="from registered to ready"):
        entry.move(ModelState.READY, "too early", 2.0)
    assert entry.state is ModelState.REGISTERED


def test_every_state_has_followers_and_a_ready_model_only_leaves_by_draining_or_a_crash() -> None:
    assert set(FOLLOWERS) == set(ModelState)
    crashed = {ModelState.FAILED, ModelState.BACKOFF, ModelState.QUARANTINED}
    assert FOLLOWERS[ModelState.READY] == {ModelState.DRAINING} | crashed


def test_a_new_specification_forgets_what_was_measured_of_the_old() -> None:
    entry = Entry(spec(size_bytes=10), 0, changed_at_s=0.0, measured_bytes=99, last_error="x")
    assert entry.expected_bytes == 99
    entry.adopt(spec(size_bytes=20))
    assert (entry.expected_bytes, entry.last_error) == (20, None)
