"""A folder in the layout of the transformers library is a backbone like any other; tiny random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import regraft
from bases import base_of
from regraft.backbones import obtain_weights

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install regraft[transformers]"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
    )
    place = tmp_path / "vit"
    transformers.ViTModel(config).save_pretrained(place)
    about = {
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.4, 0.3],
        "resample": 3,
        "size": {"shortest_edge": 40},
    }
    (place / "preprocessor_config.json").write_text(json.dumps(about))
    return place


def test_stages_features_and_preprocessing(folder: Path) -> None:
    obtained = obtain_weights(f"path:{folder}")
    base = base_of(obtained, 32)
    # The embeddings and three layers, what closes the network with the last of them
    assert len(base.stages) == 4
    assert sorted(n for s in base.stages for n in s.parameters) == sorted(
        n for n, _ in base.module.named_parameters()
    )
    assert (base.preprocess.mean, base.preprocess.interpolation, base.preprocess.crop) == (
        (0.1, 0.2, 0.3),
        "bicubic",
        0.8,
    )
    features = regraft.extract(base, [np.full((40, 40, 3), v, np.uint8) for v in (0, 255)])
    assert features.shape == (2, 16)
    assert not np.allclose(features[0], features[1])


def test_a_run_on_it_predicts_after_loading(folder: Path, colours: Path, tmp_path: Path) -> None:
    recipe = {"obtain": {"backbone": f"path:{folder}"}, "finetune": {"epochs": 1, "folds": 0, "refit": False}}
    run = regraft.fit(colours, tmp_path / "run", recipe=recipe)
    files = sorted(map(str, colours.glob("*/*.png")))[:3]
    rows = {row["source"]: row for row in pq.read_table(run.path / "predictions.parquet").to_pylist()}
    assert run.state["state"] == "finished"
    found = run.model.predict(files)
    assert all(p.error is None for p in found)
    # Val rows are of the model before the refit
    source = next(name for name, row in rows.items() if row["split"] == "test")
    again = run.model.predict(str(colours / source))[0]
    assert again.probability == pytest.approx(rows[source][f"probability:{again.label}"], abs=1e-5)
