"""The simulated pool of benchmarks/preload_replay.py, its policies and its command line, by hand-computed figures."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package

import preload_replay
from preload_replay_clairvoyant import CLAIRVOYANTS
from preload_replay_peers import PEERS, IdleTimes, Lru, Ranked
from preload_replay_pool import ModelFigures, PolicyError, Pool, Requests, least_room

if TYPE_CHECKING:
    from collections.abc import Callable

    from preload_replay_pool import Outcome, Policy

GB = 10**9
A, B, C = range(3)
MODELS = [ModelFigures("a", GB, 2.0), ModelFigures("b", GB, 4.0), ModelFigures("c", GB, 3.0)]
KEYS = ["trace", "budget", "seed", "policy", "cold_ratio", "wait_s", "p99_wait_s", "p999_wait_s", "gb_s", "loads"]
KEYS += ["prefetches", "wasted_prefetches"]


class Scripted(Lru):
    """Fetches models ahead at given times."""

    def __init__(self, *fetches: tuple[float, int]) -> None:
        self.fetches = list(fetches)
        self.wished: int | None = None

    def wake_at_s(self) -> float:
        return self.fetches[0][0] if self.fetches else float("inf")

    def expired(self, now_s: float) -> list[int]:
        self.wished = self.fetches.pop(0)[1]
        return []

    def prefetch(self, now_s: float, free_bytes: int, loads_under_way: int) -> tuple[int, list[int]] | None:
        if self.wished is None:
            return None
        model, self.wished = self.wished, None
        return model, self.victims(GB - free_bytes, now_s)


def replayed(policy: Policy, *requests: tuple[float, int], from_s: float = 0.0, budget_bytes: int = 2 * GB) -> Outcome:
    trace = Requests([time_s for time_s, _ in requests], [model for _, model in requests])
    return Pool(MODELS, budget_bytes, policy, from_s).replay(trace)


def test_waits_are_those_computed_by_hand() -> None:
    # a loads 0–2, and the request at 1 shares that load; b loads 1–5; c waits for a slot until 2, when a leaves for it,
    # and loads 2–5; b is there at 6; a, cold again at 7, takes the room of c, used least recently, and loads 7–9.
    outcome = replayed(Lru(), (0, A), (1, A), (1, B), (1.5, C), (6, B), (7, A))
    assert outcome.wait_s == 2 + 1 + 4 + 3.5 + 0 + 2
    assert outcome.cold_ratio == round(5 / 6, 6)
    assert outcome.p99_wait_s == outcome.p999_wait_s == 3.5  # the rank below: place 4 of 0 to 5
    assert outcome.gb_s == 1 * 1 + 2 * 8  # one model under load until 1, two there or under load until 9
    assert (outcome.loads, outcome.prefetches, outcome.wasted_prefetches) == (4, 0, 0)


def test_a_load_that_ends_when_a_request_arrives_serves_it_at_once() -> None:
    assert replayed(Lru(), (0, A), (2, A)).wait_s == 2


def test_models_under_load_do_not_leave() -> None:
    outcome = replayed(Lru(), (0, A), (0, B), budget_bytes=GB)
    assert outcome.wait_s == 2 + 6  # b starts when a, once loaded, can leave


def test_a_prefetch_in_time_saves_the_whole_wait() -> None:
    outcome = replayed(Scripted((1.0, B)), (0, A), (5, B))
    assert outcome.wait_s == 2
    assert (outcome.loads, outcome.prefetches, outcome.wasted_prefetches) == (2, 1, 0)


def test_a_prefetch_that_a_request_joins_is_used() -> None:
    outcome = replayed(Scripted((1.0, B)), (0, A), (4, B))
    assert outcome.wait_s == 2 + 1
    assert (outcome.prefetches, outcome.wasted_prefetches) == (1, 0)


def test_a_prefetch_is_wasted_that_leaves_or_outlasts_the_trace_unused() -> None:
    # b is there at 5, and leaves for c at 6; b is fetched again at 10 in the place of a, and nobody asks for it
    outcome = replayed(Scripted((1.0, B), (10.0, B)), (0, A), (6, C), (20, C))
    assert (outcome.loads, outcome.prefetches, outcome.wasted_prefetches) == (4, 2, 2)


class Asked(Lru):
    def __init__(self) -> None:
        self.asked: list[tuple[float, int, int]] = []

    def prefetch(self, now_s: float, free_bytes: int, loads_under_way: int) -> tuple[int, list[int]] | None:
        self.asked.append((now_s, free_bytes // GB, loads_under_way))
        return None


def test_prefetches_are_asked_for_while_a_slot_is_free_and_no_request_waits() -> None:
    policy = Asked()
    replayed(policy, (0, A), (0, B), (0, C), (20, A), (21, A), budget_bytes=3 * GB)
    assert policy.asked == [(0, 2, 1), (4, 0, 1), (5, 0, 0)]  # at 2, c takes the slot that a leaves


def test_what_comes_before_the_counted_part_is_replayed_only() -> None:
    outcome = replayed(Lru(), (0, A), (4.5, B), (5, A), (6, B), from_s=5.0)
    assert (outcome.cold_ratio, outcome.wait_s) == (0.5, 2.5)  # b's first request arrived too early to be counted
    assert outcome.gb_s == 2 * 3.5
    assert outcome.loads == 0


def test_a_prefetch_from_before_the_counted_part_is_not_counted_as_wasted() -> None:
    outcome = replayed(Scripted((1.0, B)), (0, A), (8, A), from_s=7.0)
    assert (outcome.loads, outcome.prefetches, outcome.wasted_prefetches) == (0, 0, 0)


def test_room_is_made_of_the_least_wanted_without_those_not_needed() -> None:
    assert least_room([0, 1, 2, 3], [10, 20, 35, 5], 50) == [1, 2]
    assert least_room([0, 1], [10, 20], 31) == []
    assert least_room([0, 1], [10, 20], 0) == []


class Stubborn(Lru):
    def victims(self, needed_bytes: int, now_s: float) -> list[int]:
        return []


class Confused(Lru):
    def victims(self, needed_bytes: int, now_s: float) -> list[int]:
        return [C]


class Restless(Lru):
    def wake_at_s(self) -> float:
        return 1.0


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Stubborn(), "makes no room for c"),
        (Confused(), "c is to leave and is not there"),
        (Restless(), "woken at 1"),
    ],
)
def test_a_policy_that_asks_for_the_impossible_is_refused(policy: Policy, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        replayed(policy, (0, A), (0, B), (9, C))


def test_a_prefetch_of_who_is_there_is_refused() -> None:
    with pytest.raises(PolicyError, match="a is fetched ahead though it is there"):
        replayed(Scripted((3.0, A)), (0, A), (9, A))


def test_a_budget_below_the_largest_model_is_refused() -> None:
    with pytest.raises(ValueError, match="raise the budget"):
        replayed(Lru(), (0, A), budget_bytes=GB - 1)


def test_a_keep_alive_ends_after_its_time_without_use() -> None:
    outcome = replayed(PEERS["keep_alive_5min"](), (0, A), (200, A), (1000, A))
    assert outcome.loads == 2
    assert outcome.gb_s == 500 + 2  # until 200 + 300, and the load at 1000


@pytest.mark.parametrize(("name", "left"), [("greedy_dual", B), ("greedy_dual_kept", C)])
def test_uses_outlast_a_stay_where_they_are_kept(name: str, left: int) -> None:
    # Load seconds per GB are 2, 4 and 3. b, used twice (8), leaves for c (8 + 3), and a, used five times (10), for b,
    # which is worth 10 + 4 then, or 10 + 12 when its uses are kept; c, used again (10 + 6), is between these.
    requests = [(10.0 * place, model) for place, model in enumerate([B, B, A, A, A, A, A, C, B, C, A])]
    policy = PEERS[name]()
    replayed(policy, *requests)
    assert isinstance(policy, Ranked)
    assert {A, B, C} - set(policy.residents) == {left}


def test_idle_times_in_one_bin_tell_and_spread_ones_do_not() -> None:
    regular, spread, long = IdleTimes(), IdleTimes(), IdleTimes()
    for minute in range(200):
        regular.add(630.0)
        spread.add(60.0 * minute)
        long.add(5 * 3600.0)
    assert regular.windows_s() == pytest.approx((600 * 0.9, 660 * 1.1))
    assert spread.windows_s() == long.windows_s() == IdleTimes().windows_s() == (0.0, 4 * 3600.0)


def test_a_hybrid_histogram_unloads_after_use_and_is_back_in_time() -> None:
    outcome = replayed(PEERS["hybrid_histogram"](), *[(630.0 * place, A) for place in range(10)])
    assert outcome.wait_s == 2
    assert (outcome.prefetches, outcome.wasted_prefetches) == (8, 0)  # the first idle time was all memory
    assert outcome.gb_s < 630 * 9 / 2


def test_regular_uses_are_fetched_ahead_when_another_has_taken_the_room() -> None:
    hourly = [(3600.0 * place, A) for place in range(8)]
    others = [(3600.0 * place + 60 * minute, B) for place in range(8) for minute in (1, 3, 10, 40)]
    outcome = replayed(PEERS["rate_prefetch"](), *sorted(hourly + others), budget_bytes=GB)
    assert outcome.wait_s == 5 * 2 + 8 * 4  # a is fetched ahead from its fifth use on, b has no regular uses
    assert (outcome.prefetches, outcome.wasted_prefetches) == (3, 0)


@pytest.mark.parametrize(("name", "loads", "wait_s"), [("clairvoyant", 4, 13), ("clairvoyant_prefetch", 5, 2)])
def test_the_clairvoyant_let_go_of_whom_nobody_uses_for_longest(name: str, loads: int, wait_s: float) -> None:
    # Without prefetches, b leaves for c, not a. With them, c is fetched in the place of a, a in that of b, b of c.
    requests = Requests([0.0, 10.0, 20.0, 30.0, 100.0], [A, B, C, A, B])
    outcome = Pool(MODELS, 2 * GB, CLAIRVOYANTS[name](requests)).replay(requests)
    assert (outcome.loads, outcome.wait_s) == (loads, wait_s)
    assert outcome.wasted_prefetches == 0


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["preload_replay.py", *map(str, arguments)])
        try:
            status = preload_replay.main()
        except SystemExit as exc:
            status = int(exc.code or 0)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "small.csv.gz"
    rows = [f"{30 * place},m{place * place % 7}" for place in range(60)]
    path.write_bytes(gzip.compress("\n".join(["t_seconds,model", *rows, ""]).encode()))
    return path


def test_json_is_one_cell_a_line_with_these_keys(replay: Callable[..., tuple[int, str, str]], trace: Path) -> None:
    status, out, err = replay(trace, "--json", "--budget", "0.25,0.5", "--seeds", "1,2")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (0, "")
    assert [list(row) for row in rows] == [KEYS] * (2 * 2 * len(preload_replay.POLICIES))
    assert {row["trace"] for row in rows} == {"small"}
    assert {(row["budget"], row["seed"]) for row in rows} == {(0.25, 1), (0.25, 2), (0.5, 1), (0.5, 2)}
    assert {row["policy"] for row in rows} == set(preload_replay.POLICIES)
    assert all(row["wasted_prefetches"] <= row["prefetches"] <= row["loads"] for row in rows)


def test_a_replay_gives_the_same_figures_again(replay: Callable[..., tuple[int, str, str]], trace: Path) -> None:
    assert replay(trace, "--json", "--seeds", "1") == replay(trace, "--json", "--seeds", "1")


def test_the_table_names_policies_sources_and_waiting_in_parts_of_lru(
    replay: Callable[..., tuple[int, str, str]], trace: Path
) -> None:
    status, out, _ = replay(trace, "--policy", "lru,greedy_dual", "--seeds", "1,2")
    assert status == 0
    assert "FaasCache" in out
    assert "cores, Python" in out
    (row,) = [line for line in out.splitlines() if line.startswith("lru") and line.endswith("1.000")]
    assert len(row.split()) == 10


def test_sizes_follow_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("model,t_seconds\nb,1\na,2\n")
    found = preload_replay.read_trace(path)
    assert (found.name, found.model_names, found.requests.models) == ("two", ["a", "b"], [1, 0])
    first, second = found.models(42)
    assert (first.name, first.size_bytes) == ("a", 868748414)  # 50 MB × 40 ** 0.77396, the first of the generator
    assert first.load_s == first.size_bytes / 200e6 + 0.3
    assert second.size_bytes != first.size_bytes


def test_times_out_of_order_are_sorted_with_a_word(
    replay: Callable[..., tuple[int, str, str]], tmp_path: Path, trace: Path
) -> None:
    lines = gzip.decompress(trace.read_bytes()).decode().splitlines()
    shuffled = tmp_path / "small.csv"
    shuffled.write_text("\n".join([lines[0], *reversed(lines[1:])]))
    status, out, err = replay(shuffled, "--json", "--seeds", "1")
    assert (status, out) == (0, replay(trace, "--json", "--seeds", "1")[1])
    assert "not in order" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column t_seconds and no model"),
        ("t_seconds,name\n1,a\n", "has no column model"),
        ("t_seconds,model\n", "holds no requests"),
        ("t_seconds,model\n1,a\nnan,a\n", "line 3: t_seconds is 'nan'"),
        ("t_seconds,model\n-1,a\n", "line 2: t_seconds is '-1'"),
        ("t_seconds,model\ninf,a\n", "line 2: t_seconds is 'inf'"),
        ("t_seconds,model\nsoon,a\n", "line 2: t_seconds is 'soon'"),
        ("t_seconds,model\n1,a\n2\n", "line 3: '2' is no request"),
        ("t_seconds,model\n1,\n", "line 2: '1,' is no request"),
    ],
)
def test_a_trace_that_is_none_is_refused(
    replay: Callable[..., tuple[int, str, str]], tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    status, out, err = replay(path, "--json")
    assert (status, out) == (2, "")
    assert message in err


def test_files_that_cannot_be_read_are_refused(replay: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "plain.csv.gz").write_text("t_seconds,model\n1,a\n")
    (tmp_path / "bytes.csv").write_bytes(b"t_seconds,model\n1,\xff\n")
    for name in ("missing.csv", "plain.csv.gz", "bytes.csv"):
        status, _, err = replay(tmp_path / name)
        assert (status, "cannot be read" in err) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--from-seconds", "1771"),
        ("--from-seconds", "-1"),
        ("--from-seconds", "nan"),
        ("--budget", "0"),
        ("--budget", "0.25,x"),
        ("--budget", "nan"),
        ("--seeds", "-1"),
        ("--seeds", ""),
        ("--policy", "lru,mru"),
    ],
)
def test_options_out_of_range_are_refused(
    replay: Callable[..., tuple[int, str, str]], trace: Path, arguments: tuple[str, str]
) -> None:
    status, out, err = replay(trace, "--json", *arguments)
    assert (status, out) == (2, "")
    assert arguments[0] in err
