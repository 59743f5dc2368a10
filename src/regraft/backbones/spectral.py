"""Networks of spectra as backbones: AST (Gong et al. 2021) and the audio half of CLAP (Wu et al. 2023). Both take
ten seconds or so and no other length; of longer recordings they take windows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft.artifacts import read_json
from regraft.backbones.transformers_layout import library, loaded
from regraft.errors import BackboneError

AST, CLAP = "audio-spectrogram-transformer", "clap"  # what the library calls them
PREFIX = "spectral:"
WINDOW = 1_000  # frames of 10 ms that one window of a recording has


class Spectral(nn.Module):
    """What both have in common: (B, W, frames, tones + 1) frames and truths of W windows go through a stem,
    layers in a row and a norm, to (B, width) features, the mean over the windows with sound.
    """

    stem: nn.Module
    layers: nn.ModuleList
    norm: nn.Module
    whole = True  # it has all its layers

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Pooled features of one batch."""
        hidden = self.stem(given.flatten(0, 1)[..., :-1])
        for layer in self.layers:
            hidden = layer(hidden)
        hidden = self.norm(hidden)
        return over(self.closing(hidden), given) if self.whole else self.pooled(hidden, given)

    def closing(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N, width) of the last states, as the network itself pools them."""
        return hidden.mean(dim=1)

    def pooled(self, hidden: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """(B, C) means of (B * W, tokens, C) states after any layer."""
        return over(hidden.mean(dim=1), given)

    def cut_short(self, depth: int) -> None:
        """Keep the first `depth` stages only, the stem included; no norm closes them."""
        del self.layers[depth - 1 :]
        self.norm, self.whole = nn.Identity(), False


def over(values: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """(B, C) means of (B * W, C) features of windows over those with sound."""
    windows = given.shape[1]
    if windows == 1:
        return values
    there = given[..., -1].amax(dim=2).unsqueeze(2)
    values = values.reshape(-1, windows, values.shape[1])
    return (values * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)


class Patches(Spectral):
    """AST: at the end the mean of the class token and the distilled one, before it the mean over the patches
    that begin where there is sound.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.stem = model.embeddings
        self.layers = nn.ModuleList(First(layer) for layer in _layers_of_ast(model))
        self.norm = model.layernorm
        self.step = int(model.config.time_stride)
        self.places = model.embeddings.get_shape(model.config)  # patches over the tones, and over the time

    def closing(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N, width) of (N, tokens, width)."""
        return hidden[:, :2].mean(dim=1)

    def pooled(self, hidden: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """(B, width) of (B * W, tokens, width) after any layer."""
        tones, times = self.places
        there = given.flatten(0, 1)[:, :: self.step, -1][:, :times]
        there = there.unsqueeze(1).expand(-1, tones, -1).flatten(1).unsqueeze(2)
        values = (hidden[:, 2:] * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)
        return over(values, given)


class First(nn.Module):
    """A layer of which only the first result is of interest, with more that it is always given."""

    def __init__(self, layer: nn.Module, *more: Any) -> None:
        super().__init__()
        self.layer, self.more = layer, more

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states after the layer."""
        passed = self.layer(hidden, *self.more)
        return passed[0] if isinstance(passed, tuple) else passed  # type: ignore[no-any-return]


def _layers_of_ast(model: Any) -> Any:
    """Its layers; before transformers 5 they were in an encoder."""
    return model.layers if hasattr(model, "layers") else model.encoder.layer


class ClapStem(nn.Module):
    """(N, frames, tones) decibels to (N, patches, width): normed by tone, stretched to the length of a square
    picture that is cut into rows, and cut into patches.
    """

    stretch: torch.Tensor

    def __init__(self, encoder: Any, frames: int) -> None:
        super().__init__()
        self.batch_norm, self.patches, self.ratio = (
            encoder.batch_norm,
            encoder.patch_embed,
            encoder.freq_ratio,
        )
        long = encoder.spec_size * self.ratio
        with torch.no_grad():  # bicubic interpolation is linear: what it makes of each frame alone
            one = torch.eye(frames)[None, None]
            stretch = nn.functional.interpolate(one, (long, frames), mode="bicubic", align_corners=True)
        self.register_buffer("stretch", stretch[0, 0], persistent=False)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Patches of one batch."""
        normed = self.batch_norm(frames.transpose(1, 2).unsqueeze(3)).squeeze(3)  # (N, tones, frames)
        long = normed @ self.stretch.to(normed.dtype).T
        rows = long.unflatten(2, (self.ratio, -1)).transpose(1, 2).flatten(1, 2)
        return self.patches(rows.unsqueeze(1), None)  # type: ignore[no-any-return]


class Clap(Spectral):
    """CLAP's audio half: a Swin transformer, its stages as layers; the mean over all places."""

    def __init__(self, encoder: Any, frames: int) -> None:
        super().__init__()
        self.stem = ClapStem(encoder, frames)
        self.layers = nn.ModuleList(
            First(layer, size) for layer, size in zip(encoder.layers, encoder.input_resolutions, strict=True)
        )
        self.norm = encoder.norm


