"""Nothing in the cache is needed: where it cannot be had, be read or be written, the work goes on, and that
is said once.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from test_store import Engine, ask

import regraft
from conftest import Fitted
from regraft import runtime
from regraft.backbones import at_hand
from regraft.demo import demo_data
from regraft.errors import DataError
from regraft.inference import store as stores
from regraft.inference.store import FeatureStore
from regraft.inference.trial import recall, remember
from room import little_room


def test_a_full_cache_is_said_once_and_the_features_are_right(tmp_path: Path) -> None:
    said: list[str] = []
    store, engine = FeatureStore(tmp_path / "cache", note=said.append), Engine()
    assert ask(store, engine, [1])[:, 0].tolist() == [1]
    with little_room(10):
        for _ in range(2):
            assert ask(store, engine, [1, 7, 9])[:, 0].tolist() == [1, 7, 9]
    assert engine.seen == 5  # what was kept before is still read
    assert len(said) == 1
    assert str(tmp_path / "cache") in said[0]
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_cache_that_is_a_file_and_one_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    (tmp_path / "file").touch()
    assert ask(FeatureStore(tmp_path / "file", note=said.append), Engine(), [3, 4])[:, 0].tolist() == [3, 4]
    assert len(said) == 1
    remember(tmp_path / "file", "key", found={"precision": "float32"})
    assert recall(tmp_path / "file", "key") is None
    theirs, engine = tmp_path / "theirs", Engine()
    ask(FeatureStore(theirs), engine, [3, 4])

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    store = FeatureStore(theirs)
    with monkeypatch.context() as patched:
        patched.setattr(os, "utime", refused)
        patched.setattr(Path, "unlink", refused)
        found, left = ask(store, engine, [3, 4]), store.shrink(0)
    assert found[:, 0].tolist() == [3, 4]
    assert engine.seen == 2  # what can be read is read
    assert left == 0


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system does not reserve room for a file")
def test_an_array_that_finds_no_room_on_the_disk_is_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "IN_MEMORY", 0)
    said: list[str] = []
    store = FeatureStore(tmp_path, note=said.append)
    with little_room(20):  # bytes; the array has 36
        found = ask(store, Engine(), [1, 2, 3])
    assert not isinstance(found, np.memmap)
    assert (found[:, 0].tolist(), len(said), list(tmp_path.iterdir())) == ([1, 2, 3], 1, [])
    assert isinstance(ask(FeatureStore(tmp_path), Engine(), [1, 2, 3]), np.memmap)


def test_a_run_whose_cache_is_a_file(fitted: Fitted, tmp_path: Path, head_only: dict) -> None:
    (tmp_path / "file").touch()
    heard: list[dict] = []
    run = regraft.fit(
        fitted.data, tmp_path / "run", recipe=head_only, cache=tmp_path / "file", listeners=[heard.append]
    )
    assert run.metrics["test"]["accuracy"].value == regraft.Run(fitted.run).metrics["test"]["accuracy"].value
    assert len([event for event in heard if event["kind"] == "note" and "cache" in event["text"]]) == 1


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """HOME is not set, and the user has no name: `docker run --user 12345`."""
    pwd = pytest.importorskip("pwd", reason="the system has no user database")

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "REGRAFT_CACHE", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_no_home_folder(homeless: None, fitted: Fitted, tmp_path: Path, head_only: dict) -> None:
    assert runtime.cache_folder() is None
    heard: list[dict] = []
    run = regraft.fit(fitted.data, "run", recipe=head_only, listeners=[heard.append])
    assert run.state["state"] == "finished"
    assert [event["text"] for event in heard if event["kind"] == "note" and "home" in event["text"]] == [
        runtime.NO_HOME
    ]
    assert [item.name for item in tmp_path.iterdir()] == ["run"]  # and no folder that is called ~
    with pytest.raises(DataError, match="does not exist"):
        regraft.fit("~/data", "other", cache=None)
    assert any(item["at_hand"] for item in at_hand())


def test_the_demo_has_its_pictures_without_a_cache(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    folder = demo_data()
    try:
        assert len(list(folder.glob("*/*.png"))) == 1797
        assert not folder.is_relative_to(tmp_path)
    finally:
        shutil.rmtree(folder.parent)


def test_fonts_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "file" / "matplotlib"))
    runtime.ready_matplotlib()
    place = Path(os.environ["MPLCONFIGDIR"])
    assert place.is_dir()
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "mine"))
    runtime.ready_matplotlib()
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path / "mine")
