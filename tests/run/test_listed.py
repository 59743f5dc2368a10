"""The list of runs: what each came to, damaged ones as such, never a traceback."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from regraft.artifacts import RunFolder
from regraft.errors import UsageError
from regraft.run.listed import list_runs
from runs_by_hand import answers_to, labels_of, write_run

LABELS = labels_of(100)
ANSWERS = answers_to(LABELS, 0.8, 0)


def test_runs_are_listed_newest_first_with_their_headline(tmp_path: Path) -> None:
    write_run(tmp_path / "old", LABELS, ANSWERS, began="2026-01-02T10:00:00.123+00:00")
    write_run(tmp_path / "deep" / "er" / "new", LABELS, ANSWERS, began="2026-03-02T10:00:00.123+00:00")
    write_run(
        tmp_path / "val",
        LABELS,
        ANSWERS,
        began="2026-02-02T10:00:00.123+00:00",
        split="val",
        state="explored",
    )
    (tmp_path / "no run").mkdir()
    found = list_runs(tmp_path)
    assert [Path(run.path).name for run in found] == ["new", "val", "old"]
    assert found[0].headline.startswith("test accuracy 73.0%")
    assert "on 100 examples" in found[0].headline
    assert found[1].headline.startswith("val accuracy")
    assert (found[0].state, found[1].state) == ("finished", "explored")
    assert found[0].date == "2026-03-02T10:00:00+00:00"
    assert [run.path for run in list_runs(tmp_path / "old")] == [str(tmp_path / "old")]


def test_runs_inside_a_run_and_the_seeds_of_repeats_are_one_line(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "whole", LABELS, ANSWERS)
    write_run(whole / "folds" / "0", LABELS, ANSWERS)
    seeds = [write_run(tmp_path / "many" / f"seed-{k}", LABELS, ANSWERS) for k in range(3)]
    about = {
        "split": "test",
        "metrics": {"accuracy": {"mean": 0.81, "spread": 0.013, "low": 0.8, "high": 0.83}},
        "runs": [{"path": str(seed), "seed": k, "chosen": "head only"} for k, seed in enumerate(seeds)],
    }
    (tmp_path / "many" / "repeats.json").write_text(json.dumps(about))
    found = {Path(run.path).name: run for run in list_runs(tmp_path)}
    assert found.keys() == {"whole", "many"}
    assert found["many"].state == "3 seeds"
    assert found["many"].headline == "test accuracy 81.0%, spread 1.3 points"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 7}', '{"schema": 2, "provenance": 3, "state": "finished"}', "\x00"]
)
def test_damaged_runs_are_listed_as_such(text: str, tmp_path: Path) -> None:
    write_run(tmp_path / "good", LABELS, ANSWERS)
    bad = write_run(tmp_path / "bad", LABELS, ANSWERS)
    (bad / "run.json").write_text(text)
    found = {Path(run.path).name: run for run in list_runs(tmp_path)}
    assert found["good"].state == "finished"
    assert found["bad"].state == "damaged"
    assert found["bad"].headline


@pytest.mark.parametrize("name", ["metrics.json", "repeats.json", "events.jsonl"])
def test_other_files_may_be_damaged_too(name: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", LABELS, ANSWERS)
    (run / name).write_bytes(b'{"test": [\xff')
    assert list_runs(tmp_path)[0].state == ("finished" if name == "events.jsonl" else "damaged")


def test_a_run_nobody_works_on_is_not_called_running(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", LABELS, ANSWERS, state="running")
    assert list_runs(tmp_path)[0].state == "stopped"
    with FileLock(str(run / ".lock")):
        assert list_runs(tmp_path)[0].state == "running"


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    assert list_runs(tmp_path) == []
    with pytest.raises(UsageError, match="is no folder"):
        list_runs(tmp_path / "none")


def test_looking_at_a_run_keeps_nobody_out(tmp_path: Path) -> None:
    """Two may look at once, and a run that starts meanwhile is not refused."""
    fcntl = pytest.importorskip("fcntl", reason="locks are never shared here")
    run = write_run(tmp_path / "run", LABELS, ANSWERS, state="running")
    lock = run / ".lock"
    lock.write_bytes(b"whose it is")
    with open(lock, "rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert [listed.state for listed in list_runs(tmp_path)] == ["stopped"]
        later = threading.Timer(0.1, fcntl.flock, (looking, fcntl.LOCK_UN))
        later.start()
        folder = RunFolder(run)
        assert lock.read_bytes() == b"whose it is"
        folder.lock()
        later.join()
    assert [listed.state for listed in list_runs(tmp_path)] == ["running"]
    folder.release()