def is_spectral(folder: Path) -> bool:
    """True for a folder in the layout of transformers whose model is one of these."""
    file = folder / "config.json"
    about = read_json(file) if file.is_file() else None
    known = (AST, CLAP, "clap_audio_model")
    return isinstance(about, dict) and about.get("model_type") in known and "architecture" not in about


def read_folder(folder: Path, name: str = "") -> tuple[Spectral, str, dict[str, Any]]:
    """The network of such a folder, what its architecture is called, and its config. Raises BackboneError,
    also for CLAP with fusion, which draws parts of long recordings at random.
    """
    about = read_json(folder / "config.json")
    file = folder / "preprocessor_config.json"
    told = read_json(file) if file.is_file() else {}
    if about["model_type"] == AST:
        return _ast(folder, told, name)
    inner = about.get("audio_config") or about
    if inner.get("enable_fusion"):
        raise BackboneError(
            f"{name or folder} is a CLAP that fuses parts of long recordings, drawn at random: its answers would differ "
            "from call to call. Take one without fusion (laion/clap-htsat-unfused)."
        )
    return _clap(folder, told, name)


def _ast(folder: Path, told: dict[str, Any], name: str) -> tuple[Spectral, str, dict[str, Any]]:
    model = loaded(folder)
    if (rate := int(told.get("sampling_rate") or 16_000)) != 16_000:
        raise BackboneError(f"{name or folder}: AST at {rate:,} Hz is not known here, only at 16,000 Hz.")
    frames, tones = int(model.config.max_length), int(model.config.num_mel_bins)
    # Without standardising: as if by mean 0 and half a deviation
    plain = told.get("do_normalize", True) is False
    mean, std = (0.0, 0.5) if plain else (told.get("mean", -4.2677393), told.get("std", 4.5689974))
    front = {
        "name": "kaldi",
        "rate": rate,
        "mels": tones,
        "frames": frames,
        "mean": [float(mean)],
        "std": [float(std)],
    }
    config = _config(front, tones, frames, {"model_type": AST, **model.config.to_dict()})
    return Patches(model).eval(), f"{PREFIX}{type(model).__name__}", config


def _clap(folder: Path, told: dict[str, Any], name: str) -> tuple[Spectral, str, dict[str, Any]]:
    model = loaded(folder, "ClapAudioModelWithProjection", spare=("audio_projection.",))
    rate, hop = int(told.get("sampling_rate") or 48_000), int(told.get("hop_length") or 480)
    wide, seconds = int(told.get("fft_window_size") or 1_024), int(told.get("max_length_s") or 10)
    padding = str(told.get("padding") or "repeatpad")
    if (rate, hop, wide, seconds, padding) != (48_000, 480, 1_024, 10, "repeatpad"):
        raise BackboneError(
            f"{name or folder} takes sounds in another way than CLAP does: {rate:,} Hz, a step of {hop}, windows of {wide}, "
            f"{seconds} s, {padding!r}. Wanted 48,000 Hz, 480, 1,024, 10 s and 'repeatpad'."
        )
    encoder = model.audio_model.audio_encoder
    frames, tones = seconds * rate // hop + 1, int(encoder.config.num_mel_bins)
    low, high = float(told.get("frequency_min", 0)), float(told.get("frequency_max", 14_000))
    front = {"name": "decibels", "rate": rate, "mels": tones, "frames": frames, "tones": [low, high]}
    config = _config(front, tones, frames, encoder.config.to_dict())
    return Clap(encoder, frames).eval(), f"{PREFIX}{type(encoder).__name__}", config


def _config(front: dict[str, Any], tones: int, frames: int, inner: dict[str, Any]) -> dict[str, Any]:
    return {
        "modality": "audio",
        "input_size": [tones, min(frames, WINDOW)],
        "classifier": None,
        "license": "unknown",
        "front": front,
        "transformers": inner,
    }


def build(config: dict[str, Any]) -> Spectral:
    """The untrained network of a config."""
    transformers, inner = library(), dict(config["transformers"])
    kind = inner.pop("model_type")
    if kind == AST:
        return Patches(transformers.ASTModel(transformers.ASTConfig(**inner)).float())
    model = transformers.ClapAudioModel(transformers.ClapAudioConfig(**inner)).float()
    return Clap(model.audio_encoder, int(config["front"]["frames"]))
