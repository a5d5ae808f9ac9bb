"""One measurement of benchmarks/models_onnx.py, in the process that it runs here: prints what it measured as JSON.

    python benchmarks/models_onnx_process.py MEASUREMENT MODEL WEIGHTS_FOLDER COUNT

Plain and ondol's processes import the same and compute with one thread.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import json
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from models_conditions import MB, rss_bytes

from ondol.models import ModelPool, ModelSpec
from ondol.models.adapters.onnx import OnnxModel, onnx_model
from ondol.models.allocator import give_back, prepare_allocator

if TYPE_CHECKING:
    from collections.abc import Callable

onnxruntime: Any = importlib.import_module("onnxruntime")  # it ships no type information
FAST_LIMIT_S = 120.0


def inputs(model: str, rows: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return a batch; the model's file is named after its width."""
    return {"x": np.ones((rows, int(model.rpartition("-")[2].partition(".")[0])), np.float32)}


def plain_session(model: str) -> Any:
    """Return what a user of onnxruntime makes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def made_pool(model: str, weights: str) -> ModelPool:
    """Return a pool that knows the model, in a process whose allocator is prepared."""
    if not prepare_allocator().is_applied:
        raise RuntimeError("the allocator could not be prepared: these figures are for glibc")
    pool = ModelPool(release_memory=give_back)
    load = functools.partial(onnx_model, model, threads=1, weights_dir=weights)
    pool.register(ModelSpec("dense", load=load, unload=OnnxModel.close))
    return pool


def first_answer_plain(model: str, _weights: str, _count: int) -> float:
    """Return the seconds from nothing loaded to the first answer."""
    one = inputs(model, 1)
    begun_s = time.perf_counter()
    plain_session(model).run(None, one)
    return time.perf_counter() - begun_s


def first_answer(model: str, weights: str, _count: int) -> float:
    """Return the seconds from a lease of a model that is not loaded to the first answer."""

    async def measure() -> float:
        one = inputs(model, 1)
        async with made_pool(model, weights) as pool:
            begun_s = time.perf_counter()
            async with pool.lease("dense") as dense:
                dense.run(one)
                taken_s = time.perf_counter() - begun_s
                if dense.stage != "mapped":
                    raise RuntimeError("the first answer came from the second stage: nothing was measured")
        return taken_s

    return asyncio.run(measure())


def steady(model: str, weights: str, count: int) -> tuple[float, float]:
    """Return the median CPU seconds of a batch of eight after the swap, and of a plain session made after it."""
    return asyncio.run(take_turns(model, weights, count, is_plain_first=False))


def steady_plain_first(model: str, weights: str, count: int) -> tuple[float, float]:
    """Return what :func:`steady` does, beside a plain session that was made before."""
    return asyncio.run(take_turns(model, weights, count, is_plain_first=True))


async def take_turns(model: str, weights: str, count: int, *, is_plain_first: bool) -> tuple[float, float]:
    """Let both sessions compute in turn."""
    eight, ours, theirs = inputs(model, 8), list[float](), list[float]()
    session = plain_session(model) if is_plain_first else None
    async with made_pool(model, weights) as pool, pool.lease("dense") as dense:
        dense.run(eight)
        await until_fast(dense)
        plain = session or plain_session(model)
        turns = [(ours, lambda: dense.run(eight)), (theirs, lambda: plain.run(None, eight))]
        for turn in range(2 * count):
            for taken_s, run in turns if turn % 2 else reversed(turns):
                taken_s.append(cpu_of(run))
    return median(ours), median(theirs)


def cpu_of(run: Callable[[], object]) -> float:
    """Return the CPU seconds of one call, which computes in this thread."""
    begun_s = time.thread_time()
    run()
    return time.thread_time() - begun_s


async def until_fast(dense: OnnxModel) -> None:
    """Wait for the second stage."""
    if not await asyncio.to_thread(dense.wait_until_fast, FAST_LIMIT_S):
        message = f"the second stage was not built: {dense.fault}"
        raise RuntimeError(message)


def cycles_plain(model: str, _weights: str, count: int) -> list[tuple[float, float, float]]:
    """Return the resident MB before each load, with the model loaded, and after it was let go of."""

    def cycle() -> tuple[float, float, float]:
        before = rss_bytes()
        session = plain_session(model)
        session.run(None, inputs(model, 8))
        loaded = rss_bytes()
        del session
        gc.collect()
        return before / MB, loaded / MB, rss_bytes() / MB

    return [cycle() for _ in range(count)]


def cycles(model: str, weights: str, count: int) -> list[tuple[float, float, float]]:
    """Return what :func:`cycles_plain` does, for loads and unloads of the pool, both stages passed through."""

    async def cycle(pool: ModelPool) -> tuple[float, float, float]:
        before = rss_bytes()
        async with pool.lease("dense") as dense:
            dense.run(inputs(model, 8))
            await until_fast(dense)
            dense.run(inputs(model, 8))
            loaded = rss_bytes()
        del dense
        await pool.unload("dense")
        return before / MB, loaded / MB, rss_bytes() / MB

    async def measure() -> list[tuple[float, float, float]]:
        async with made_pool(model, weights) as pool:
            return [await cycle(pool) for _ in range(count)]

    return asyncio.run(measure())


MEASUREMENTS: dict[str, Callable[[str, str, int], object]] = {
    function.__name__: function
    for function in (first_answer, first_answer_plain, steady, steady_plain_first, cycles, cycles_plain)
}


if __name__ == "__main__":
    measurement, model_path, weights_path, repeats = sys.argv[1:]
    print(json.dumps(MEASUREMENTS[measurement](model_path, weights_path, int(repeats))))
