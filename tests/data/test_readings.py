"""How often a test set was read: by the event log, beside runs that share it."""

from __future__ import annotations

import json
from pathlib import Path

from regraft.artifacts import RunFolder
from regraft.data import count_readings, readings
from runs_by_hand import answers_to, labels_of, write_run

LABELS = labels_of(30)


def test_readings_of_runs_that_share_the_test_set_are_counted(tmp_path: Path) -> None:
    said = answers_to(LABELS, 0.8, 0)
    mine = write_run(tmp_path / "mine", LABELS, said, readings=2)
    write_run(
        tmp_path / "same",
        LABELS[::-1],
        said[::-1],
        ids=[f"e{i}" for i in range(len(LABELS))][::-1],
        readings=3,
    )
    write_run(tmp_path / "other", LABELS[:20], said[:20], readings=5)
    write_run(tmp_path / "unread", LABELS, said, readings=0)
    damaged = write_run(tmp_path / "damaged", LABELS, said)
    (damaged / "examples.parquet").write_bytes(b"torn")
    (tmp_path / "a file").write_text("")
    found = count_readings(RunFolder(mine))
    assert (found.own, found.others, found.total) == (2, {str(tmp_path / "same"): 3}, 5)
    assert "read 5 times: twice by this run, 3 times by" in found.in_words()


def test_run_json_is_asked_where_the_log_is_gone(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", LABELS, LABELS)
    assert [(row["reason"], row["examples"]) for row in readings(RunFolder(run))] == [("step 7", 30)]
    (run / "events.jsonl").unlink()
    assert readings(RunFolder(run)) == []
    kept = [{"time": "2026-01-01T00:00:00+00:00", "reason": "step 7", "examples": 30}]
    (run / "run.json").write_text(json.dumps({"schema": RunFolder.SCHEMA, "readings": kept}))
    assert readings(RunFolder(run)) == kept
