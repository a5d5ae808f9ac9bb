"""Pickled pipelines are read from trusted folders, and from nowhere else."""

from __future__ import annotations

import os
import pickle
import sys
from typing import TYPE_CHECKING

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ondol.errors import ConfigurationError, MissingExtraError, ModelLoadError
from ondol.models.adapters import joblib_pipeline
from ondol.models.adapters.joblib_pipeline import trusted_pipeline

if TYPE_CHECKING:
    from pathlib import Path

MARKS: list[str] = []


def mark(text: str) -> None:
    MARKS.append(text)


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return mark, ("ran",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    MARKS.clear()
    folder = tmp_path / "trusted"
    folder.mkdir(mode=0o755)
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    return folder


def write(path: Path, value: object = None) -> Path:
    path.write_bytes(pickle.dumps(Bomb() if value is None else value))
    path.chmod(0o644)
    return path


def test_loading_runs_what_is_in_the_file(folder: Path) -> None:
    trusted_pipeline(write(folder / "a.pkl"), trusted_dirs=[folder])
    assert MARKS == ["ran"]


def test_a_file_in_a_trusted_folder_is_loaded(folder: Path) -> None:
    (folder / "deep").mkdir(mode=0o755)
    write(folder / "deep" / "a.pkl", {"steps": [1, 2]})
    assert trusted_pipeline(folder / "deep" / "a.pkl", trusted_dirs=["/nonsense", folder]) == {"steps": [1, 2]}


@pytest.mark.parametrize("compress", [0, 3])
def test_a_pipeline_of_scikit_learn_is_loaded(folder: Path, compress: int) -> None:
    x = np.random.default_rng(3).standard_normal((60, 4))
    y = np.where(x[:, 0] + x[:, 1] > 0, "긍정", "부정")
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    file = folder / "감정.joblib"
    joblib.dump(pipeline, file, compress=compress)
    loaded = trusted_pipeline(file, trusted_dirs=[folder])
    assert isinstance(loaded, Pipeline)
    assert (loaded.predict(x) == pipeline.predict(x)).all()
    assert set(loaded.predict(x)) == {"긍정", "부정"}


def test_what_it_needs_and_is_not_installed_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(folder / "a.pkl", StandardScaler())
    monkeypatch.setitem(sys.modules, "sklearn.preprocessing._data", None)
    with pytest.raises(ConfigurationError, match=r"needs a package that is not installed here.*sklearn"):
        trusted_pipeline(file, trusted_dirs=[folder])


def test_without_joblib_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "a.joblib")
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(MissingExtraError, match=r"ondol\[joblib\]"):
        trusted_pipeline(folder / "a.joblib", trusted_dirs=[folder])


@pytest.mark.parametrize("trusted", [[], ["elsewhere"], ["trusted/inner"]])
def test_no_other_folder_is_trusted(folder: Path, trusted: list[str]) -> None:
    (folder / "inner").mkdir()
    file = write(folder / "a.pkl")
    with pytest.raises(ConfigurationError, match="trusted_dirs="):
        trusted_pipeline(file, trusted_dirs=[folder.parent / name for name in trusted])
    assert MARKS == []


def test_a_folder_whose_name_only_begins_alike_is_not_trusted(folder: Path) -> None:
    other = folder.parent / "trusted-not"
    other.mkdir()
    with pytest.raises(ConfigurationError, match="not in a trusted folder"):
        trusted_pipeline(write(other / "a.pkl"), trusted_dirs=[folder])


def test_links_and_dots_do_not_lead_out(folder: Path) -> None:
    outside = write(folder.parent / "elsewhere" / "a.pkl")
    (folder / "file.pkl").symlink_to(outside)
    (folder / "dir").symlink_to(outside.parent)
    for path in (folder / "file.pkl", folder / "dir" / "a.pkl", folder / ".." / "elsewhere" / "a.pkl"):
        with pytest.raises(ConfigurationError, match="not in a trusted folder"):
            trusted_pipeline(path, trusted_dirs=[folder])
    assert MARKS == []


