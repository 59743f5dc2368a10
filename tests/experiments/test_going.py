"""What --resume does with a run that is finished, and with data that were moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import regraft
from regraft.artifacts import read_events
from regraft.errors import UsageError

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, head_only: dict[str, Any]) -> Path:
    """A folder with `data` and a finished `run` on it."""
    place, rng = tmp_path_factory.mktemp("going"), np.random.default_rng(0)
    for channel, name in enumerate(COLOURS):
        (place / "data" / name).mkdir(parents=True)
        for number in range(20):
            picture = rng.integers(0, 100, (32, 32, 3))
            picture[:, :, channel] += 120
            Image.fromarray(picture.astype(np.uint8)).save(place / "data" / name / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGRAFT_CACHE", str(place / "cache"))
        regraft.fit(place / "data", place / "run", recipe=head_only)
    return place


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be written to."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def test_a_finished_run_is_completed_and_nothing_is_trained_or_read_anew(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a finished run is not walked again")

    monkeypatch.setattr("regraft.run.walk.walk", refuse)
    model = (run / "model" / "model.safetensors").read_bytes()
    for name in ("report.html", "gallery.json", "model/README.md"):
        (run / name).unlink()
    (run / "checkpoint.safetensors").touch()  # as of a run killed after its last word
    assert regraft.fit(out=run, resume=True).state["state"] == "finished"
    assert "Most uncertain" in (run / "report.html").read_text(encoding="utf-8")
    assert (run / "model" / "README.md").read_text(encoding="utf-8").startswith("---")
    assert [event["kind"] for event in read_events(run / "events.jsonl")].count("unseal") == 1
    assert (run / "model" / "model.safetensors").read_bytes() == model
    assert not (run / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    "name", ["metrics.json", "predictions.parquet", "examples.parquet", "model/model.safetensors"]
)
def test_what_only_training_can_make_is_an_error_that_names_it(name: str, run: Path) -> None:
    (run / name).unlink()
    before = (run / "events.jsonl").read_bytes()
    with pytest.raises(UsageError, match=f"is finished, and {name} is gone"):
        regraft.fit(out=run, resume=True)
    assert (run / "events.jsonl").read_bytes() == before


def test_settings_cannot_be_changed_on_a_resume(run: Path) -> None:
    with pytest.raises(UsageError, match="settings"):
        regraft.fit(out=run, resume=True, recipe={"finetune": {"epochs": 3}})
    with pytest.raises(UsageError, match="--out RUN"):
        regraft.fit(resume=True)


def test_an_offline_run_is_not_gone_on_with_at_an_address_of_the_network(run: Path) -> None:
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    (run / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "run": {**recipe["run"], "offline": True}}))
    with pytest.raises(UsageError, match="--offline: s3://bucket/photos is reached by a network"):
        regraft.fit("s3://bucket/photos", out=run, resume=True)


def test_moved_data_are_found_by_their_content(made: Path, run: Path, tmp_path: Path) -> None:
    state = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**state, "state": "running"}), encoding="utf-8")
    shutil.copytree(made / "data", tmp_path / "elsewhere", copy_function=shutil.copy)  # other times, too
    gone = made / "data-away"
    (made / "data").rename(gone)
    try:
        with pytest.raises(UsageError, match=r"60 files changed or went.*--data FOLDER"):
            regraft.fit(out=run, resume=True)
        (tmp_path / "elsewhere" / "red" / "0.png").write_bytes(b"another")
        with pytest.raises(UsageError, match=r"1 file changed or went .*red/0.png"):
            regraft.fit(out=run, resume=True, data=tmp_path / "elsewhere")
        shutil.copy(gone / "red" / "0.png", tmp_path / "elsewhere" / "red" / "0.png")
        found = regraft.fit(out=run, resume=True, data=tmp_path / "elsewhere", cache=made / "cache")
    finally:
        gone.rename(made / "data")
    assert found.state["state"] == "finished"
    assert found.state["data"]["source"] == str(tmp_path / "elsewhere")
    assert regraft.evaluate(run).said[0].endswith("predictions are those of the run.")
