"""Fine-tuning the last layers of a text encoder: what is frozen runs once, whatever lengths texts have."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import texts
from regraft.artifacts import Events
from regraft.backbones import Backbone, Suffix, Tapped, make_base, obtain_weights, tensors
from regraft.data.part import Part
from regraft.inference import REFERENCE, FeatureStore
from regraft.modalities import modality_of
from regraft.recipe import Recipe, Section
from regraft.steps.context import Context
from regraft.steps.finetune.packed import packed
from regraft.steps.finetune.prefix import cache_prefix
from regraft.steps.finetune.rules import Tuning
from regraft.steps.finetune.tune import Tuner
from regraft.tasks import Single
from regraft.training import Network, make_head, plan_freeze

LABELS = tuple(texts.SAYINGS)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = texts.tiny_encoder(tmp_path_factory.mktemp("encoder") / "bert", layers=3)
    obtained = obtain_weights(f"path:{folder}", modality="text")
    return make_base(obtained, modality_of("text").preprocess(obtained.config, 62, None, None, True)[0])


def part(each: int, seed: int) -> Part:
    rows = texts.labelled(each, seed)
    return Part(
        items=tuple(text for text, _ in rows),
        ids=tuple(f"{seed:016x}{n:016x}" for n in range(len(rows))),
        labels=np.array([LABELS.index(label) for _, label in rows]),
        weights=np.ones(len(rows)),
    )


def context(notes: list[str]) -> Context:
    settings = {"epochs": 2, "batch_size": 8, "lr": 1e-3, "layer_decay": 0.8, "patience": 4}
    recipe = Recipe.build({"finetune": {**settings, "precision": "float32"}})
    events = Events(None, (lambda event: notes.append(event["text"]) if event["kind"] == "note" else None,))
    return Context(recipe, FeatureStore(None), CPU, events, modality_of("text"))


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_what_follows_a_cut_knows_which_places_are_padding(base: Backbone, cut: int) -> None:
    raws = [base.preprocess.host(text) for text in part(4, 5).items]
    batch = tensors(base.preprocess.collate(raws))
    with torch.no_grad():
        whole, activation = Tapped(base, (), cut).eval()(batch)
        found = Suffix(base, cut)(activation, batch)
        longer = {name: F.pad(values, (0, 9)) for name, values in batch.items()}
        padded = Suffix(base, cut)(F.pad(activation, (0, 0, 0, 9), value=7.0), longer)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded, whole, rtol=1e-4, atol=1e-5)


def test_activations_that_are_kept_give_what_the_whole_network_gives(base: Backbone) -> None:
    notes: list[str] = []
    data, ours, val = part(10, 1), context(notes), part(3, 2)
    found = cache_prefix(base, 2, data, val, None, 3, REFERENCE, ours)
    assert found is not None
    assert any("run once" in note for note in notes)
    head = make_head("linear", base.width, 3).eval()
    whole, short = Network(base, head), Network(base, head, found.suffix)
    batches = list(found.batches(data, 8, ours)(1))
    assert sum(len(labels) for _, labels, _ in batches) == len(data)
    held = list(found.held(8, ours))
    assert sorted(np.concatenate([rows for rows, _ in held]).tolist()) == list(range(len(val)))
    for rows, inputs in held:
        expected = tensors(base.preprocess.collate([base.preprocess.host(val.items[row]) for row in rows]))
        with torch.no_grad():
            torch.testing.assert_close(short(inputs), whole(expected), rtol=1e-2, atol=1e-3)


def test_cached_and_uncached_training_agree(base: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    data, val, head = part(16, 1), part(6, 2), make_head("linear", base.width, 3).eval()
    plan = plan_freeze(base.module, base.stages, "last-1")

    def trained() -> float:
        ours = context([])
        tuning = Tuning.of(ours.recipe.finetune, Section())
        return (
            Tuner(base, plan, tuning, Single(LABELS))
            .fit(copy.deepcopy(head), data, val, ours)
            .trained.val_loss
        )

    cached = trained()
    monkeypatch.setattr("regraft.steps.finetune.work.cache_prefix", lambda *_: None)
    monkeypatch.setattr(base.module.model.config, "hidden_dropout_prob", 0.0)
    assert cached == pytest.approx(trained(), rel=0.05)


def test_texts_are_tokenised_once_however_many_epochs_there_are(
    base: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, ours, asked = part(8, 1), context([]), []
    usual = type(base.preprocess).host
    monkeypatch.setattr(
        type(base.preprocess),
        "host",
        lambda self, item, *more: asked.append(item) or usual(self, item, *more),
    )
    tuning = Tuning.of(ours.recipe.finetune, Section())
    plan = plan_freeze(base.module, base.stages, "full")
    Tuner(base, plan, tuning, Single(LABELS)).fit(make_head("linear", base.width, 3).eval(), data, None, ours)
    assert sorted(asked) == sorted(data.items)


def test_without_room_the_whole_network_is_run(base: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr("regraft.steps.finetune.prefix.MEMORY_SHARE", 0.0)
    assert cache_prefix(base, 2, part(4, 1), part(2, 2), None, 3, REFERENCE, context(notes)) is None
    assert "quarter" in notes[-1]


def test_texts_in_windows_run_through_the_whole_network(base: Backbone) -> None:
    notes: list[str] = []
    windowed = replace(base, preprocess=replace(base.preprocess, size=16, windows=3))  # type: ignore[type-var]
    data = replace(part(4, 1), items=tuple(texts.sentence("weather", n, 40) for n in range(12)))
    assert cache_prefix(windowed, 2, data, part(2, 2), None, 3, REFERENCE, context(notes)) is None
    assert "windows" in notes[-1]


def test_rows_lie_one_behind_the_other_and_too_many_are_not_kept() -> None:
    rows = [np.arange(length) for length in (3, 1, 4)]
    kept = packed(iter(rows))
    assert kept is not None
    assert all(np.array_equal(kept[n], row) for n, row in enumerate(rows))
    assert kept.lengths.tolist() == [3, 1, 4]
    assert packed(iter(rows), 60) is None
    assert packed(iter([])) is None
