"""The decisions about retries, worth, progress and estimates."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.errors import ConfigurationError, MissingExtraError, ModelBudgetError, ModelLoadError, RemoteModelError
from ondol.models import RetryPolicy
from ondol.models.estimates import Estimate, EstimateBook, learnt_seconds
from ondol.models.progress import eta_s, progress, remaining_s
from ondol.models.retry import is_hopeless
from ondol.models.worth import HALF_LIFE_S, Use, worth


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_a_delay_stays_within_its_bounds(failures: int, drawn: float, jitter: float) -> None:
    policy = RetryPolicy(first_s=0.5, factor=3.0, most_s=20.0, jitter_ratio=jitter)
    full_s = min(20.0, 0.5 * 3.0 ** min(failures - 1, 64))
    delay_s = policy.delay_s(failures, drawn=drawn)
    assert full_s * (1 - jitter) - 1e-9 <= delay_s <= full_s + 1e-9


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attempts", 0),
        ("attempts", True),
        ("attempts", 1.5),
        ("first_s", -1),
        ("factor", 0.5),
        ("most_s", float("inf")),
        ("jitter_ratio", 1.1),
        ("stable_s", "x"),
    ],
)
def test_a_policy_out_of_range_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{field} of a retry policy must be"):
        RetryPolicy(**{field: value})


def test_what_no_retry_heals_is_seen_through_wrappers() -> None:
    wrapped = ModelLoadError("it cannot be loaded")
    wrapped.__cause__ = ImportError("no torch")
    assert is_hopeless(wrapped)
    assert is_hopeless(ModelBudgetError("too large"))
    assert is_hopeless(MissingExtraError("onnxruntime", "onnx", "loading"))
    assert not is_hopeless(OSError("disk"))
    elsewhere = ModelLoadError("the isolated model could not be loaded")
    elsewhere.__cause__ = RemoteModelError("no", type_name="builtins.ModuleNotFoundError", remote_traceback="")
    assert is_hopeless(elsewhere)
    elsewhere.__cause__ = RemoteModelError("no", type_name="builtins.OSError", remote_traceback="")
    assert not is_hopeless(elsewhere)
    circle = RuntimeError("a")
    circle.__cause__ = circle
    assert not is_hopeless(circle)


def test_uses_halve_with_time_and_never_grow_by_a_clock_that_goes_back() -> None:
    use = Use()
    assert use.weight_at(5.0) == 0.0
    use.note(0.0)
    use.note(0.0)
    assert use.weight_at(HALF_LIFE_S) == pytest.approx(1.0)
    assert use.weight_at(-1000.0) == pytest.approx(2.0)
    use.note(HALF_LIFE_S)
    assert use.weight_at(HALF_LIFE_S) == pytest.approx(2.0)


def test_worth_rises_with_use_and_load_time_and_falls_with_size() -> None:
    assert worth(1.0, 10.0, 100) > worth(1.0, 1.0, 100) > worth(1.0, 1.0, 200)
    assert worth(0.0, 10.0, 100) == 0.0
    assert worth(1.0, None, 100) == worth(1.0, 1.0, 100)
    assert worth(1.0, 0.0, 100) > 0.0
    assert worth(0.0, 1.0, 0) == float("inf")


def test_progress_and_what_remains() -> None:
    assert progress(5.0, 0.0) == 0.99
    assert remaining_s(1.0, None) is None
    assert progress(0.0, 3.0) == 0.0


def test_the_eta_is_the_longest_way_through_the_dependencies() -> None:
    graph = {"app": ["left", "right"], "left": ["base"], "right": ["base"], "base": []}
    own: dict[str, float | None] = {"app": 1.0, "left": 2.0, "right": 5.0, "base": 0.5}
    assert eta_s(graph, "app", own.get) == pytest.approx(6.5)
    own["right"] = 0.0  # ready
    assert eta_s(graph, "app", own.get) == pytest.approx(3.5)
    own["base"] = None
    assert eta_s(graph, "app", own.get) is None
    assert eta_s({"app": ["absent"]}, "app", lambda name: 1.0 if name == "app" else None) is None


names = st.text(min_size=1, max_size=5)
estimates = st.builds(
    Estimate, st.text(max_size=5), st.none() | st.integers(0, 2**40), st.none() | st.floats(0, 1e6, allow_nan=False)
)


@given(st.dictionaries(names, estimates, max_size=8))
def test_a_book_comes_back_from_its_plain_form(known: dict[str, Estimate]) -> None:
    book = EstimateBook()
    for name, estimate in known.items():
        book.learn(name, estimate)
    other = EstimateBook()
    other.take_in(book.to_plain())
    assert {name: other.find(name, estimate.version) for name, estimate in known.items()} == known
    assert other.find("nobody at all", "") == Estimate("")


def test_what_this_process_learnt_wins_and_another_version_says_nothing() -> None:
    book = EstimateBook()
    book.learn("m", Estimate("2", 10, 1.0))
    book.take_in({"format": 1, "models": {"m": {"version": "2", "size_bytes": 99, "load_seconds": 9.0}}})
    assert book.find("m", "2") == Estimate("2", 10, 1.0)
    assert book.find("m", "1") == Estimate("1")


@pytest.mark.parametrize("row", [7, {}, {"version": 1}, {"version": "", "load_seconds": float("nan")}])
def test_damaged_rows_are_refused_as_a_whole(row: Any) -> None:
    book = EstimateBook()
    good = {"version": "", "size_bytes": 1, "load_seconds": None}
    with pytest.raises(ValueError, match="estimates of model 'bad' are damaged"):
        book.take_in({"format": 1, "models": {"good": good, "bad": row}})
    assert book.find("good", "") == Estimate("")


def test_load_times_are_averaged() -> None:
    assert learnt_seconds(10.0, 0.0) == pytest.approx(7.0)
