"""Networks of sounds beside Whisper's: tiny ones of random weights, held against transformers' own feature
extractor and model, alone and beside others, at any depth and in every engine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import regraft
import sounds
from regraft.backbones import Backbone, Tapped, joined, make_base, obtain_weights, truncated
from regraft.errors import BackboneError
from regraft.inference import OpenVinoEngine, TorchEngine
from regraft.modalities import modality_of

transformers = pytest.importorskip("transformers", reason="needs the library: pip install 'regraft[audio]'")
SPEECH = {
    "conv_dim": (16,) * 7,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 12,
}
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
MOVED = {"conv_pos_batch_norm": True, "feat_proj_layer_norm": False}
AST = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
CLAP = {
    "hidden_size": 128,
    "patch_embeds_hidden_size": 16,
    "depths": [1, 2, 1, 1],
    "num_attention_heads": [1, 2, 2, 4],
    "enable_fusion": False,
}
# Of each the class, its sizes, and whether samples are standardised
KINDS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "wav2vec2": ("Wav2Vec2", SPEECH, True),
    "wav2vec2, large": ("Wav2Vec2", {**SPEECH, **STABLE}, True),
    "hubert": ("Hubert", SPEECH, True),
    "hubert, normed by batch": ("Hubert", {**SPEECH, **MOVED}, True),
    "wavlm": ("WavLM", SPEECH, False),
    "wavlm, large": ("WavLM", {**SPEECH, **STABLE}, True),
    "ast": ("AST", AST, True),
    "clap": ("ClapAudio", CLAP, True),
}
LENGTHS = (1.3, 0.4, 2.0)  # seconds


def library_of(kind: str) -> tuple[Any, Any]:
    """transformers' own network of random weights, and its feature extractor."""
    name, sizes, standardised = KINDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**sizes)
    ending = "ModelWithProjection" if kind == "clap" else "Model"
    model = getattr(transformers, f"{name}{ending}")(config).eval()
    for parameter in model.parameters():  # what begins at zero or one would hide what is mixed up
        parameter.data += 0.02 * torch.randn_like(parameter)
    if kind == "ast":
        return model, transformers.ASTFeatureExtractor()
    if kind == "clap":
        norm = model.audio_model.audio_encoder.batch_norm
        norm.running_mean.fill_(-20)
        norm.running_var.fill_(200)
        return model, transformers.ClapFeatureExtractor(truncation="rand_trunc")
    return model, transformers.Wav2Vec2FeatureExtractor(do_normalize=standardised)


def made(kind: str, folder: Path, size: int = 200) -> tuple[Any, Any, Backbone]:
    """Both, and what is obtained of the folder they are saved in, for inputs of `size` frames."""
    model, extractor = library_of(kind)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return model, extractor, obtained(folder, size)


def obtained(folder: Path, size: int | None) -> Backbone:
    found = obtain_weights(f"path:{folder}", modality="audio")
    native = found.provenance.input_size
    return make_base(found, modality_of("audio").preprocess(found.config, native, None, size, True)[0])


def clips(rate: int) -> list[np.ndarray]:
    return [
        sounds.tone(220, LENGTHS[0], rate),
        sounds.hiss(LENGTHS[1], rate),
        sounds.tone(900, LENGTHS[2], rate),
    ]


def features(base: Backbone, some: list[np.ndarray], depths: tuple[int, ...] = ()) -> list[torch.Tensor]:
    batch = base.preprocess.collate([base.preprocess.host(clip) for clip in some])
    with torch.no_grad():
        given = {name: torch.from_numpy(array) for name, array in batch.items()}
        return list(Tapped(base, depths).eval()(given))


