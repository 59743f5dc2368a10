"""Fine-tuning on cached activations: what is frozen stays, and the whole network gives what the cut one
learnt.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from tinted import context, data, tuner

from bases import base_of
from regraft.backbones import Backbone, Batch, obtain_weights
from regraft.data.part import Part
from regraft.evaluation import refined_log_losses
from regraft.inference import REFERENCE, TorchEngine
from regraft.modalities.image import Augment
from regraft.steps.finetune import prefix as module
from regraft.steps.finetune.prefix import cache_prefix, views_of
from regraft.training import make_head, plan_freeze


@pytest.fixture(scope="module")
def base() -> Backbone:
    # Images go in as they are
    return base_of(obtain_weights("packaged:efficientnet_lite0"), 64, upscaled=True)


def test_the_whole_network_gives_what_was_learnt_from_activations(base: Backbone, tmp_path: Path) -> None:
    notes: list[str] = []
    ours, train, val = context(tmp_path, notes), data(24, 1), data(10, 2)
    plan = plan_freeze(base.module, base.stages, "last-2")
    before = plan.digest(base.module)
    head = make_head("linear", base.width, 2).eval()
    tuned = tuner(base, plan, ours).fit(head, train, val, ours)
    assert any("run once" in note for note in notes)
    assert plan.digest(tuned.backbone.module) == plan.digest(base.module) == before
    moved = [
        n
        for n, p in tuned.backbone.module.named_parameters()
        if not torch.equal(p, base.module.state_dict()[n])
    ]
    assert moved
    assert set(moved) <= plan.trainable
    features = TorchEngine(tuned.backbone, torch.device("cpu"), 8)
    rows = np.concatenate(
        [features.run({"pixels": np.stack(val.items[i : i + 8])})[0] for i in range(0, 10, 8)]
    )
    with torch.no_grad():
        logits = tuned.head(torch.from_numpy(rows)).numpy()
    assert refined_log_losses(val.labels, logits).mean() == pytest.approx(tuned.trained.val_loss, rel=0.02)


def test_cached_and_uncached_training_agree(
    base: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one plain view an epoch of cached activations is an epoch of the images."""
    train, val, head = data(24, 1), data(10, 2), make_head("linear", base.width, 2).eval()
    plan = plan_freeze(base.module, base.stages, "last-1")
    monkeypatch.setattr(Augment, "__call__", lambda self, image, *_: np.asarray(image))
    ours = context(tmp_path, epochs=1)
    cached = tuner(base, plan, ours).fit(copy.deepcopy(head), train, val, ours)
    monkeypatch.setattr("regraft.steps.finetune.work.cache_prefix", lambda *_: None)
    ours = context(None, epochs=1)
    plain = tuner(base, plan, ours).fit(copy.deepcopy(head), train, val, ours)
    assert cached.trained.val_loss == pytest.approx(plain.trained.val_loss, rel=0.02)


def test_views_differ_and_are_computed_once(base: Backbone, tmp_path: Path) -> None:
    train, val, ours = data(12, 1), data(4, 2), context(tmp_path)
    augment = Augment(0.5, True, 0.2)
    found = cache_prefix(copy.deepcopy(base), 6, train, val, augment, 3, REFERENCE, ours)
    assert found is not None
    assert len(found.views) == 3
    assert not np.array_equal(found.views[1], found.views[2])
    shards = len(list(tmp_path.rglob("*.safetensors")))
    turned = Part(
        items=train.items[::-1], ids=train.ids[::-1], labels=train.labels[::-1], weights=train.weights
    )
    again = cache_prefix(copy.deepcopy(base), 6, turned, val, augment, 3, REFERENCE, ours)
    assert again is not None
    assert np.array_equal(again.views[2], found.views[2][::-1])
    assert len(list(tmp_path.rglob("*.safetensors"))) == shards


def test_without_room_the_whole_network_is_run(
    base: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(module, "MEMORY_SHARE", 0.0)
    assert (
        cache_prefix(
            base, 6, data(12, 1), data(4, 2), Augment(0.5, True, 0.2), 3, REFERENCE, context(tmp_path, notes)
        )
        is None
    )
    assert "quarter" in notes[0]
    assert (
        cache_prefix(
            base, 0, data(12, 1), data(4, 2), Augment(0.5, True, 0.2), 3, REFERENCE, context(tmp_path)
        )
        is None
    )


def test_an_engine_whose_activations_differ_is_not_used(
    base: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(TorchEngine):
        def run(self, batch: Batch) -> list[np.ndarray]:
            return [values[:, ::-1] for values in super().run(batch)]

    usual = module.makers
    cpu = torch.device("cpu")
    monkeypatch.setattr(
        module,
        "makers",
        lambda *given, **named: {
            **usual(*given, **named),
            "torch-bfloat16": lambda: Wrong(base, cpu, 8, cut=6),
        },
    )
    engine, _ = module._engine(base, 6, data(8, 1), "torch-bfloat16", context(tmp_path))
    assert engine is not None
    assert engine.name == "torch-float32"


def test_the_number_of_views_follows_the_data() -> None:
    assert [views_of(n, 12) for n in (100, 1_001, 20_000)] == [8, 4, 2]
    assert views_of(100, 1) == 1
