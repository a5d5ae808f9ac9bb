"""The part of benchmarks/models.py about ONNX: the first answer, the speed after it, and memory that goes back.

The model has 256 MB of dense layers and is made here, once of few large tensors and once of many small ones, which the
allocator treats differently. Every figure is taken in new processes on one core with one thread
(benchmarks/models_onnx_process.py). The page cache is warm.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import geometric_mean, linear_regression, mean, median
from typing import TYPE_CHECKING, Any

from harness import Figure, package
from models_conditions import in_new_process, one_core

if TYPE_CHECKING:
    from harness import Figures

__all__ = ["onnx_answers", "onnx_memory"]

LARGE = (16, 2048)
SMALL = (455, 384)
"""Layers and their width: tensors of 16 MB and of 590 KB, 256 MB together."""
SCRIPT = "models_onnx_process.py"
LAST = 10
"""Cycles that count as the end."""
DRIFT_MB = 0.05
"""Growth a cycle that counts as none: a fiftieth of a percent of the model, 2.5 MB over fifty cycles."""


def make_model(folder: Path, layers: int, width: int, *, is_external: bool = False) -> Path:
    """Write a model of dense layers in one file, or with its weights in a second one."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    for layer in range(layers):
        values = random.standard_normal((width, width), np.float32) / np.float32(width**0.5)
        weights += [numpy_helper.from_array(values, f"w{layer}")]
        weights += [numpy_helper.from_array(np.zeros(width, np.float32), f"b{layer}")]
        nodes += [helper.make_node("MatMul", [x, f"w{layer}"], [f"m{layer}"])]
        nodes += [helper.make_node("Add", [f"m{layer}", f"b{layer}"], [f"a{layer}"])]
        nodes += [helper.make_node("Tanh", [f"a{layer}"], [f"t{layer}"])]
        x = f"t{layer}"
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in ("x", x)]
    graph = helper.make_graph(nodes, "dense", value[:1], value[1:], weights)
    path = folder / f"dense-{width}.onnx"
    external: dict[str, Any] = {}
    if is_external:
        external = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(model, path, **external)
    return path


def run(measurement: str, model: Path, count: int = 1) -> Any:
    """Take one measurement in a new process; the mappable copy of the model lies beside it."""
    with one_core():
        return in_new_process(SCRIPT, measurement, model, model.parent / "weights", count)


def onnx_answers(figures: Figures, *, is_quick: bool) -> None:
    """Compare the time to the first answer, and the speed after the swap, with a plain session's."""
    rounds = 2 if is_quick else 9
    with tempfile.TemporaryDirectory() as name:
        model = make_model(Path(name), *LARGE)
        copied_s = run("first_answer", model)
        add_first_answers(figures, "256 MB ONNX in one file", model, rounds, target=20)
        conditions = "one run; only the first load of a file does that"
        what = "cold 256 MB ONNX in one file, first answer: its mappable copy is made"
        figures.add(Figure(what, copied_s * 1e3, "ms", conditions=conditions))
        add_steady(figures, model, rounds=1 if is_quick else 7, turns=11 if is_quick else 31)
    if is_quick:
        return
    with tempfile.TemporaryDirectory() as name:
        model = make_model(Path(name), *LARGE, is_external=True)
        add_first_answers(figures, "256 MB ONNX with external data", model, rounds)


def add_first_answers(figures: Figures, what: str, model: Path, rounds: int, target: float | None = None) -> None:
    """Let a plain session and the pool take turns at the first answer; add both and their ratio."""
    pairs = [(run("first_answer_plain", model), run("first_answer", model)) for _ in range(rounds)]
    plain_s, ours_s = (median(side) for side in zip(*pairs, strict=True))
    what, peer = f"cold {what}, first answer", package("onnxruntime")
    conditions = f"page cache warm, median of {rounds} interleaved rounds in new processes, one core"
    figures.add(Figure(f"{what}: plain session", plain_s * 1e3, "ms", peer=peer, conditions=conditions))
    figures.add(Figure(f"{what}: through the pool", ours_s * 1e3, "ms", conditions=conditions))
    figures.add(Figure(f"{what}: sooner by", plain_s / ours_s, "x", target, "higher", peer, conditions))