def expected(kind: str, model: Any, extractor: Any, clip: np.ndarray) -> torch.Tensor:
    """What the library itself makes of one clip."""
    given = extractor(clip, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    given = {name: values for name, values in given.items() if name in ("input_values", "input_features")}
    with torch.no_grad():
        if kind == "clap":
            return model.audio_model(**given).pooler_output[0]  # type: ignore[no-any-return]
        found = model(**given)
    pooled = found.pooler_output if kind == "ast" else found.last_hidden_state.mean(dim=1)
    return pooled[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_what_transformers_gives_alone_and_beside_others(kind: str, tmp_path: Path) -> None:
    model, extractor, base = made(kind, tmp_path)
    some = clips(base.preprocess.rate)
    together = features(base, some)[0]
    for clip, found in zip(some, together, strict=True):
        wanted = expected(kind, model, extractor, clip)
        assert torch.allclose(features(base, [clip])[0][0], wanted, atol=1e-5), kind
        assert torch.allclose(found, wanted, atol=1e-5), kind


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm", "ast", "clap"])
def test_on_recordings_too(kind: str, real_data: Path, tmp_path: Path) -> None:
    model, extractor, base = made(kind, tmp_path, 504)
    for place in sorted((real_data / "esc10").rglob("*.wav"))[::150]:
        clip = base.preprocess.host(place)
        found, wanted = features(base, [clip])[0][0], expected(kind, model, extractor, clip)
        assert torch.allclose(found, wanted, atol=1e-5), place.name


@pytest.mark.parametrize("kind", ["wav2vec2", "wavlm, large", "ast", "clap"])
def test_stages_are_layers_that_can_be_cut(kind: str, tmp_path: Path) -> None:
    _, _, base = made(kind, tmp_path)
    count = len(base.stages)
    assert count == (5 if kind == "clap" else 3)
    assert sorted(n for stage in base.stages for n in stage.parameters) == sorted(
        n for n, _ in base.module.named_parameters()
    )
    some = clips(base.preprocess.rate)[: 1 if kind == "clap" else 3]  # a second of arithmetic each
    every = features(base, some, tuple(range(1, count)))
    for depth in (3,) if kind == "clap" else range(1, count):
        cut = truncated(base, depth)
        assert torch.allclose(features(cut, some)[0], every[depth], atol=1e-5)
        assert len(cut.stages) == depth
    alone = features(base, some[:1], tuple(range(1, count)))
    assert all(torch.allclose(a[0], b[0], atol=1e-5) for a, b in zip(alone, every, strict=True))
    regraft.freeze(base.module, "last-1")
    moving = {name for name, p in base.module.named_parameters() if p.requires_grad}
    assert moving == set(base.stages[-1].parameters)


@pytest.mark.parametrize("kind", ["hubert", "wavlm", "ast", "clap"])
def test_engines_agree_at_every_depth_and_length(kind: str, tmp_path: Path) -> None:
    _, _, base = made(kind, tmp_path)
    base = joined(base)
    reference, other = TorchEngine(base, torch.device("cpu"), 2), OpenVinoEngine(base, 2, "float32")
    rng, rate = np.random.default_rng(0), base.preprocess.rate
    for lengths in ((50, 20), (rate, rate // 3), (2 * rate, 100))[: 1 if kind == "clap" else 3]:
        batch = base.preprocess.collate([rng.normal(0, 0.1, n).astype(np.float32) for n in lengths])
        np.testing.assert_allclose(other.run(batch)[0], reference.run(batch)[0], atol=1e-4)


@pytest.mark.parametrize("kind", ["hubert", "ast", "clap"])
def test_longer_recordings_are_heard_in_windows_and_silence_does_not_count(kind: str, tmp_path: Path) -> None:
    _, _, base = made(kind, tmp_path, 1_000)
    windows, rate = obtained(tmp_path, 2_000), base.preprocess.rate
    assert (windows.preprocess.windows, windows.preprocess.varying) == (2, ())
    long = sounds.hiss(20, rate)
    short = long[: 3 * rate]
    found = features(windows, [long, short])[0]
    assert torch.allclose(found[1], features(base, [short])[0][0], atol=1e-5)
    if kind == "hubert":  # deviations over all windows too
        varied = joined(windows, "deviations")
        assert torch.allclose(features(varied, [long, short])[0][1:], features(varied, [short])[0], atol=1e-4)
    parts = features(base, [long[: 10 * rate], long[10 * rate :]])[0]
    assert torch.allclose(found[0], parts.mean(dim=0), atol=1e-5)


def test_rates_and_lengths_are_the_networks_own(tmp_path: Path) -> None:
    _, _, base = made("clap", tmp_path / "clap", None)  # type: ignore[arg-type]
    assert (base.preprocess.rate, base.preprocess.size, base.width) == (48_000, 1_000, 128)
    place = sounds.write(tmp_path / "one.wav", sounds.tone(440, 0.5, 16_000), 16_000)
    assert len(base.preprocess.host(place)) == 24_000
    again = modality_of("audio").preprocess_from(json.loads(json.dumps(base.preprocess.to_dict())))
    assert again == base.preprocess
    old = {k: v for k, v in again.to_dict().items() if k not in ("front", "rate", "frames", "tones")}
    assert modality_of("audio").preprocess_from(old).rate == 16_000  # models from before there were others
    facts = modality_of("audio").table([modality_of("audio").inspect(place)])
    found = obtain_weights(f"path:{tmp_path / 'clap'}")
    _, why = modality_of("audio").preprocess(found.config, 1_000, facts, None, True)
    assert "48,000 Hz" in why


def test_what_cannot_be_taken_is_told(tmp_path: Path) -> None:
    config = transformers.ClapAudioConfig(**{**CLAP, "enable_fusion": True}).to_dict()
    for name, about, told, why in (
        ("fused", config, {}, "drawn at random"),
        ("sew", {"model_type": "sew", "vocab_size": 9}, {}, "not known to be an encoder of texts"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(about))
        (tmp_path / name / "preprocessor_config.json").write_text(json.dumps(told))
        with pytest.raises(BackboneError, match=why):
            obtain_weights(f"path:{tmp_path / name}")
    _, extractor, _ = made("clap", tmp_path / "clap")
    extractor.hop_length = 320
    extractor.save_pretrained(tmp_path / "clap")
    with pytest.raises(BackboneError, match="a step of 320"):
        obtain_weights(f"path:{tmp_path / 'clap'}")


def test_a_whole_run_is_saved_and_answers_alike(tmp_path: Path) -> None:
    made("wavlm", tmp_path / "network")
    data = sounds.draw(tmp_path / "data", 10)
    recipe = {
        "obtain": {"backbone": f"path:{tmp_path / 'network'}"},
        "freeze": {"strategy": "last-1"},
        "finetune": {"epochs": 1, "folds": 0, "refit": False},
        "run": {"engine": "torch-float32"},
    }
    run = regraft.fit(data, tmp_path / "run", recipe=recipe)
    assert run.state["state"] == "finished"
    files = sorted(data.glob("*/0*.wav"))
    ours = [answer.probabilities for answer in run.model.predict(files)]
    assert ours == [answer.probabilities for answer in regraft.load(run.path / "model").predict(files)]
