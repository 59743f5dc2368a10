"""What a run promises in metrics.json is what its model does, however the run ends.

Fine-tuning is played by a stand-in that knows every label, so the fine-tuned model wins without being
trained.
"""

from __future__ import annotations

import copy
import functools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import regraft
from regraft.artifacts import RunFolder, read_json
from regraft.backbones import split
from regraft.evaluation import choose_thresholds, softmax
from regraft.inference import TorchEngine
from regraft.model import Model
from regraft.recipe import read_recipe
from regraft.steps.finetune.tune import Finetuned, Tuner
from regraft.training import Trained

CLASSES = ("ant", "bee", "cat")
BASE: dict[str, Any] = {"base": {"size": 32}, "run": {"engine": "torch-float32"}}
FINETUNED = {**BASE, "finetune": {"epochs": 2, "folds": 0, "refit": False}, "augment": {"mirror": False}}


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 pictures of each of three classes, whose colour tells little of their class."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "noise"
    for channel, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(22):
            colour = rng.normal(100 + 30 * np.eye(3)[channel], 30)
            picture = (rng.integers(0, 60, (32, 32, 3)) + colour).clip(0, 255).astype(np.uint8)
            Image.fromarray(picture).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def trainings(noise: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How trainings end, one after the other ("length" when the list is used up), by a stand-in that knows
    every label.
    """
    endings: list[str] = []
    known: dict[str, Any] = {}
    items = sorted(map(str, noise.glob("*/*.png")))

    def stand_in(self, head, data, val, context, checkpoint=None):  # type: ignore[no-untyped-def]
        ended, backbone = endings.pop(0) if endings else "length", self.backbone
        tuning = replace(self.tuning, precision="float32", interpolation=1.0)
        if not known:
            batch = backbone.preprocess.collate([backbone.preprocess.host(item) for item in items])
            values = np.concatenate(
                [TorchEngine(backbone, torch.device("cpu"), 22).run(part)[0] for part in split(batch, 22)]
            )
            known["head"] = regraft.fit_head(
                values, [CLASSES.index(Path(item).parent.name) for item in items], l2=1e-3
            )
        made = Trained({}, 1, 1, 0.1, ended)
        logits = np.eye(3)[val.labels].astype(np.float32) if val is not None else None
        tuned, head = copy.deepcopy(backbone), copy.deepcopy(known["head"])
        return Finetuned(tuned, head, made, 10, logits, tuning, f"{ended}", "by a stand-in")

    monkeypatch.setattr(Tuner, "fit", stand_in)
    wanted = functools.partial(choose_thresholds, wanted=(0.2, 0.3, 0.999))  # so few examples promise no more
    monkeypatch.setattr("regraft.tasks.temperature.choose_thresholds", wanted)
    return endings


def check(place: Path, chosen: str, written: bool = True) -> dict[str, Any]:
    """Compare what metrics.json and predictions.parquet (`written`) say with what the loaded model has and
    does.
    """
    state, metrics, model = (
        read_json(place / "run.json"),
        read_json(place / "metrics.json"),
        Model.load(place),
    )
    assert state["chosen"] == chosen
    assert model.classes == CLASSES
    assert metrics["calibration"]["temperature"] == model.temperature != 1
    offered = {
        offer["wanted"]: offer["threshold"]
        for offer in metrics["thresholds"]
        if offer["threshold"] is not None
    }
    assert offered == model.thresholds
    assert metrics["thresholds"]
    assert all(offer["chosen_on"] == metrics["calibration"]["fitted_on"] for offer in metrics["thresholds"])
    assert "How sure it is" in (place / "model" / "README.md").read_text(encoding="utf-8")
    if not written or not (place / "predictions.parquet").is_file():
        return metrics
    rows = [row for row in pq.read_table(place / "predictions.parquet").to_pylist() if row["split"] == "test"]
    root = Path(state["data"]["source"])
    for row, found in zip(rows, model.predict([root / row["source"] for row in rows]), strict=True):
        assert found.label == row["predicted"]
        assert found.probabilities == pytest.approx(
            {name: row[f"probability:{name}"] for name in CLASSES}, abs=1e-5
        )
    logits = np.array([[row[f"logit:{name}"] for name in CLASSES] for row in rows])
    if len(rows):
        shares = [[row[f"probability:{name}"] for name in CLASSES] for row in rows]
        np.testing.assert_allclose(softmax(logits, model.temperature), shares, atol=1e-5)
    return metrics


def recipe(**sections: dict[str, Any]) -> dict[str, Any]:
    found = {name: dict(values) for name, values in FINETUNED.items()}
    for name, values in sections.items():
        found.setdefault(name, {}).update(values)
    return found


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        (recipe(freeze={"strategy": "head"}), "head only"),
        (recipe(), "fine-tuned"),
        (recipe(finetune={"refit": True}), "fine-tuned"),
        (recipe(finetune={"folds": 2}), "fine-tuned"),
        (recipe(data={"test_share": 0}), "fine-tuned"),
    ],
    ids=["head only", "fine-tuned", "refitted", "judged by folds", "no test"],
)
def test_a_run_that_ends_well(
    settings: dict[str, Any], chosen: str, noise: Path, tmp_path: Path, trainings: list[str], tiny: str
) -> None:
    regraft.fit(noise, tmp_path / "run", recipe={**settings, "obtain": {"backbone": tiny}})
    metrics = check(tmp_path / "run", chosen)
    tested = [offer["test"] for offer in metrics["thresholds"] if offer["threshold"] is not None]
    assert all(found is None for found in tested) if "data" in settings else tested and None not in tested


def test_a_run_of_folds(noise: Path, tmp_path: Path, trainings: list[str], tiny: str) -> None:
    """Of each fold, and of the model that is made of all."""
    regraft.fit(noise, tmp_path / "run", recipe=recipe(obtain={"backbone": tiny}, data={"folds": 2}))
    assert "cv" in check(tmp_path / "run", "fine-tuned")
    for number in (1, 2):
        check(tmp_path / "run" / "folds" / str(number), "fine-tuned")


@pytest.mark.parametrize(
    "endings", [["interrupted"], ["length", "interrupted"]], ids=["fine-tuning", "refit"]
)
def test_a_run_that_the_user_stops_and_its_resume(
    endings: list[str], noise: Path, tmp_path: Path, trainings: list[str], tiny: str
) -> None:
    trainings += endings
    with pytest.raises(KeyboardInterrupt):
        regraft.fit(
            noise, tmp_path / "run", recipe=recipe(obtain={"backbone": tiny}, finetune={"refit": True})
        )
    assert "test" not in check(tmp_path / "run", "fine-tuned")
    regraft.fit(out=tmp_path / "run", resume=True)
    assert "test" in check(tmp_path / "run", "fine-tuned")


def test_a_run_whose_refit_the_budget_cuts(
    noise: Path, tmp_path: Path, trainings: list[str], tiny: str
) -> None:
    trainings += ["budget", "budget"]
    settings = recipe(obtain={"backbone": tiny}, finetune={"refit": True}, run={"budget_seconds": 600})
    regraft.fit(noise, tmp_path / "run", recipe=settings)
    check(tmp_path / "run", "fine-tuned")
    assert read_recipe(tmp_path / "run" / "recipe.yaml")["finetune"]["refit"] is False


def test_strategies_explored_and_then_a_run_to_the_end(
    noise: Path, tmp_path: Path, trainings: list[str], tiny: str
) -> None:
    regraft.explore(noise, tmp_path / "run", recipe=recipe(obtain={"backbone": tiny}))
    assert not (tmp_path / "run" / "model").exists()
    regraft.fit(out=tmp_path / "run", resume=True)
    assert "test" in check(tmp_path / "run", "fine-tuned")


@pytest.fixture(scope="module")
def decided(noise: Path, tmp_path_factory: pytest.TempPathFactory, tiny: str) -> tuple[Path, Path]:
    """A run stopped where step 7 begins, with head only as its winner, and the cache of its features."""
    place = tmp_path_factory.mktemp("decided")

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == "evaluate":
            raise KeyboardInterrupt

    settings = recipe(obtain={"backbone": tiny}, freeze={"strategy": "head"})
    with pytest.raises(KeyboardInterrupt):
        regraft.fit(noise, place / "run", recipe=settings, cache=place / "cache", listeners=[stop])
    return place / "run", place / "cache"


def inject(moment: str, error: BaseException, patch: pytest.MonkeyPatch) -> None:
    """Let step 7 meet an error at this moment, once."""
    from regraft.artifacts import write_json, write_text
    from regraft.data import Examples
    from regraft.run import record, sitting
    from regraft.tasks import single

    def after(call: Any) -> Any:
        def both(*given: Any, **named: Any) -> Any:
            call(*given, **named)
            raise error

        return both

    def instead(*_: Any, **__: Any) -> Any:
        raise error

    def when(write: Any, name: str, told: Any) -> Any:
        def checked(place: Path, value: Any) -> None:
            if place.name == name and told(value):
                raise error
            write(place, value)

        return checked

    places: dict[str, tuple[Any, str, Any]] = {
        "before the seal is broken": (Examples, "unseal", instead),
        "after the seal was broken": (Examples, "unseal", after(Examples.unseal)),
        "predicting test": (Model, "outputs", _failing_outputs(error)),
        "baselines": (single, "knn_logits", instead),
        "metrics": (sitting, "evaluate_test", instead),
        "predictions.parquet": (record, "write_predictions", instead),
        "metrics.json": (
            record,
            "write_json",
            when(write_json, "metrics.json", lambda value: "test" in value),
        ),
        "model card": (record, "write_text", when(write_text, "README.md", lambda _: True)),
        "run.json": (
            record,
            "write_json",
            when(write_json, "run.json", lambda value: value["state"] == "finished"),
        ),
        "gallery": (record, "write_gallery", instead),
        "report": (record, "write_report", instead),
    }
    patch.setattr(*places[moment])


def _failing_outputs(error: BaseException) -> Any:
    """`Model.outputs` that goes wrong after five of the test examples."""
    outputs = Model.outputs

    def failing(self: Model, items: Any, *given: Any) -> Any:
        for number, row in enumerate(outputs(self, items, *given)):
            if number == 5 and len(items) == 12:
                raise error
            yield row

    return failing


FULL = OSError(28, "No space left on device")
OPTIONAL = {"baselines": "nearest neighbours", "gallery": RunFolder.PICTURES, "report": RunFolder.REPORT}
READING = (
    "before the seal is broken",
    "after the seal was broken",
    "predicting test",
    "baselines",
    "metrics",
)
WRITING = ("predictions.parquet", "metrics.json", "model card", "run.json", "gallery", "report")
CASES = [
    (moment, error) for moment in READING for error in (KeyboardInterrupt(), RuntimeError("out of memory"))
]
CASES += [(moment, error) for moment in WRITING for error in (KeyboardInterrupt(), FULL)]


@pytest.mark.parametrize(
    ("moment", "error"), CASES, ids=[f"{moment}-{type(error).__name__}" for moment, error in CASES]
)
def test_no_moment_of_step_7_loses_the_model(
    moment: str,
    error: BaseException,
    decided: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a run can do without is left out and said; anything else ends it with a usable model, and a
    resume completes it.
    """
    out, heard = tmp_path / "run", []
    shutil.copytree(decided[0], out)
    if moment not in OPTIONAL:  # they take most of the time
        monkeypatch.setattr("regraft.run.record.write_gallery", lambda *_: out)
        monkeypatch.setattr(
            "regraft.run.record.write_report", lambda place: (place / "report.html").touch() or place
        )
    with monkeypatch.context() as patch:
        inject(moment, error, patch)
        if moment in OPTIONAL and isinstance(error, Exception):
            regraft.fit(out=out, resume=True, cache=decided[1], listeners=[heard.append])
            state = read_json(out / "run.json")
            assert state["state"] == "finished"
        else:
            with pytest.raises(type(error)):
                regraft.fit(out=out, resume=True, cache=decided[1], listeners=[heard.append])
            state, finished = read_json(out / "run.json"), moment in ("gallery", "report")
            ended = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            assert state["state"] == ("finished" if finished else ended)
    missing = (
        OPTIONAL[moment]
        if state["state"] == "finished" and isinstance(error, Exception)
        else "result on test"
    )
    missing = (
        RunFolder.REPORT if moment in ("gallery", "report") and not isinstance(error, Exception) else missing
    )
    assert missing in state["missing"]
    assert any(missing in event["text"] for event in heard if event["kind"] == "note")
    check(out, "head only", written=state["state"] == "finished")
    assert (out / "report.html").is_file() or missing == RunFolder.REPORT
    before = len(state["readings"])
    assert before == (0 if moment == "before the seal is broken" else 1)
    run = regraft.fit(out=out, resume=True, cache=decided[1])
    assert run.state["state"] == "finished"
    assert run.state["missing"].keys() == (
        {missing} if moment == "baselines" and state["state"] == "finished" else set()
    )
    assert (out / "report.html").is_file()
    assert len(run.state["readings"]) == before + (state["state"] != "finished")
    assert "test" in check(out, "head only")


def test_a_fault_before_the_model_is_whole_leaves_the_model_that_was_there(
    decided: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second save that meets a full disk: the first model is still there, bit by bit, and nothing else."""
    from safetensors import SafetensorError

    out = tmp_path / "run"
    shutil.copytree(decided[0], out)
    before = {file.name: file.read_bytes() for file in (out / "model").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(
            "regraft.model.to_json",
            lambda _: (_ for _ in ()).throw(SafetensorError("I/O error: No space left")),
        )
        with pytest.raises(SafetensorError):
            Model.load(out).save(out / "model")
    assert {file.name: file.read_bytes() for file in (out / "model").iterdir()} == before


def test_a_budget_that_is_over_leaves_out_baselines_and_predicts_test_in_full(
    decided: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """17.8: the nearest neighbours ran out of budget, and the run was lost with the model that it had."""
    out, heard = tmp_path / "run", []
    shutil.copytree(decided[0], out)
    monkeypatch.setattr("regraft.run.record.write_gallery", lambda *_: None)
    text = (out / "recipe.yaml").read_text().replace("budget_seconds: null", "budget_seconds: 3600.0")
    (out / "recipe.yaml").write_text(text.replace("feature_batch: 32", "feature_batch: 4"))

    def late(event: dict[str, Any]) -> None:
        heard.append(event)
        if event["kind"] == "unseal":
            monkeypatch.setattr("regraft.steps.context.Context.seconds_left", -1.0)

    run = regraft.fit(out=out, resume=True, cache=decided[1], listeners=[late])
    assert run.state["missing"]["nearest neighbours"] == "no time was left for it"
    assert set(run.metrics["baselines"]) == {"majority class"}
    assert run.metrics["test"]["accuracy"].n == 12
    assert any("predicted in full" in event["text"] for event in heard if event["kind"] == "note")
    check(out, "head only")
    for surface in ("report.html", "model/README.md"):
        assert "nearest neighbours (no time was left for it)" in (out / surface).read_text(encoding="utf-8")
