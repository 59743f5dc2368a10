"""Every kind of text encoder that is said to be taken: tiny ones of random weights, against transformers'."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import regraft
import texts
from regraft.backbones import Backbone, Tapped, make_base, obtain_weights, truncated
from regraft.backbones.encoders import is_normed, pooling_of
from regraft.errors import BackboneError
from regraft.exporting import onnx
from regraft.inference import OpenVinoEngine, TorchEngine
from regraft.modalities import modality_of

transformers = pytest.importorskip("transformers", reason="needs the library: pip install 'regraft[text]'")
SIZES = {
    "vocab_size": len(texts.KNOWN),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
}
T5 = {"vocab_size": len(texts.KNOWN), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
NEAR = {"global_attn_every_n_layers": 2, "local_attention": 8}
NO_SIGNS = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 2)
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
DISTIL = {"vocab_size": len(texts.KNOWN), "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", SIZES),
    "roberta": ("Roberta", {**SIZES, "pad_token_id": 1}),
    "xlm-roberta": ("XLMRoberta", {**SIZES, "pad_token_id": 1}),
    "camembert": ("Camembert", {**SIZES, "pad_token_id": 1}),
    "mpnet": ("MPNet", {**SIZES, "pad_token_id": 1}),
    "distilbert": ("DistilBert", {**DISTIL, "max_position_embeddings": 66}),
    "deberta": ("Deberta", {**SIZES, **RELATIVE}),
    "deberta-v2": (
        "DebertaV2",
        {
            **SIZES,
            **RELATIVE,
            "position_buckets": 16,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "conv_kernel_size": 3,
        },
    ),
    "modernbert": ("ModernBert", {**SIZES, **NEAR, **NO_SIGNS}),
    "electra": ("Electra", {**SIZES, "embedding_size": 8}),
    "albert": ("Albert", {**SIZES, "embedding_size": 8}),
    "nomic_bert": ("NomicBert", SIZES),
    "t5": ("T5", T5),
}
ITEMS = ["rain snow and bread", "oven", " ".join(texts.KNOWN[4:34])]


def library_of(kind: str) -> Any:
    """transformers' own network of random weights."""
    name, sizes = KINDS[kind]
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**sizes))
    for parameter in model.parameters():  # what begins at zero or one would hide what is mixed up
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model.eval()


def made(kind: str, folder: Path) -> tuple[Any, Backbone]:
    """transformers' own network, and what is obtained of its folder."""
    model = library_of(kind)
    model.save_pretrained(folder)
    texts.word_tokenizer().save(str(folder / "tokenizer.json"))
    return model, obtained(folder)


