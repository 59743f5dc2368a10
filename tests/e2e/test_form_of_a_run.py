"""The input size and the depth that step 2 chose are those of the model: in predictions, in a loaded model and in an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import regraft
from regraft.artifacts import read_events
from regraft.steps import form, obtain


def test_a_smaller_and_shorter_network_is_that_of_the_model(
    colours: Path, tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obtain, "candidates", lambda _: [tiny])
    monkeypatch.setattr(form, "cuts_of", lambda _: (2,))
    monkeypatch.setattr(form, "smaller_than", lambda *_: 64)
    gains: Any = form._gains

    def best_is_cut(usual: form.Form, looks: form.Looks) -> dict[form.Form, tuple[float, float]]:
        gains(usual, looks)
        chosen = form.Form(64, 2, usual.way)
        looks.path(chosen)
        return {chosen: (1.0, 0.1)}

    monkeypatch.setattr(form, "_gains", best_is_cut)
    recipe = {"freeze": {"strategy": "head"}, "run": {"engine": "torch-float32"}}
    run = regraft.fit(colours, tmp_path / "run", recipe=recipe)
    text = (run.path / "recipe.yaml").read_text()
    assert "  size: 64\n  depth: 2\n" in text
    assert "Depth and input size" in (run.path / "report.html").read_text(encoding="utf-8")
    assert [
        event["depth"] for event in read_events(run.path / "events.jsonl") if event.get("chosen") is True
    ] == [2]
    files = [str(colours / name / "1.png") for name in ("red", "green", "blue")]
    loaded = regraft.load(run.path)
    assert (loaded.backbone.preprocess.size, len(loaded.backbone.stages)) == (64, 2)
    np.testing.assert_allclose(
        np.stack(list(loaded.outputs(files))), np.stack(list(run.model.outputs(files))), atol=1e-6
    )
    exported = regraft.export(run.path, "torch")
    assert exported.proof is not None