def test_a_trusted_folder_may_be_named_by_a_link(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    write(folder / "a.pkl", 5)
    assert trusted_pipeline(folder.parent / "link" / "a.pkl", trusted_dirs=[folder.parent / "link"]) == 5


@pytest.mark.parametrize("open_to_all", ["trusted", "trusted/deep", "trusted/deep/a.pkl"])
def test_what_everybody_may_change_is_refused(folder: Path, open_to_all: str) -> None:
    (folder / "deep").mkdir(mode=0o755)
    file = write(folder / "deep" / "a.pkl")
    place = folder.parent / open_to_all
    os.chmod(place, place.stat().st_mode | 0o002)  # noqa: PTH101  # as an operator's chmod does
    with pytest.raises(ConfigurationError, match="chmod o-w"):
        trusted_pipeline(file, trusted_dirs=[folder])
    assert MARKS == []


def pretend(monkeypatch: pytest.MonkeyPatch, place: Path, *, uid: int | None = None, gid: int | None = None) -> None:
    """Let ``place`` seem to belong to somebody else."""
    real, inode = os.fstat, place.stat().st_ino

    def fstat(descriptor: int) -> os.stat_result:
        found = real(descriptor)
        if found.st_ino != inode:
            return found
        owner = (found.st_uid if uid is None else uid, found.st_gid if gid is None else gid)
        return os.stat_result((*found[:4], *owner, *found[6:10]))

    monkeypatch.setattr(os, "fstat", fstat)


PARTS = pytest.mark.parametrize("part", ["trusted", "trusted/deep", "trusted/deep/a.pkl"])


@PARTS
def test_what_belongs_to_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    (folder / "deep").mkdir(mode=0o755)
    file = write(folder / "deep" / "a.pkl")
    place = folder.parent / part
    pretend(monkeypatch, place, uid=os.geteuid() + 4321)
    advice = rf"{place} belongs to user {os.geteuid() + 4321}, .*: chown {os.geteuid()} {place}"
    with pytest.raises(ConfigurationError, match=advice):
        trusted_pipeline(file, trusted_dirs=[folder])
    assert MARKS == []
    pretend(monkeypatch, place, uid=0)
    trusted_pipeline(file, trusted_dirs=[folder])
    assert MARKS == ["ran"]


@PARTS
def test_only_the_own_group_may_change_it(folder: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    (folder / "deep").mkdir(mode=0o755)
    file = write(folder / "deep" / "a.pkl")
    place = folder.parent / part
    os.chmod(place, place.stat().st_mode | 0o020)  # noqa: PTH101  # as an operator's chmod does
    pretend(monkeypatch, place, gid=os.getegid() + 4321)
    with pytest.raises(ConfigurationError, match=rf"group {os.getegid() + 4321} may .*: chmod g-w {place}"):
        trusted_pipeline(file, trusted_dirs=[folder])
    assert MARKS == []
    pretend(monkeypatch, place, gid=os.getegid())
    trusted_pipeline(file, trusted_dirs=[folder])
    assert MARKS == ["ran"]


def test_a_trusted_folder_that_everybody_may_exchange_is_refused(folder: Path) -> None:
    outer = folder.parent / "outer"
    outer.mkdir()
    (outer / "link").symlink_to(folder)
    (outer / "real").mkdir()
    write(folder / "a.pkl")
    write(outer / "real" / "a.pkl")
    outer.chmod(0o777)
    for name in ("link", "real"):
        with pytest.raises(ConfigurationError, match=rf"{outer}, .* chmod o-w"):
            trusted_pipeline(outer / name / "a.pkl", trusted_dirs=[outer / name])
    assert MARKS == []
    outer.chmod(0o1777)  # as /tmp: nobody can exchange what others own
    trusted_pipeline(outer / "real" / "a.pkl", trusted_dirs=[outer / "real"])
    assert MARKS == ["ran"]


@pytest.mark.parametrize("part", ["deep", "deep/a.pkl"])
def test_what_was_judged_is_what_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    (folder / "deep").mkdir()
    file = write(folder / "deep" / "a.pkl", "good")
    outside = folder.parent / "elsewhere"
    write(outside / "a.pkl")
    reader = joblib_pipeline._reader

    def exchanged(path: Path) -> object:
        (folder / part).rename(folder / "before")
        (folder / part).symlink_to(outside if part == "deep" else outside / "a.pkl")
        return reader(path)

    monkeypatch.setattr(joblib_pipeline, "_reader", exchanged)
    with pytest.raises(ModelLoadError, match=r"a\.pkl cannot be loaded"):
        trusted_pipeline(file, trusted_dirs=[folder])
    assert MARKS == []


def test_no_descriptor_is_left_open(folder: Path) -> None:
    (folder / "deep").mkdir(mode=0o755)
    good, bad = write(folder / "deep" / "a.pkl", 1), folder / "deep" / "b.pkl"
    bad.write_bytes(b"no pickle")
    before = os.dup(0)  # the lowest number that is free
    os.close(before)
    trusted_pipeline(good, trusted_dirs=[folder])
    with pytest.raises(ModelLoadError):
        trusted_pipeline(bad, trusted_dirs=[folder])
    good.parent.chmod(0o757)
    with pytest.raises(ConfigurationError):
        trusted_pipeline(good, trusted_dirs=[folder])
    after = os.dup(0)
    os.close(after)
    assert after == before


def test_nobody_waits_for_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "a.pkl", 0o644)
    with pytest.raises(ModelLoadError, match="no regular file"):
        trusted_pipeline(folder / "a.pkl", trusted_dirs=[folder])


def test_the_trusted_folders_are_a_list(folder: Path) -> None:
    file = write(folder / "a.pkl", 5)
    for given in ("/", str(folder), folder):
        with pytest.raises(ConfigurationError, match="must be a list of folders"):
            trusted_pipeline(file, trusted_dirs=given)  # type: ignore[arg-type]  # an easy mistake
    with pytest.raises(ConfigurationError, match="must be folders"):
        trusted_pipeline(file, trusted_dirs=["a\0b"])


def test_faults_of_the_file_are_told(folder: Path) -> None:
    (folder / "a.pkl").write_bytes(b"no pickle")
    (folder / "a.txt").write_bytes(b"")
    with pytest.raises(ModelLoadError, match="UnpicklingError"):
        trusted_pipeline(folder / "a.pkl", trusted_dirs=[folder])
    for name in ("b.pkl", "b\0.pkl"):
        with pytest.raises(ModelLoadError, match="cannot be found"):
            trusted_pipeline(folder / name, trusted_dirs=[folder])
    with pytest.raises(ConfigurationError, match="must end in"):
        trusted_pipeline(folder / "a.txt", trusted_dirs=[folder])
