"""Each adapter loads in a process of its own, with arguments that can be sent there."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest
import safetensors.numpy
from sklearn.linear_model import LogisticRegression

from ondol.errors import ModelLoadError
from ondol.models import ModelPool, ModelSpec
from ondol.models.adapters import OnnxModel, onnx_model, safetensors_weights, trusted_pipeline
from ondol.models.isolation import ForkServer, IsolatedModel, start_isolated
from tests.service.onnx_files import write_dense

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from ondol.models.spec import Isolation


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


def with_model(server: ForkServer, load: Any, scenario: Callable[[IsolatedModel], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        model = await start_isolated(load, name="m", server=server)
        try:
            await scenario(model)
        finally:
            ended = await model.close()
        assert ended.exit_code == 0

    asyncio.run(run())


def test_onnx(server: ForkServer, tmp_path: Path) -> None:
    file = write_dense(tmp_path / "model.onnx")
    load = functools.partial(onnx_model, str(file), weights_dir=str(tmp_path / "weights"), threads=1)

    async def scenario(model: IsolatedModel) -> None:
        assert await model.read("stage") == "mapped"
        (y,) = await model.run({"x": np.ones((2, 800), np.float32)}, ["y"])
        assert (y.shape, y.dtype) == ((2, 800), np.float32)
        assert await model.read("size_bytes") == file.stat().st_size
        assert await model.read("input_names") == ("x",)
        assert await model.wait_until_fast(60.0)

    with_model(server, load, scenario)


def test_it_may_end_while_the_fast_session_is_built(server: ForkServer, tmp_path: Path) -> None:
    file = write_dense(tmp_path / "model.onnx")
    load = functools.partial(onnx_model, str(file), weights_dir=str(tmp_path / "weights"), threads=1)

    async def scenario(model: IsolatedModel) -> None:
        await model.run({"x": np.ones((1, 800), np.float32)})

    with_model(server, load, scenario)


def test_safetensors(server: ForkServer, tmp_path: Path) -> None:
    safetensors.numpy.save_file({"w": np.arange(6.0).reshape(2, 3)}, tmp_path / "m.safetensors")

    async def scenario(weights: IsolatedModel) -> None:
        assert (await weights.get("w")).tolist() == [[0, 1, 2], [3, 4, 5]]
        assert await weights.read("size_bytes") == 48

    with_model(server, functools.partial(safetensors_weights, str(tmp_path)), scenario)


def test_joblib(server: ForkServer, tmp_path: Path) -> None:
    x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    joblib.dump(LogisticRegression().fit(x, ["no", "no", "yes", "yes"]), tmp_path / "m.joblib")
    load = functools.partial(trusted_pipeline, str(tmp_path / "m.joblib"), trusted_dirs=[str(tmp_path)])

    async def scenario(model: IsolatedModel) -> None:
        assert (await model.predict(x)).tolist() == ["no", "no", "yes", "yes"]

    with_model(server, load, scenario)


def test_faults_are_told_across(server: ForkServer, tmp_path: Path) -> None:
    async def run() -> None:
        await start_isolated(functools.partial(onnx_model, str(tmp_path)), name="m", server=server)

    with pytest.raises(ModelLoadError, match=r"has no model\.onnx"):
        asyncio.run(run())


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_pool_loads_and_unloads_it_either_way(tmp_path: Path, isolation: Isolation) -> None:
    file = write_dense(tmp_path / "model.onnx")
    spec = ModelSpec(
        "dense",
        load=functools.partial(onnx_model, str(file), weights_dir=str(tmp_path / "weights"), threads=1),
        unload=OnnxModel.close if isolation == "thread" else None,  # its process ends anyway
        isolation=isolation,
    )

    async def run() -> None:
        async with ModelPool() as pool:
            pool.register(spec)
            async with pool.lease("dense") as model:
                feeds = {"x": np.ones((2, 800), np.float32)}
                (y,) = await (model.run(feeds) if isolation == "process" else asyncio.to_thread(model.run, feeds))
                assert y.shape == (2, 800)
            if isolation == "thread":
                assert pool.status("dense").size_bytes == file.stat().st_size
            assert await pool.unload("dense")

    asyncio.run(run())
