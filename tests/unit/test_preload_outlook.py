from __future__ import annotations

import json
from typing import Any

import pytest

from ondol.preload.outlook import outlook_of, wanted_within
from ondol.preload.policy import LEAST_GAPS, KeepWarmPolicy
from ondol.preload.trust import CLASSES

MIB = 1024 * 1024
LAST_S = 600.0 * 29


def policy_with(uses: int = 30, precision: float | None = None, period_s: float = 600.0) -> KeepWarmPolicy:
    """A model of 32 MiB that takes 4 s to load, used every ten minutes, the last time at ``LAST_S``."""
    policy = KeepWarmPolicy(64 * MIB)
    policy.know("timer", size_bytes=32 * MIB, load_s=4.0)
    for index in range(uses):
        policy.used("timer", LAST_S - period_s * (uses - 1 - index))
    if precision is not None:
        policy.trust.take_in([1e-12, [[50.0, 50.0 * precision]] * CLASSES])
    return policy


def found_of(policy: KeepWarmPolicy, age_s: float = 60.0) -> dict[str, Any]:
    found = outlook_of(policy, "timer", LAST_S + age_s)
    assert found is not None
    json.dumps(found, allow_nan=False)
    return found


def test_of_a_model_nobody_has_heard_of_there_is_no_outlook() -> None:
    assert outlook_of(policy_with(), "other", LAST_S) is None


def test_of_a_model_never_used_nothing_is_foreseen() -> None:
    found = found_of(policy_with(uses=0))
    assert found["words"] == (
        "It was never used, so nothing is foreseen of it. It is not loaded: 32.0 MiB that take 4.00 s to load. "
        f"It is not fetched ahead before it was used {LEAST_GAPS} times."
    )
    assert (found["uses"], found["worth"], found["worth_ahead"], found["probability_ahead"]) == (0, 0.0, 0.0, 0.0)
    assert found["last_use_s"] is None
    assert found["next_use_s"] is None


def test_a_use_is_foreseen_with_its_times() -> None:
    found = found_of(policy_with())
    assert (found["uses"], found["last_use_s"]) == (30, 60.0)
    assert 490.0 < found["next_use_s"] < 550.0
    assert found["probability_10_min"] > 0.7
    words = found["words"]
    assert words.startswith("It was used 30 times, last 1 min 0 s ago, and is expected within ")
    assert f"within ten minutes with a probability of {found['probability_10_min']:.0%}." in words


def test_a_loaded_model_says_what_it_is_worth() -> None:
    policy = policy_with(precision=0.9)
    policy.loaded("timer", LAST_S + 1.0)
    found = found_of(policy)
    assert found["is_loaded"]
    assert found["worth"] > 0.0
    ratio = found["worth"] / found["worth_of_those_that_leave"]
    expected = f"It is loaded: 32.0 MiB that take 4.00 s to load, worth {found['worth']:.3g} by how likely its next use"
    assert expected in found["words"]
    assert f"{ratio:.3g} times what left last was worth." in found["words"]


def test_the_expert_that_decides_is_named() -> None:
    policy = policy_with()
    policy.take_over(policy.prior, "frequency", policy.least_s, policy.events)
    policy.loaded("timer", LAST_S + 1.0)
    found = found_of(policy)
    assert found["expert"] == "frequency"
    assert "by how often and how lately it was used." in found["words"]
    assert "times what left last" not in found["words"]  # another unit


def test_a_model_being_loaded_says_so() -> None:
    policy = policy_with()
    policy.loading("timer", LAST_S + 1.0, is_ahead=False)
    assert "It is being loaded: 32.0 MiB that take 4.00 s to load." in found_of(policy)["words"]


def test_the_words_begin_and_end_without_a_space() -> None:
    policy = policy_with()
    absent = found_of(policy)["words"]
    policy.loaded("timer", LAST_S + 1.0)
    for words in (absent, found_of(policy)["words"]):
        assert words == words.strip()
        assert "  " not in words


def test_a_promised_model_stays() -> None:
    policy = policy_with()
    policy.loaded("timer", LAST_S + 1.0)
    policy.promise("timer", LAST_S + 100.0, LAST_S + 1.0)
    found = found_of(policy)
    assert found["is_promised"]
    assert "Its 32.0 MiB that take 4.00 s to load stay: a hint says that it is wanted." in found["words"]
    assert not found_of(policy, 100.0)["is_promised"]  # it is over


def test_a_promised_model_that_is_absent_is_not_said_to_stay() -> None:
    policy = policy_with()
    policy.promise("timer", LAST_S + 100.0, LAST_S + 1.0)
    words = found_of(policy)["words"]
    assert "not loaded" in words
    assert "hint" in words


def test_a_forbidden_model_is_never_fetched_ahead() -> None:
    policy = policy_with(precision=0.9)
    policy.forbid("timer", is_forbidden=True)
    found = found_of(policy)
    assert found["is_forbidden"]
    assert found["worth_ahead"] == 0.0
    assert found["words"].endswith("It is never fetched ahead: that was forbidden.")


def test_a_model_used_too_seldom_is_not_fetched_ahead() -> None:
    words = found_of(policy_with(uses=2))["words"]
    assert words.endswith(f"It is not fetched ahead before it was used {LEAST_GAPS} times.")


def test_a_model_whose_use_is_not_likely_is_not_fetched_ahead() -> None:
    found = found_of(policy_with(precision=0.9), age_s=5000.0)  # its time is long over
    assert found["worth_ahead"] == 0.0
    assert found["words"].endswith("It is not fetched ahead: at no time soon is its use as likely as 70%.")


@pytest.mark.parametrize(("precision", "is_trusted"), [(0.9, True), (0.5, False)])
def test_a_model_likely_to_be_used_is_fetched_if_such_bets_were_won(precision: float, is_trusted: bool) -> None:
    policy = policy_with(precision=precision)
    policy.tracks["timer"].bets, policy.tracks["timer"].wins = 4.0, 3.0
    found = found_of(policy, 550.0)
    assert found["worth_ahead"] > 0.0
    assert found["probability_ahead"] >= 0.7
    assert found["is_trusted"] is is_trusted
    assert (found["bets"], found["bets_won"]) == (4.0, 3.0)
    assert (found["bets_of_its_class"], found["bets_of_its_class_won"]) == (50.0, pytest.approx(50.0 * precision))
    record = f"of 4 such bets on it 3 were won, of 50 on uses worth as much {50 * precision:.0f}."
    start = "It is fetched ahead as soon as" if is_trusted else "It is not fetched ahead, though its use is likely"
    assert start in found["words"]
    assert found["words"].endswith(record)


def test_the_absent_models_wanted_soon_are_named_the_worthiest_first() -> None:
    policy = policy_with()
    policy.know("large", size_bytes=64 * MIB, load_s=4.0)
    policy.know("rare", size_bytes=MIB, load_s=4.0)
    for index in range(29, -1, -1):
        policy.used("large", LAST_S - 600.0 * index)
    for index in range(29, -1, -1):
        policy.used("rare", LAST_S - 90_000.0 * index)
    assert wanted_within(policy, 600.0, LAST_S + 60.0) == ["timer", "large"]
    assert wanted_within(policy, 60.0, LAST_S + 60.0) == []
    policy.forbid("large", is_forbidden=True)
    policy.loading("timer", LAST_S + 60.0, is_ahead=False)
    assert wanted_within(policy, 600.0, LAST_S + 60.0) == []
    policy.loaded("timer", LAST_S + 64.0)
    assert wanted_within(policy, 600.0, LAST_S + 64.0) == []
