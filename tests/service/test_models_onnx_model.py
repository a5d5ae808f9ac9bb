"""ONNX models through the real onnxruntime."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ondol.errors import AlreadyClosedError, ConfigurationError, MissingExtraError, ModelError, ModelLoadError
from ondol.models import ModelPool, ModelSpec
from ondol.models.adapters import onnx_files
from ondol.models.adapters.onnx import OnnxModel, onnx_model
from tests.service.onnx_files import write_dense, write_external

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

X = np.linspace(-1, 1, 1600, dtype=np.float32).reshape(2, 800)


@pytest.fixture
def single(tmp_path: Path) -> Path:
    return write_dense(tmp_path / "single.onnx")


@pytest.fixture
def expected(single: Path) -> np.ndarray[Any, Any]:
    model = onnx_model(single, is_two_stage=False)
    (result,) = model.run({"x": X})
    model.close()
    return result


def copies(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def test_a_single_file_loads_in_one_stage(single: Path) -> None:
    model = onnx_model(single)
    assert (model.stage, model.input_names, model.output_names) == ("fast", ("x",), ("y",))
    assert model.size_bytes == single.stat().st_size
    assert model.run({"x": X}, ["y"])[0].shape == (2, 800)
    model.close()


def test_two_stages_give_the_same_answers(single: Path, tmp_path: Path, expected: np.ndarray[Any, Any]) -> None:
    model = onnx_model(single, weights_dir=tmp_path / "weights", threads=1)
    assert model.stage == "mapped"
    (first,) = model.run({"x": X})
    assert model.wait_until_fast(60)
    (second,) = model.run({"x": X})
    model.close()
    assert np.allclose(first, expected, atol=1e-5)
    assert np.array_equal(second, expected)


def test_the_copy_with_mappable_weights_is_made_once_for_each_version(single: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    for _ in range(2):
        onnx_model(single, weights_dir=folder).close()
    (copy,) = copies(folder)
    assert {file.name for file in copy.iterdir()} == {"model.onnx", "weights.bin"}
    assert (copy / "model.onnx").stat().st_size < 100_000
    write_dense(single, layers=5)
    model = onnx_model(single, weights_dir=folder)
    model.run({"x": X})
    model.close()
    (newer,) = copies(folder)
    assert newer != copy


def test_a_version_of_the_same_size_and_time_is_another_one(single: Path, tmp_path: Path) -> None:
    # As where every file of a build is given one date.
    os.utime(single, (1, 1))
    onnx_model(single, weights_dir=tmp_path / "weights").close()
    before = copies(tmp_path / "weights")
    content = single.read_bytes().replace(np.full(100, 0.1, np.float32).tobytes(), np.zeros(100, np.float32).tobytes())
    single.with_suffix(".new").write_bytes(content)
    single.with_suffix(".new").rename(single)
    os.utime(single, (1, 1))
    model = onnx_model(single, weights_dir=tmp_path / "weights")
    assert model.stage == "mapped"
    assert not model.run({"x": np.zeros((1, 800), np.float32)})[0].any()
    model.close()
    assert copies(tmp_path / "weights") != before


def test_what_a_crash_left_is_cleared_away(single: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    onnx_model(single, weights_dir=folder).close()
    (copy,) = copies(folder)
    copy.rename(f"{copy}-unfinished")
    onnx_model(single, weights_dir=folder).close()
    assert copies(folder) == [copy]
    os.truncate(copy / "weights.bin", 5000)  # as after a power failure
    model = onnx_model(single, weights_dir=folder)
    assert model.stage == "mapped"
    model.close()
    assert (copy / "weights.bin").stat().st_size > 5000


def test_many_who_load_at_once_make_one_copy(single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    write = onnx_files._write_copy

    def noted(source: Any, layout: Any, folder: Path) -> None:
        written.append(folder)
        write(source, layout, folder)

    monkeypatch.setattr(onnx_files, "_write_copy", noted)
    with ThreadPoolExecutor() as threads:
        made = [threads.submit(onnx_files.mappable_copy, single, tmp_path / "weights") for _ in range(4)]
        assert len({copy.result() for copy in made}) == 1
    assert len(written) == 1


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (os.utime, "was changed while it was copied"),
        (lambda path: os.truncate(path, 5_000_000), "was cut short while it was copied"),
    ],
)
def test_a_model_that_changes_under_the_copy_is_not_kept(
    single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], Any], fault: str
) -> None:
    write = onnx_files._write_copy

    def changed(source: Any, layout: Any, folder: Path) -> None:
        change(single)
        write(source, layout, folder)

    monkeypatch.setattr(onnx_files, "_write_copy", changed)
    with pytest.raises(ModelLoadError, match=fault):
        onnx_model(single, weights_dir=tmp_path / "weights")
    assert copies(tmp_path / "weights") == []


def test_a_copy_that_the_runtime_refuses_does_not_keep_the_model_from_loading(
    single: Path, tmp_path: Path, expected: np.ndarray[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    onnx_files.mappable_copy(single, tmp_path / "weights").write_bytes(b"damaged")
    model = onnx_model(single, weights_dir=tmp_path / "weights")
    assert model.stage == "fast"
    assert np.array_equal(model.run({"x": X})[0], expected)
    assert "loads in one stage" in caplog.text
    model.close()


def test_copies_are_not_read_from_where_everybody_may_write(single: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    folder.chmod(0o1777)
    with pytest.raises(ConfigurationError, match="chmod o-w"):
        onnx_model(single, weights_dir=folder)
    assert list(folder.iterdir()) == []


def test_copies_are_not_read_from_where_another_group_may_write(
    single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    folder.chmod(0o770)
    other_group = folder.stat().st_gid + 1
    monkeypatch.setattr(os, "getegid", lambda: other_group)
    with pytest.raises(ConfigurationError, match="chmod g-w"):
        onnx_model(single, weights_dir=folder)
    assert list(folder.iterdir()) == []


def test_a_model_with_external_weights_needs_no_copy(
    single: Path, tmp_path: Path, expected: np.ndarray[Any, Any]
) -> None:
    external = onnx_files.mappable_copy(single, tmp_path / "made")
    model = onnx_model(external.parent)
    assert model.stage == "mapped"
    assert model.size_bytes == sum(file.stat().st_size for file in external.parent.iterdir())
    assert np.allclose(model.run({"x": X})[0], expected, atol=1e-5)
    model.close()


def test_any_letters_may_stand_in_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "모델 – größe"
    (folder / "가중치").mkdir(parents=True)
    weights = write_external(folder / "하나.onnx", "가중치/무게.bin")
    (folder / "가중치" / "무게.bin").write_bytes(weights)
    for model in (onnx_model(folder), onnx_model(write_dense(tmp_path / "둘.onnx"), weights_dir=tmp_path / "사본")):
        assert model.stage == "mapped"
        model.close()


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "link.bin", "*/_ORT_MEM_ADDR_/*", "", "sub"])
def test_weights_outside_of_the_models_folder_are_not_read(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    for part in ("sub", "*/_ORT_MEM_ADDR_"):
        (folder / part).mkdir(parents=True)
    weights = write_external(folder / "model.onnx", location)
    (tmp_path / "weights.bin").write_bytes(weights)
    (folder / "*/_ORT_MEM_ADDR_/*").write_bytes(weights)
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ModelLoadError, match="only a file in its own folder is allowed"):
        onnx_model(folder)


@pytest.mark.parametrize("location", ["absent.bin", "nul\0.bin", "circle.bin"])
def test_weights_that_are_not_there_are_named(tmp_path: Path, location: str) -> None:
    write_external(tmp_path / "model.onnx", location)
    (tmp_path / "circle.bin").symlink_to("circle.bin")
    with pytest.raises(ModelLoadError, match=r"'(absent|nul|circle).*bin', which cannot be found"):
        onnx_model(tmp_path)


def test_a_folder_of_links_into_a_store_of_files_is_a_model(tmp_path: Path) -> None:
    # As the hub's cache keeps them: the names are links to files that are called by their digests.
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "blobs" / "b1").write_bytes(write_external(tmp_path / "blobs" / "a0", "model.onnx_data"))
    (tmp_path / "snapshot" / "model.onnx").symlink_to("../blobs/a0")
    (tmp_path / "snapshot" / "model.onnx_data").symlink_to("../blobs/b1")
    model = onnx_model(tmp_path / "snapshot")
    assert model.size_bytes > 10_000_000
    assert model.stage == "mapped"
    model.close()


def test_hidden_files_are_no_models(single: Path) -> None:
    single.with_name("._single.onnx").write_bytes(b"what another system adds")
    onnx_model(single.parent).close()


def test_a_small_model_is_loaded_in_one_stage(tmp_path: Path) -> None:
    small = write_dense(tmp_path / "small.onnx", layers=2, width=64)
    model = onnx_model(small, weights_dir=tmp_path / "weights")
    assert model.stage == "fast"
    assert not (tmp_path / "weights").exists()
    model.close()


def test_where_no_copy_can_be_written_it_loads_in_one_stage(
    single: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    model = onnx_model(single, weights_dir=tmp_path / "file")
    assert model.stage == "fast"
    assert "no mappable copy" in caplog.text
    model.close()


def test_a_copy_that_fails_half_way_leaves_nothing(
    single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_files, "_sync", full)
    onnx_model(single, weights_dir=tmp_path / "weights").close()
    assert copies(tmp_path / "weights") == []


def test_closing_while_the_fast_session_is_built(single: Path, tmp_path: Path) -> None:
    before = threading.active_count()
    for _ in range(5):
        model = onnx_model(single, weights_dir=tmp_path / "weights")
        model.run({"x": X})
        model.close()
        model.close()
        with pytest.raises(AlreadyClosedError):
            model.run({"x": X})
    assert threading.active_count() == before


def test_a_pool_loads_and_unloads_it(single: Path, tmp_path: Path) -> None:
    models: list[OnnxModel] = []

    async def scenario() -> None:
        load = functools.partial(onnx_model, single, weights_dir=tmp_path / "weights")
        spec = ModelSpec("dense", load=load, unload=OnnxModel.close)
        async with ModelPool() as pool:
            pool.register(spec)
            async with pool.lease("dense") as model:
                assert (await asyncio.to_thread(model.run, {"x": X}))[0].shape == (2, 800)
                models.append(model)
            assert await pool.unload("dense")

    asyncio.run(scenario())
    with pytest.raises(AlreadyClosedError):
        models[0].run({"x": X})


def test_faults_are_told(tmp_path: Path, single: Path) -> None:
    with pytest.raises(ModelLoadError, match="there is no ONNX model"):
        onnx_model(tmp_path / "absent.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelLoadError, match="ONNX model"):
        onnx_model(tmp_path / "bad.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(ModelLoadError, match="cannot be read"):
        onnx_model(tmp_path / "empty.onnx")
    with pytest.raises(ModelLoadError, match="not exactly one"):
        onnx_model(tmp_path)
    for threads in (0, True, "2"):
        with pytest.raises(ConfigurationError, match="threads"):
            onnx_model(single, threads=threads)  # type: ignore[arg-type]  # what a configuration file may hold
    for providers in ((), "CPUExecutionProvider", ["CPUExecutionProvider", "NoExecutionProvider"]):
        with pytest.raises(ConfigurationError, match="CPUExecutionProvider, which this onnxruntime has"):
            onnx_model(single, providers=providers)
    (tmp_path / "cut.onnx").write_bytes(single.read_bytes()[:-5000])
    with pytest.raises(ModelLoadError, match=r"cut\.onnx .*ends within"):
        onnx_model(tmp_path / "cut.onnx")


def test_an_error_that_is_kept_holds_no_session(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x08")
    with pytest.raises(ModelLoadError, match=r"bad\.onnx cannot be loaded") as caught:
        onnx_model(tmp_path / "bad.onnx")
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__traceback__ is None


def test_it_computes_where_it_was_asked_to_or_not_at_all(single: Path) -> None:
    model = onnx_model(single)
    session: Any = model._stages._serving.session
    assert not session._enable_fallback
    model.close()


EARLY_END = """
import sys
from ondol.models.adapters import onnx_model
model = onnx_model(sys.argv[1], weights_dir=sys.argv[2], threads=1)
model.run({"x": __import__("numpy").ones((1, 800), "float32")})
"""


def test_a_process_may_end_while_the_fast_session_is_built(single: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", EARLY_END, str(single), str(tmp_path / "weights")]
    for _ in range(3):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, "")


def test_bad_input_is_told(single: Path) -> None:
    model = onnx_model(single)
    with pytest.raises(ModelError, match="could not compute"):
        model.run({"x": np.ones((1, 3), np.float32)})
    with pytest.raises(ModelError, match="could not compute"):
        model.run({"z": X})
    model.close()


def test_without_onnxruntime_the_extra_is_named(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"ondol\[onnx\]"):
        onnx_model(single)