def obtained(folder: Path) -> Backbone:
    found = obtain_weights(f"path:{folder}", modality="text")
    native = found.provenance.input_size
    return make_base(found, modality_of("text").preprocess(found.config, native, None, None, True)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_what_transformers_gives_at_every_layer(kind: str, tmp_path: Path) -> None:
    model, base = made(kind, tmp_path)
    shared = kind == "albert"  # all its layers are one
    assert len(base.stages) == (2 if shared else 3)
    assert sorted(n for stage in base.stages for n in stage.parameters) == sorted(
        n for n, _ in base.module.named_parameters()
    )
    depths = () if shared else (1, 2)
    with torch.no_grad():
        for item in ITEMS:  # each alone and without padding, as transformers takes one
            ids = base.preprocess.host(item)[:-1]
            expected = (model.encoder if kind == "t5" else model)(
                input_ids=torch.from_numpy(ids.astype(np.int64))[None], output_hidden_states=True
            )
            found = Tapped(base, depths).eval()(as_tensors(base, [item, *ITEMS]))
            last = expected.last_hidden_state.mean(dim=1)[0]
            assert torch.allclose(found[0][0], last, atol=1e-5)
            for depth in depths:
                states = expected.hidden_states[depth - 1].mean(dim=1)[0]
                assert torch.allclose(found[depth][0], states, atol=1e-5)
    if not shared:
        cut = truncated(base, 2)
        with torch.no_grad():
            shallow = Tapped(cut).eval()(as_tensors(base, ITEMS))[0]
            assert torch.allclose(shallow, Tapped(base, (2,)).eval()(as_tensors(base, ITEMS))[1], atol=1e-5)
        assert len(cut.stages) == 2


def as_tensors(base: Backbone, items: list[str]) -> dict[str, torch.Tensor]:
    batch = base.preprocess.collate([base.preprocess.host(item) for item in items])
    return {name: torch.from_numpy(array) for name, array in batch.items()}


@pytest.mark.parametrize("kind", ["modernbert", "deberta-v2", "mpnet", "t5"])
def test_engines_agree_at_lengths_they_were_not_made_with(kind: str, tmp_path: Path) -> None:
    _, base = made(kind, tmp_path)
    reference, other = TorchEngine(base, torch.device("cpu"), 3), OpenVinoEngine(base, 3, "float32")
    for items in (ITEMS, ["oven", "rain", "a"], ["and " * 40, "rain", "the car and the bus"]):
        batch = base.preprocess.collate([base.preprocess.host(item) for item in items])
        np.testing.assert_allclose(other.run(batch)[0], reference.run(batch)[0], atol=1e-4)


def test_releasing_the_last_layer_releases_nothing_that_the_others_use(tmp_path: Path) -> None:
    for kind in ("mpnet", "deberta-v2", "modernbert", "t5"):
        _, base = made(kind, tmp_path / kind)
        regraft.freeze(base.module, "last-1")
        shared = ("relative_attention_bias", "rel_embeddings", "encoder.conv", "embeddings", "shared")
        moving = [name for name, p in base.module.named_parameters() if p.requires_grad]
        assert len(moving) > 5, kind
        assert not any(part in name for name in moving for part in shared), kind
        assert any(name.endswith("norm.weight") for name in moving) == (kind in ("modernbert", "t5")), kind


@pytest.mark.parametrize(
    ("kind", "freeze"), [("modernbert", "last-1"), ("deberta-v2", "full"), ("t5", "norm")]
)
def test_a_whole_run_and_its_export(kind: str, freeze: str, tmp_path: Path) -> None:
    made(kind, tmp_path / "encoder")
    table = texts.write_table(tmp_path / "all.csv", texts.labelled(12))
    recipe = {
        "obtain": {"backbone": f"path:{tmp_path / 'encoder'}"},
        "freeze": {"strategy": freeze},
        "finetune": {"epochs": 1, "folds": 0, "refit": False},
        "run": {"engine": "torch-float32"},
    }
    run = regraft.fit(table, tmp_path / "run", recipe=recipe)
    assert run.state["state"] == "finished"
    items = [text for text, _ in texts.labelled(4, seed=5)]
    ours = [answer.probabilities for answer in run.model.predict(items)]
    assert ours == [answer.probabilities for answer in regraft.load(run.path / "model").predict(items)]
    if kind == "deberta-v2":
        return  # an export takes half a minute: these two are enough here
    pytest.importorskip("onnxscript", reason="needs the exporter: pip install 'regraft[export]'")
    done = regraft.export(run.path, out=tmp_path / "graph")
    assert (done.path / "model.onnx").is_file()


def sentences(*kinds: str) -> str:
    """The modules.json of a sentence-transformers folder."""
    parts = [
        {"idx": number, "path": "", "type": f"sentence_transformers.models.{kind}"}
        for number, kind in enumerate(kinds)
    ]
    return json.dumps(parts)


@pytest.fixture(scope="module")
def normed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder that ends in a normalisation."""
    folder = texts.tiny_encoder(tmp_path_factory.mktemp("sentences") / "bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    (folder / "modules.json").write_text(sentences("Transformer", "Pooling", "Normalize"))
    return folder


def test_a_normalisation_behind_the_pooling_is_kept(normed: Path, tmp_path: Path) -> None:
    base = obtained(normed)
    with torch.no_grad():
        found = Tapped(base, (2,)).eval()(as_tensors(base, ITEMS))
        base.module.normed = False  # type: ignore[assignment]
        plain = Tapped(base).eval()(as_tensors(base, ITEMS))[0]
    base.module.normed = True  # type: ignore[assignment]
    assert torch.allclose(found[0], plain / plain.norm(dim=1, keepdim=True), atol=1e-6)
    assert not torch.allclose(plain.norm(dim=1), torch.ones(len(ITEMS)), atol=0.1)
    # What an earlier layer gives is not normalised, in a network that ends there neither
    cut = truncated(base, 2)
    assert torch.allclose(Tapped(cut).eval()(as_tensors(base, ITEMS))[0], found[1], atol=1e-5)
    batch = base.preprocess.collate([base.preprocess.host(item) for item in ITEMS])
    np.testing.assert_allclose(OpenVinoEngine(base, 3, "float32").run(batch)[0], found[0], atol=1e-5)
    for kinds, expected in (
        (("Transformer", "Pooling"), False),
        (("Transformer", "Pooling", "Dense", "Normalize"), False),  # the projection is left out
        (("Transformer", "Pooling", "Normalize"), True),
    ):
        (tmp_path / "modules.json").write_text(sentences(*kinds))
        assert is_normed(tmp_path) is expected, kinds
    (tmp_path / "modules.json").write_text('["no module"]')
    assert not is_normed(tmp_path)


def test_a_normalisation_goes_with_the_model_in_every_way_out(
    normed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = texts.write_table(tmp_path / "all.csv", texts.labelled(12))
    recipe = {
        "obtain": {"backbone": f"path:{normed}"},
        "base": {"join": False},  # which gives each depth a length of its own
        "freeze": {"strategy": "last-1"},
        "finetune": {"epochs": 1, "folds": 0, "refit": False},
        "run": {"engine": "torch-float32"},
    }
    run = regraft.fit(table, tmp_path / "run", recipe=recipe)
    items = [text for text, _ in texts.labelled(4, seed=5)]
    loaded = regraft.load(run.path / "model")
    for model in (run.model, loaded):
        rows = regraft.extract(model.backbone, items, engine="torch-float32")
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    ours = [answer.probability for answer in run.model.predict(items)]
    assert ours == [answer.probability for answer in loaded.predict(items)]
    pytest.importorskip("onnxscript", reason="needs the exporter: pip install 'regraft[export]'")
    for number, item in enumerate(items):
        (tmp_path / f"{number}.txt").write_text(item)
    files = [str(tmp_path / f"{number}.txt") for number in range(len(items))]
    graph = tmp_path / "onnx" / onnx.FILE
    for to in ("onnx", "openvino"):
        done = regraft.export(run.path, out=tmp_path / to, to=to)
        program = [sys.executable, str(done.path / "predict.py"), *files]
        said = subprocess.run(program, capture_output=True, text=True, check=True).stdout.splitlines()
        assert [json.loads(line)["probability"] for line in said] == pytest.approx(ours, abs=1e-4)
        # OpenVINO's graph is made of the same one, which takes seconds to trace
        monkeypatch.setattr(onnx, "write", lambda _, about, folder: Path(shutil.copy(graph, folder)))


def test_what_is_no_encoder_is_told(tmp_path: Path) -> None:
    small = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 66}
    signs = {"bos_token_id": 1, "eos_token_id": 1}
    gpt = transformers.GPT2Model(transformers.GPT2Config(**small, **signs))
    gpt.save_pretrained(tmp_path / "gpt")
    texts.word_tokenizer().save(str(tmp_path / "gpt" / "tokenizer.json"))
    with pytest.raises(BackboneError, match=r"'gpt2', which reads from left to right.*modernbert"):
        obtain_weights(f"path:{tmp_path / 'gpt'}", modality="text")
    for kind, what in (("bart", "seq2seq"), ("clvp", "not known to be an encoder")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "config.json").write_text(json.dumps({"model_type": kind, "vocab_size": 9}))
        with pytest.raises(BackboneError, match=f"'{kind}'.*{what}"):
            obtain_weights(f"path:{tmp_path / kind}", modality="text")


def test_what_lacks_weights_is_told_and_pytorchs_own_files_are_read(tmp_path: Path) -> None:
    model, base = made("bert", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="transformers cannot load it"):
        obtain_weights(f"path:{tmp_path}")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    again = obtained(tmp_path)
    for name, value in base.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], value)
    torch.save({"embeddings": print}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="transformers cannot load it"):
        obtain_weights(f"path:{tmp_path}")


def test_layouts_of_sentence_transformers(tmp_path: Path) -> None:
    made("mpnet", tmp_path / "0_Transformer")
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "path": "0_Transformer"}, {"idx": 1}]))
    pooling = tmp_path / "1_Pooling" / "config.json"
    pooling.parent.mkdir()
    for about, expected in (
        ({"pooling_mode_cls_token": False, "pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_tokens": True, "include_prompt": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ""),
        ({"pooling_mode_weightedmean_tokens": True}, ""),
        ({"pooling_mode_lasttoken": True}, ""),
    ):
        pooling.write_text(json.dumps(about))
        assert pooling_of(tmp_path) == expected, about
    pooling.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    base = obtained(tmp_path)
    with torch.no_grad():
        found = Tapped(base).eval()(as_tensors(base, ITEMS))[0]
        alone = Tapped(base).eval()(as_tensors(base, ITEMS[:1]))[0]
        given = as_tensors(base, ITEMS[:1])
        states = base.module.model(given["ids"], given["mask"]).last_hidden_state[0, :-1]
    assert torch.allclose(found[:1], alone, atol=1e-5)
    length = int(given["mask"].sum())
    assert torch.allclose(alone[0], states[:length].amax(dim=0), atol=1e-5)


def test_static_embeddings_are_means_of_vectors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    rng = np.random.default_rng(0)
    count = len(texts.KNOWN)
    vectors = rng.normal(size=(count - 2, 8)).astype(np.float32)
    rows, weights = rng.integers(0, count - 2, count), rng.uniform(0.5, 2, count).astype(np.float32)
    tensors = {"embeddings": vectors, "mapping": rows, "weights": weights}
    save_file({k: torch.from_numpy(v) for k, v in tensors.items()}, str(tmp_path / "model.safetensors"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}))
    texts.word_tokenizer().save(str(tmp_path / "tokenizer.json"))
    base = obtained(tmp_path)
    assert (len(base.stages), base.width, base.architecture) == (1, 8, "static:embedding")
    items = ["rain nothingknown snow", "oven", "nothingknown"]
    # As model2vec does it: no signs at the ends, what is unknown left out, the mean's length 1
    ids = [[texts.KNOWN.index(word) for word in item.split() if word in texts.KNOWN] for item in items]
    means = [(vectors[rows[some]] * weights[some, None]).sum(0) for some in ids]
    wanted = [mean / (np.linalg.norm(mean) + 1e-32) for mean in means]
    engine = TorchEngine(base, torch.device("cpu"), 3)
    batch = base.preprocess.collate([base.preprocess.host(item) for item in items])
    np.testing.assert_allclose(engine.run(batch)[0], wanted, atol=1e-6)
    np.testing.assert_allclose(OpenVinoEngine(base, 3, "float32").run(batch)[0], wanted, atol=1e-5)
    table = texts.write_table(tmp_path / "data" / "all.csv", texts.labelled(12))
    recipe = {
        "obtain": {"backbone": f"path:{tmp_path}"},
        "finetune": {"epochs": 1, "folds": 0, "refit": False},
        "run": {"engine": "torch-float32"},
    }
    run = regraft.fit(table, tmp_path / "run", recipe=recipe)
    ours = [answer.probabilities for answer in run.model.predict(items[:2])]
    assert ours == [answer.probabilities for answer in regraft.load(run.path / "model").predict(items[:2])]
