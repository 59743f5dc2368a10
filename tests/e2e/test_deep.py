"""17.R7: pictures with more than 8 bits through a whole run: one scale for the set, kept with the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import regraft


def test_floats_that_overshoot_their_scale_are_learnt_and_predicted_alike(
    tmp_path: Path, head_only: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 6), ("test", 12)):
        for label, left in (("left", True), ("right", False)):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for number in range(count):
                values = rng.uniform(0, 0.3, (40, 40)).astype(np.float32)
                values[:, slice(0, 20) if left else slice(20, 40)] += 0.65
                values[0, 0] = 1.02 if number % 2 else 0.99  # half the pictures were black for that one pixel
                values[1, 1] = 7.0 if split == "test" else 0.5  # sealed: the scale is that of train and val
                Image.fromarray(values).save(tmp_path / "data" / split / label / f"{number}.tiff")
    run = regraft.fit(tmp_path / "data", tmp_path / "run", recipe=head_only)
    assert run.metrics["test"]["accuracy"].value > 0.9
    about = json.loads((run.path / "model" / "regraft.json").read_text())["preprocess"]["levels"]
    assert about == {"whole": [0.0, 65535.0], "real": [0.0, 1.0]}
    findings = json.loads((run.path / "run.json").read_text())["data"]["findings"]
    (said,) = [finding["message"] for finding in findings if finding["kind"] == "deep pictures"]
    assert "52 pictures have floating point values: from 0 to 1 is from black to white" in said
    assert "26 of them go beyond" in said
    path = tmp_path / "data" / "train" / "left" / "1.tiff"
    answers = run.model.predict([path, Image.open(path), np.asarray(Image.open(path))])
    assert len({answer.probability for answer in answers}) == 1
