"""`--folds`: the whole walk cross-validated, and the model of all that comes after."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import regraft
from regraft import api
from regraft.artifacts import RunFolder, read_json
from regraft.console import Screen
from regraft.errors import UsageError
from regraft.experiments import going
from regraft.recipe import Recipe
from regraft.run.listed import list_runs
from regraft.run.session import Session
from regraft.steps.estimate import run_seconds

HEAD = {"base": {"size": 32}, "freeze": {"strategy": "head"}, "run": {"engine": "torch-float32"}}
FOLDS = {**HEAD, "data": {"folds": 2}}


@pytest.fixture
def table(colours: Path, tmp_path: Path) -> Path:
    """36 of the pictures in a table, in groups of three, one listed twice, and one under two labels."""
    lines = ["path,label,group"]
    for picture in sorted(colours.glob("*/*.png")):
        if int(picture.stem) < 12:
            lines.append(f"{picture},{picture.parent.name},{picture.parent.name}-{int(picture.stem) // 3}")
    lines += [lines[1], lines[2].replace(",blue,", ",red,")]
    place = tmp_path / "t.csv"
    place.write_text("\n".join(lines))
    return place


def test_a_run_of_folds_is_stopped_goes_on_and_says_what_it_is(table: Path, tmp_path: Path) -> None:
    """17.5: a path that is listed twice, a stop in the second fold, the words of the report, and the verbs
    around it.
    """
    out, heard, screen = tmp_path / "run", [], Screen(quiet=True)

    def stop(event: dict[str, Any]) -> None:
        screen(event)
        heard.append(event)
        if event["kind"] == "step" and (event["step"], event.get("fold")) == ("evaluate", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        regraft.fit(table, out, recipe=FOLDS, listeners=[stop])
    assert [event["fold"] for event in heard if event["kind"] == "begin"] == [1, 2]
    assert {event["out"] for event in heard if event["kind"] == "begin"} == {str(out)}
    assert read_json(out / "run.json")["state"] == "interrupted"
    assert screen.how_to_go_on() == f"Go on with: regraft fit --resume --out {out}", (
        "no fold's model is handed over"
    )
    first = (out / "folds" / "1" / "run.json").stat().st_mtime_ns
    run = regraft.fit(out=out, resume=True)
    assert (out / "folds" / "1" / "run.json").stat().st_mtime_ns == first
    assert run.metrics["cv"]["accuracy"].n == 38, "every row of the table has its answer"
    assert run.metrics["groups"] == 12
    assert run.state["data"]["no_test"] is False
    assert "no test set was asked for" not in (out / "report.html").read_text(encoding="utf-8").lower()
    card = (out / "model" / "README.md").read_text(encoding="utf-8")
    assert "models made like this one" in card
    assert "Accuracy on examples held out in turn (cross-validation)" in card
    assert "by a model that had not been trained on it" in (out / "report.html").read_text(encoding="utf-8")
    (listed,) = list_runs(out)
    assert listed.headline.startswith("cross-validated accuracy")
    with pytest.raises(UsageError, match="no test"):
        regraft.compare(out, out / "folds" / "1")
    with pytest.raises(UsageError, match="has no test set"):
        regraft.evaluate(out)
    with pytest.raises(UsageError, match="holds a run already"):
        regraft.fit(table, out, recipe=FOLDS)


def test_a_fault_in_a_fold_names_the_whole_run(tmp_path: Path) -> None:
    fold = tmp_path / "run" / "folds" / "2"
    fold.mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text("{}")
    assert RunFolder(fold).whole == tmp_path / "run"
    assert RunFolder(tmp_path / "run").whole == tmp_path / "run"
    (tmp_path / "run" / "run.json").unlink()
    assert RunFolder(fold).whole == fold, "a folder that only has such a name"


def test_the_budget_leaves_every_walk_its_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """17.5: with nine folds or more the model that is handed over began out of time."""
    from regraft.steps.context import Context

    clock, given = [0.0], []

    def walk(folder: Any, some: Any, session: Session, *_: Any) -> Any:
        given.append(session.recipe.run.budget_seconds)
        clock[0] += 50.0 if len(given) == 1 else given[-1]  # the first takes half of its time
        return SimpleNamespace(path=folder.path)

    def through(
        examples: Any, folds: int, seed: int, val_share: float, walk: Callable[[int, Any], Path]
    ) -> dict[str, Any]:
        for number in range(1, folds + 1):
            walk(number, unsaved)
        return {}

    unsaved = SimpleNamespace(save=lambda _: None)
    monkeypatch.setattr(going, "Seen", SimpleNamespace(of=lambda *_: unsaved))

    monkeypatch.setattr("regraft.experiments.folds.cross_validated", through)
    monkeypatch.setattr(going, "go", walk)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    recipe = Recipe.build({"data": {"folds": 9}, "run": {"budget_seconds": 1000.0}})
    going._folds(RunFolder(tmp_path), None, Session(recipe, None, (), 0.0), {"name": "x"})  # type: ignore[arg-type]
    assert given[0] == pytest.approx(100)
    assert given[1:] == pytest.approx([950 / 9] * 8), "what one leaves over, the others share"
    last = Context(recipe, None, None, None, None, started=0.0, share=1 / 10)  # type: ignore[arg-type]
    assert last.seconds_left == pytest.approx(950 / 9)
    assert not last.out_of_time()
    clock[0] = 991.0
    assert last.out_of_time()


def test_a_dry_run_counts_every_walk(colours: Path) -> None:
    counts, single = (
        {"train": 800, "val": 200, "test": 0},
        {"finetune": {"epochs": 4, "folds": 0, "refit": False}},
    )
    forward = 1.2 * 0.01 * 1000

    def training(**data: Any) -> float:
        return run_seconds(Recipe.build(single, {"data": data}), counts, 224, 0.01, 0.05) - forward

    assert training(folds=5) == pytest.approx(5 * training()), "five trainings on four fifths, and one on all"
    plans = [api.plan(colours, recipe={**HEAD, "data": {"folds": folds}}) for folds in (0, 5)]
    assert [plan["walks"] for plan in plans] == [1, 6]


def test_what_folds_cannot_be_together_with(colours: Path, tmp_path: Path) -> None:
    run = regraft.fit(colours, tmp_path / "run", recipe=HEAD)
    for asked in ({"folds": 3}, {"test_share": 0}):
        with pytest.raises(UsageError, match="--splits would keep it"):
            regraft.fit(colours, tmp_path / "other", recipe={**HEAD, "data": asked}, splits=run.path)
    with pytest.raises(UsageError, match=r"leave out data\.folds"):
        regraft.explore(colours, tmp_path / "other", recipe={"data": {"folds": 3}})
    assert not (tmp_path / "other").exists()
    assert json.loads((run.path / "run.json").read_text())["data"]["no_test"] is False
