"""A run's folder is taken before the work that goes before the run, and is not left behind by what fails."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import regraft
from regraft.artifacts import RunFolder, claim_free
from regraft.errors import DataError, UsageError
from regraft.run.open import reserved, reserved_for_several


@pytest.fixture
def one_class(tmp_path: Path) -> Path:
    """Data that no run can be made of, which only the audit finds out."""
    rng = np.random.default_rng(0)
    (tmp_path / "data" / "a").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(
            tmp_path / "data" / "a" / f"{number}.png"
        )
    return tmp_path / "data"


def test_the_folder_is_taken_before_the_audit(one_class: Path, tmp_path: Path) -> None:
    """Another process that ends while this one audits must not find its run overwritten."""
    said: list[str] = []

    def try_to_lock() -> None:
        with pytest.raises(UsageError) as raised:
            RunFolder(tmp_path / "run").lock()
        said.append(str(raised.value))

    def intrude(event: dict[str, Any]) -> None:
        if event.get("label") == "looking at the files" and not said:
            with ThreadPoolExecutor(1) as other:
                other.submit(try_to_lock).result()

    with pytest.raises(DataError, match="of one class"):
        regraft.fit(one_class, tmp_path / "run", listeners=[intrude])
    assert "another process is working" in said[0]
    RunFolder(tmp_path / "run").lock()  # given back


def test_a_run_that_another_process_made_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """The folder was free when it was looked at, and is not under the lock."""
    folder, looked = RunFolder(tmp_path / "run"), []

    def check(place: RunFolder) -> None:
        if looked:
            raise UsageError("it holds a run by now")
        looked.append(place)

    with pytest.raises(UsageError, match="by now"), folder.reserved(check):
        pytest.fail("it must not come to this")


@pytest.mark.parametrize("out", ["run", "deep/er/run", None])
def test_an_audit_that_fails_leaves_nothing_behind(
    out: str | None, one_class: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    with pytest.raises(DataError, match="of one class"):
        regraft.fit(one_class, out)
    with pytest.raises(DataError, match="of one class"):
        regraft.repeat(one_class, out, 2)
    assert not list(place.iterdir())
    (place / "mine").mkdir()  # an empty folder that was there stays
    with pytest.raises(DataError):
        regraft.fit(one_class, "mine")
    assert (place / "mine").is_dir()


def test_a_foreign_folder_gets_no_lock_and_a_run_holds_no_runs(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    with pytest.raises(UsageError, match="holds no run"), reserved(tmp_path / "photos", "photos", False):
        pytest.fail("it is not free")
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["a.png"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="holds a run"), reserved_for_several(tmp_path / "run", "x"):
        pytest.fail("seeds must not land in a run")


def test_of_many_that_ask_at_once_each_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(lambda _: claim_free(tmp_path / "runs", "photos"), range(40)))
    assert len(set(places)) == 40


def test_what_is_left_of_a_run_that_never_began_is_in_nobodys_way(one_class: Path, tmp_path: Path) -> None:
    """Killed, or a full disk, after the table was written and before run.json was."""
    run = tmp_path / "run"
    run.mkdir()
    for name in (".lock", "examples.parquet", "audit.json", ".run.json.123.456.tmp"):
        (run / name).write_bytes(b"left")
    with pytest.raises(DataError, match="of one class"):  # so it came to the data
        regraft.fit(one_class, run)
    RunFolder(run).clear()
    assert [item.name for item in run.iterdir()] == [".lock"]
    for name in ("examples.parquet", "mine.txt"):
        (run / name).write_bytes(b"mine")
    with pytest.raises(UsageError, match="holds no run"):
        regraft.fit(one_class, run)
