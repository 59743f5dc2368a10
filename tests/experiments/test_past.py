"""A run on top of an earlier one: what that has seen is never test, and proves nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import regraft
from regraft.errors import DataError

COLOURS = ("red", "green", "blue")
QUICK: dict[str, Any] = {
    "base": {"size": 32},
    "freeze": {"strategy": "head"},
    "run": {"engine": "torch-float32"},
}


def colours(root: Path, start: int, count: int) -> None:
    rng = np.random.default_rng(start)
    for channel, name in enumerate(COLOURS):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(start, start + count):
            picture = rng.integers(0, 100, (32, 32, 3))
            picture[:, :, channel] += 120
            Image.fromarray(picture.astype(np.uint8)).save(root / name / f"{number}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> Path:
    """A folder with `data`, a `first` run on it, and `more`: half of it saved anew as BMP, and as much that
    is new.
    """
    place = tmp_path_factory.mktemp("past")
    colours(place / "data", 0, 20)
    colours(place / "more", 100, 10)
    for file in sorted((place / "data").glob("*/1?.png")):
        Image.open(file).save(place / "more" / file.parent.name / f"{file.stem}.bmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGRAFT_CACHE", str(place / "cache"))
        regraft.fit(place / "data", place / "first", recipe={**QUICK, "obtain": {"backbone": tiny}})
    return place


def on_top(place: str, **more: Any) -> dict[str, Any]:
    return {**QUICK, "obtain": {"backbone": place}, **more}


@pytest.mark.parametrize("what", ["data", "more"])  # known by content; by pixels alone
def test_test_examples_that_the_backbone_has_seen_are_an_error(made: Path, what: str, tmp_path: Path) -> None:
    recipe, data = on_top(f"run:{made / 'first'}", data={"seed": 3}), made / what
    for act in (
        lambda: regraft.fit(data, tmp_path / "run", recipe=recipe),
        lambda: regraft.api.plan(data, recipe=recipe),
    ):
        with pytest.raises(DataError) as raised:
            act()
        assert "test examples would flatter the model" in str(raised.value)
        assert raised.value.faults[0].endswith(f"(seen by {made / 'first'})")
        assert f"--splits {made / 'first'}" in raised.value.advice
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="--folds tests each example once"):
        regraft.fit(made / what, tmp_path / "run", recipe=on_top(f"run:{made / 'first'}", data={"folds": 3}))


@pytest.mark.parametrize("what", ["data", "more"])
def test_with_the_earlier_split_it_works_and_nothing_is_promised(
    made: Path, what: str, tmp_path: Path
) -> None:
    recipe, first = on_top(f"run:{made / 'first'}", data={"seed": 3}), made / "first"
    run = regraft.fit(made / what, tmp_path / "run", recipe=recipe, splits=first, cache=made / "cache")
    past = run.state["data"]["seen_by_ancestors"]
    assert past["runs"] == [str(first)]
    assert past["train"] > 0
    if what == "data":
        counts = regraft.api.Run(first).state["data"]["counts"]
        assert (past["train"], past["val"]) == (counts["train"], counts["val"])
    assert "seen by the backbone" in [finding["kind"] for finding in run.state["data"]["findings"]]
    assert run.metrics["thresholds"]
    for offer in run.metrics["thresholds"]:
        assert offer["threshold"] is None
        assert "were seen by a run that the backbone comes from" in offer["why"]
    assert run.model.thresholds == {}
    assert "are no evidence and promise nothing" in (run.path / "report.html").read_text(encoding="utf-8")


def test_a_model_that_was_copied_away_knows_its_past(made: Path, tmp_path: Path) -> None:
    """Also of the run before it, which nothing but hashes is left of."""
    grand = shutil.copytree(made / "first", tmp_path / "grand")
    second = regraft.fit(
        made / "more", tmp_path / "second", recipe=on_top(f"run:{grand}"), splits=grand, cache=made / "cache"
    )
    shutil.rmtree(grand)
    second.model.save(tmp_path / "copied")
    with pytest.raises(DataError, match=rf"path:{tmp_path / 'copied'} learnt from"):
        regraft.fit(
            made / "data", tmp_path / "run", recipe=on_top(f"path:{tmp_path / 'copied'}", data={"seed": 3})
        )
    found = regraft.rank(
        made / "data", [f"run:{second.path}", "packaged:efficientnet_lite0"], recipe={"base": {"size": 32}}
    )
    assert "it was made with" in found.left_out[f"run:{second.path}"]
    (tmp_path / "copied" / "seen.parquet").unlink()
    run = regraft.fit(
        made / "data", tmp_path / "run", recipe=on_top(f"path:{tmp_path / 'copied'}"), cache=made / "cache"
    )
    assert "is not known" in run.state["data"]["seen_by_ancestors"]["unknown"][0]
    assert all(offer["threshold"] is None for offer in run.metrics["thresholds"])


def test_evaluating_on_pictures_saved_anew_tells_them_from_new_ones(made: Path, tmp_path: Path) -> None:
    first = shutil.copytree(made / "first", tmp_path / "first")
    found = regraft.evaluate(first, made / "more")
    examples = {row["source"]: row["split"] for row in pq.read_table(first / "examples.parquet").to_pylist()}
    again = [examples[f"{file.parent.name}/{file.stem}.png"] for file in (made / "more").glob("*/*.bmp")]
    assert found.left_out == {"in train": again.count("train"), "in val": again.count("val"), "unreadable": 0}
    assert found.examples == 60 - again.count("train") - again.count("val")
    assert "in other bytes, known by what they show" in " ".join(found.said)
    assert f"{again.count('test')} of the examples are in the run's own test set" in " ".join(found.said)


def test_near_duplicates_are_told_and_scored_apart(made: Path, tmp_path: Path) -> None:
    """Of pictures of the run with a little noise, the score that is left without them is given too."""
    first = shutil.copytree(made / "first", tmp_path / "first")
    colours(tmp_path / "new", 300, 6)
    rng = np.random.default_rng(0)
    rows = pq.read_table(first / "examples.parquet").to_pylist()
    for number, row in enumerate([row for row in rows if row["split"] == "train"][:4]):
        pixels = np.asarray(Image.open(made / "data" / row["source"])).astype(int) + rng.integers(
            -3, 4, (32, 32, 3)
        )
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
            tmp_path / "new" / row["label"] / f"near{number}.png"
        )
    found = regraft.evaluate(first, tmp_path / "new")
    assert found.examples == 22
    assert found.without_near_duplicates["left_out"] == 4
    assert found.without_near_duplicates["metrics"]["accuracy"]["n"] == 18
    assert (
        "4 examples have a near-duplicate among those the run was made with; without them accuracy is"
        in " ".join(found.said)
    )
    assert (
        json.loads(Path(found.file).read_text(encoding="utf-8"))["without_near_duplicates"]["left_out"] == 4
    )
