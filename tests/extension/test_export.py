"""A modality and a task that src knows nothing of are exported, and proven."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ordinal import Ordinal
from vectors import Toys, Vectors, draw

import regraft
from regraft import modalities
from regraft.backbones import register_source
from regraft.backbones.sources import registered as sources
from regraft.modalities import register
from regraft.tasks import registered

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'regraft[export]'")


def test_it_is_exported_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modalities, "_known", dict(modalities._known))
    monkeypatch.setattr(sources, "_known", {})
    register(Vectors())
    register_source(Toys())
    data = draw(tmp_path / "data", 40)
    recipe = {"data": {"task": "ordinal"}, "obtain": {"backbone": "toy:tiny"}, "freeze": {"strategy": "head"}}
    with registered("ordinal", Ordinal):
        run = regraft.fit(data, tmp_path / "run", recipe=recipe)
        exported = regraft.export(run)
        model = run.model
    assert exported.proof is not None
    assert exported.proof.same.largest < 1e-4
    assert exported.proof.preparing["largest"] == 0
    session = onnxruntime.InferenceSession(exported.path / "model.onnx")
    assert [one.name for one in session.get_outputs()] == ["log_odds", "features"]
    items = [np.load(path) for path in sorted((data / "low").glob("*.npy"))[:5]]
    given = np.stack([model.backbone.preprocess.host(item) for item in items]).astype(np.float32)
    said, _ = session.run(None, {"values": given})
    expected = np.stack([np.asarray(row) for row in model.outputs(items)])
    assert np.abs(said - expected).max() < 1e-4
    assert not (exported.path / "predict.py").exists()
    assert "prepared" in (exported.path / "README.md").read_text("utf-8")
