"""Networks of samples as backbones: Wav2Vec2 (Baevski et al. 2020), HuBERT (Hsu et al. 2021) and WavLM (Chen et
al. 2022), for clips of any length beside others.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft.artifacts import read_json
from regraft.backbones.transformers_layout import library, loaded
from regraft.backbones.whisper import FAR, sounding
from regraft.errors import BackboneError

PREFIX = "speech:"
KINDS = ("wav2vec2", "hubert", "wavlm")
NATIVE = 1_000  # frames of 10 ms: what an input has where no recordings tell
RATE = 16_000  # Hz


class Stem(nn.Module):
    """(B, W, 2, L) samples and truths to (B * W, P, width) hidden states, a position 20 ms in most networks; 0
    where there is no sound. What lies behind a sound changes nothing.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        encoder = model.encoder
        self.features, self.projection = model.feature_extractor, model.feature_projection
        self.places = encoder.pos_conv_embed
        self.before = getattr(
            self.places, "batch_norm", None
        )  # of some HuBERTs: it moves padding away from 0
        if self.before is not None:
            self.places.batch_norm = None
        self.norm = nn.Identity() if model.config.do_stable_layer_norm else encoder.layer_norm
        # The positions that WavLM's first layer learnt, and all of its layers use
        first: Any = encoder.layers[0].attention
        self.near = getattr(first, "rel_attn_embed", None)
        if self.near is not None:
            self.most = int(first.max_distance)
            del first.rel_attn_embed

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Hidden states of one batch."""
        hidden, there = given.flatten(0, 1)[:, :1], given.flatten(0, 1)[:, 1]
        steps = [layer.conv for layer in self.features.conv_layers]
        least = 1  # samples that one position hears
        for step in reversed(steps):
            least = (least - 1) * step.stride[0] + step.kernel_size[0]
        lengths = there.sum(dim=1).long()
        lengths = torch.where(lengths > 0, lengths.clamp(min=least), 0)
        hidden = nn.functional.pad(hidden, (0, max(0, least - hidden.shape[2])))
        for layer, step in zip(self.features.conv_layers, steps, strict=True):
            whole = torch.div(lengths - step.kernel_size[0], step.stride[0], rounding_mode="floor") + 1
            lengths = whole.clamp(min=0)
            hidden = _convolved(layer, hidden, lengths)
        hidden = hidden.transpose(1, 2)
        places = torch.arange(hidden.shape[1], device=hidden.device)
        there = (places < lengths[:, None]).to(hidden.dtype).unsqueeze(2)
        projected = self.projection(hidden)
        hidden = (projected[0] if isinstance(projected, tuple) else projected) * there
        near = hidden if self.before is None else self.before(hidden.transpose(1, 2)).transpose(1, 2) * there
        return self.norm(hidden + self.places(near)) * there  # type: ignore[no-any-return]

    def bias(self, length: int) -> torch.Tensor | None:
        """(heads, P, P) what WavLM adds to the attention of a place to another, by how far it is; None for
        others.
        """
        if self.near is None:
            return None
        places = torch.arange(length, device=self.near.weight.device)
        away = places[None, :] - places[:, None]
        half = self.near.num_embeddings // 2
        exact = half // 2
        far = torch.log(away.abs().clamp(min=1).float() / exact) / math.log(self.most / exact)
        far = (exact + far * (half - exact)).long().clamp(max=half - 1)
        bucket = torch.where(away.abs() < exact, away.abs(), far) + (away > 0).long() * half
        return self.near(bucket).permute(2, 0, 1)  # type: ignore[no-any-return]


def _convolved(layer: Any, hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """What a layer of convolution gives; a norm over the time goes by what is sound alone."""
    norm = getattr(layer, "layer_norm", None)
    if not isinstance(norm, nn.GroupNorm):
        return layer(hidden)  # type: ignore[no-any-return]
    hidden = layer.conv(hidden)
    there = torch.arange(hidden.shape[2], device=hidden.device) < lengths[:, None]
    there = there.to(hidden.dtype).unsqueeze(1)
    count = lengths.clamp(min=1).to(hidden.dtype)[:, None, None]
    middle = hidden - (hidden * there).sum(dim=2, keepdim=True) / count
    variance = (middle.square() * there).sum(dim=2, keepdim=True) / count
    normed = middle * torch.rsqrt(variance + norm.eps)
    return layer.activation(normed * norm.weight[:, None] + norm.bias[:, None])  # type: ignore[no-any-return]


class Layer(nn.Module):
    """One layer of the encoder on (N, P, width) hidden states. Positions that are 0 are padding: nothing
    attends to them, and they stay 0.
    """

    def __init__(self, layer: nn.Module, stable: bool) -> None:
        super().__init__()
        self.layer, self.stable = layer, stable

    def forward(self, hidden: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Hidden states after the layer; `bias` is WavLM's."""
        there = sounding(hidden)
        mask = ((1 - there) * FAR).transpose(1, 2).unsqueeze(1)
        if bias is not None:
            return self._gated(hidden, mask, bias) * there
        passed = self.layer(hidden, attention_mask=mask)
        return (passed[0] if isinstance(passed, tuple) else passed) * there  # type: ignore[no-any-return]

    def _gated(self, hidden: torch.Tensor, mask: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """A layer of WavLM; its modules are asked as such, so that adapters may stand in their place."""
        layer: Any = self.layer
        before = layer.layer_norm(hidden) if self.stable else hidden
        hidden = hidden + layer.dropout(attended(layer.attention, before, mask, bias))
        if self.stable:
            return hidden + layer.feed_forward(layer.final_layer_norm(hidden))  # type: ignore[no-any-return]
        hidden = layer.layer_norm(hidden)
        return layer.final_layer_norm(hidden + layer.feed_forward(hidden))  # type: ignore[no-any-return]


def attended(attention: Any, hidden: torch.Tensor, mask: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """(N, P, width) what WavLM's attention gives: the bias of positions is gated by what stands at a place."""
    heads, size = attention.num_heads, attention.head_dim
    shape = (*hidden.shape[:2], heads, size)
    parts = hidden.view(shape).transpose(1, 2)
    gates = attention.gru_rel_pos_linear(parts).view(*parts.shape[:-1], 2, 4).sum(dim=-1).sigmoid()
    first, second = gates.chunk(2, dim=-1)
    gate = first * (second * attention.gru_rel_pos_const - 1.0) + 2.0
    query, key, value = (
        part(hidden).view(shape).transpose(1, 2)
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    scores = (query * attention.scaling) @ key.transpose(2, 3) + gate * bias.unsqueeze(0) + mask
    shares = nn.functional.dropout(scores.softmax(dim=-1), attention.dropout, attention.training)
    return attention.out_proj((shares @ value).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class SpeechEncoder(nn.Module):
    """(B, W, 2, L) samples and truths of W windows to (B, width): the mean of the last hidden states over the
    sound.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        stable = bool(model.config.do_stable_layer_norm)
        convolution = model.encoder.pos_conv_embed.conv
        if nn.utils.parametrize.is_parametrized(convolution, "weight"):
            nn.utils.parametrize.remove_parametrizations(convolution, "weight")
        self.stem = Stem(model)
        self.layers = nn.ModuleList(Layer(layer, stable) for layer in model.encoder.layers)
        self.norm = model.encoder.layer_norm if stable else nn.Identity()

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Pooled features of one batch."""
        hidden = self.stem(given)
        bias = self.stem.bias(hidden.shape[1])
        for layer in self.layers:
            hidden = layer(hidden, bias)
        return self.pooled(self.norm(hidden) * sounding(hidden), given)

    def pooled(self, hidden: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """(B, width) means of (B * W, P, width) hidden states over the sound of all windows."""
        hidden = hidden.reshape(-1, given.shape[1] * hidden.shape[1], hidden.shape[2])
        return hidden.sum(dim=1) / sounding(hidden).sum(dim=1).clamp(min=1)

    def cut_short(self, depth: int) -> None:
        """Keep the first `depth` stages only, the stem included; no norm closes them."""
        del self.layers[depth - 1 :]
        self.norm = nn.Identity()


def is_speech(folder: Path) -> bool:
    """True for a folder in the layout of transformers whose model is one of these."""
    file = folder / "config.json"
    about = read_json(file) if file.is_file() else None
    return isinstance(about, dict) and about.get("model_type") in KINDS and "architecture" not in about


def read_folder(folder: Path, name: str = "") -> tuple[SpeechEncoder, str, dict[str, Any]]:
    """The network of such a folder, what its architecture is called, and its config. Raises BackboneError."""
    model = loaded(folder, spare=("masked_spec_embed",))
    file = folder / "preprocessor_config.json"
    told = read_json(file) if file.is_file() else {}
    rate = int(told.get("sampling_rate") or RATE)
    if rate % 100:
        raise BackboneError(f"{name or folder} takes {rate:,} samples a second: no whole number in 10 ms.")
    standardised = bool(told.get("do_normalize", True))
    config = {
        "modality": "audio",
        "input_size": [NATIVE],
        "classifier": None,
        "license": "unknown",
        "front": {"name": "standardised" if standardised else "samples", "rate": rate},
        "transformers": model.config.to_dict(),
    }
    return SpeechEncoder(model).eval(), f"{PREFIX}{type(model).__name__}", config


def build(config: dict[str, Any]) -> SpeechEncoder:
    """The untrained network of a config."""
    transformers, inner = library(), dict(config["transformers"])
    known = transformers.AutoConfig.for_model(inner.pop("model_type"), **inner)
    return SpeechEncoder(transformers.AutoModel.from_config(known).float())
