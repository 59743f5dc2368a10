"""Commands that a user is shown can be pasted into a shell as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import regraft
from regraft.cli.training import show_run
from regraft.console import Screen
from regraft.errors import UsageError
from runs_by_hand import answers_to, labels_of, write_run

LABELS = labels_of(20)


def test_how_to_go_on_and_what_to_do_about_an_error(tmp_path: Path) -> None:
    place = tmp_path / "my runs" / "it's [1]"
    write_run(place, LABELS, answers_to(LABELS, 0.8, 0), split="val")
    screen = Screen(quiet=True)
    screen(
        {
            "kind": "begin",
            "out": str(place),
            "counts": {},
            "apart": "3 classes",
            "findings": [],
            "name": "animals",
        }
    )
    assert shlex.split(screen.how_to_go_on().partition("Go on with: ")[2])[-1] == str(place)
    with pytest.raises(UsageError, match="no test set") as caught:
        regraft.evaluate(place)
    assert shlex.split(str(caught.value).partition("new to it: ")[2]) == [
        "regraft",
        "evaluate",
        str(place),
        "DATA",
    ]


def test_the_way_on_from_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = (
        tmp_path / "my runs" / "it's [1] and a name that is longer than a terminal is wide, which is often so"
    )
    write_run(place, LABELS, answers_to(LABELS, 0.8, 0))
    show_run(regraft.Run(place))
    shown = capsys.readouterr().out
    use = next(line for line in shown.splitlines() if line.startswith("use it"))
    assert shlex.split(use.removeprefix("use it"))[:3] == ["regraft", "predict", str(place)]
    assert re.search(rf"^report  {re.escape(str(place / 'report.html'))}$", shown, re.MULTILINE)