def add_steady(figures: Figures, model: Path, *, rounds: int, turns: int) -> None:
    """Add the speed after the swap beside a plain session's in the same process.

    Of two sessions in a process the one made first is slower by some percent, also when both are plain. So each is
    made first in every second process, and the ratio is the geometric mean of both orders'.
    """
    pairs = [(run("steady", model, turns), run("steady_plain_first", model, turns)) for _ in range(rounds)]
    ratios = [median(ours / theirs for ours, theirs in order) for order in zip(*pairs, strict=True)]
    plain_s = median(theirs for pair in pairs for _, theirs in pair)
    what, peer = "batch of 8 after the swap", package("onnxruntime")
    conditions = f"CPU, {2 * rounds} processes of {2 * turns} interleaved calls, either session made first, one core"
    figures.add(Figure(f"{what}: plain session", plain_s * 1e3, "CPU ms", peer=peer, conditions=conditions))
    slower = 100 * (geometric_mean(ratios) - 1)
    figures.add(Figure(f"{what}: slower by", slower, "%", 5, peer=peer, conditions=conditions))


def given_back(cycle: tuple[float, float, float]) -> float:
    """Return how much of what a load took came back, in percent."""
    before, loaded, after = cycle
    return 100 * (1 - (after - before) / (loaded - before))


def onnx_memory(figures: Figures, *, is_quick: bool) -> None:
    """Load and unload again and again; report what came back, and what did not."""
    counts = (12, 0, 2) if is_quick else (50, 12, 6)
    with tempfile.TemporaryDirectory() as name:
        large = make_model(Path(name), *LARGE)
        cycles = run("cycles", large, counts[0])
        add_given_back(figures, "256 MB of 16 MB tensors", cycles, run("cycles_plain", large, counts[2]))
        add_drift(figures, cycles, is_judged=not is_quick)
    if is_quick:
        return
    with tempfile.TemporaryDirectory() as name:
        small = make_model(Path(name), *SMALL)
        cycles = run("cycles", small, counts[1])
        add_given_back(figures, "256 MB of 590 KB tensors", cycles, run("cycles_plain", small, counts[2]))


def add_given_back(
    figures: Figures,
    what: str,
    cycles: list[tuple[float, float, float]],
    plain: list[tuple[float, float, float]],
) -> None:
    """Add what came back of the first load and of the worst later one, ours and plain."""
    peer, ours = package("onnxruntime"), [*map(given_back, cycles)]
    conditions = f"RSS of a new process, {len(cycles)} cycles (plain: {len(plain)})"

    def add(which: str, percent: float, target: float | None = None, beside: str | None = None) -> None:
        figures.add(Figure(f"{what}, given back: {which}", percent, "%", target, "higher", beside, conditions))

    took = median(loaded - before for before, loaded, _ in cycles)
    figures.add(Figure(f"{what}: taken by a load through the pool", took, "MB", conditions=conditions))
    took = plain[0][1] - plain[0][0]
    figures.add(Figure(f"{what}: taken by the first plain session", took, "MB", peer=peer, conditions=conditions))
    add("first cycle", ours[0], 93)
    add("worst later cycle", min(ours[1:]), 99)
    add("first cycle, plain session", given_back(plain[0]), beside=peer)
    kept = plain[-1][2] - plain[0][0]
    figures.add(Figure(f"{what}: kept at the end, plain session", kept, "MB", peer=peer, conditions=conditions))
    kept = cycles[-1][2] - cycles[0][0]
    figures.add(Figure(f"{what}: kept at the end, the pool", kept, "MB", conditions=conditions))


def add_drift(figures: Figures, cycles: list[tuple[float, float, float]], *, is_judged: bool) -> None:
    """Add how the memory that stays after each unload grows; the first cycles, which warm up, weigh less in many."""
    after = [cycle[2] for cycle in cycles]
    late = mean(later - earlier for earlier, later in zip(after[-LAST - 1 : -1], after[-LAST:], strict=True))
    slope = linear_regression(range(len(after)), after).slope
    conditions = f"mean growth from cycle to cycle over the last {LAST} of {len(after)}"
    figures.add(Figure("drift at the end", late, "MB/cycle", 1, conditions=conditions))
    conditions = f"slope of the regression of what stays on the cycle, all {len(after)}; up to {DRIFT_MB} is none"
    target = DRIFT_MB if is_judged else None
    figures.add(Figure("drift on average", slope, "MB/cycle", target, conditions=conditions))
