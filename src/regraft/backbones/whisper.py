"""The encoder of Whisper (Radford et al. 2022) as a backbone: sounds of any length, without padding them to
thirty seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.artifacts import openable, read_json
from regraft.errors import BackboneError, NotInstalledError

PREFIX = "whisper:"
# positions of 20 ms, ten seconds, within which a layer attends: three windows cost less than thirty seconds
# at once
WINDOW = 500
FAR = -1e4  # added to the attention that nothing may pay to padding
Named = dict[str, np.ndarray]
NAMES = {  # what the sizes are called in transformers
    "width": "d_model",
    "mels": "num_mel_bins",
    "layers": "encoder_layers",
    "heads": "encoder_attention_heads",
    "inner": "encoder_ffn_dim",
    "positions": "max_source_positions",
}


class Stem(nn.Module):
    """(B, mels + 1, T) log-mel frames, the last row of which is 1 where there is sound, to (B, T / 2, width)
    hidden states, 0 where there is none.
    """

    positions: torch.Tensor

    def __init__(self, mels: int, width: int, positions: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.register_buffer("positions", torch.zeros(positions, width))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Hidden states of one batch. What lies beyond the sound counts as the end of the array does, so how
        far a clip is padded changes nothing.
        """
        there = frames[:, -1:]
        hidden = nn.functional.gelu(self.conv1(frames[:, :-1] * there)) * there
        hidden = nn.functional.gelu(self.conv2(hidden)).transpose(1, 2)
        there = there[:, :, ::2].transpose(1, 2)
        length = hidden.shape[1]
        places = self.positions[:WINDOW]
        if length > WINDOW:
            places = places.repeat(-(-length // WINDOW), 1)
        return (hidden + places[:length]) * there


class Layer(nn.Module):
    """One layer of the encoder on (B, P, width) hidden states. Positions that are 0 are padding: nothing
    attends to them, and they stay 0, so that hidden states need no mask beside them.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states after the layer; longer ones than a window attend within windows only."""
        count, length, width = hidden.shape
        if length > WINDOW:
            hidden = nn.functional.pad(hidden, (0, 0, 0, -length % WINDOW)).reshape(-1, WINDOW, width)
        there = sounding(hidden)
        mask = ((1 - there) * FAR).transpose(1, 2).unsqueeze(1)
        passed = self.layer(hidden, mask)
        hidden = (passed[0] if isinstance(passed, tuple) else passed) * there
        return hidden.reshape(count, -1, width)[:, :length] if length > WINDOW else hidden


class WhisperEncoder(nn.Module):
    """(B, mels + 1, T) frames to (B, width): the mean of the last hidden states over the sound, without
    padding.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        layers = library(config).layers
        width = config["width"]
        self.stem = Stem(config["mels"], width, config["positions"])
        self.layers = nn.ModuleList(Layer(layer) for layer in layers)
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Pooled features of one batch."""
        hidden = self.stem(frames)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.pooled(self.norm(hidden) * sounding(hidden), frames)

    def pooled(self, hidden: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """(B, width) means of (B, P, width) hidden states over the positions that are no padding; `given` is
        what the network was given, of which nothing is needed.
        """
        return hidden.sum(dim=1) / sounding(hidden).sum(dim=1).clamp(min=1)


def sounding(hidden: torch.Tensor) -> torch.Tensor:
    """(B, P, 1): 1 where there is sound, 0 at padding, of (B, P, width) hidden states."""
    return (hidden.abs().amax(dim=-1, keepdim=True) > 0).to(hidden.dtype)


def build(config: dict[str, Any]) -> WhisperEncoder:
    """The untrained network of a config (`config_of`)."""
    return WhisperEncoder(config["whisper"])


def library(sizes: dict[str, Any]) -> Any:
    """transformers' own encoder of these sizes, untrained. Raises BackboneError where it is not installed."""
    import regraft.backbones.ready  # noqa: F401  (transformers imports torchvision)

    try:
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder as Library
    except ImportError:
        raise NotInstalledError(
            "Whisper needs the library transformers: pip install 'regraft[audio]'"
        ) from None
    named = {theirs: sizes[ours] for ours, theirs in NAMES.items()}
    return Library(WhisperConfig(**named, attn_implementation="sdpa"))


def config_of(arrays: Named) -> dict[str, Any]:
    """What the network is built by, from the shapes of the arrays, and what a preprocessing is told of it."""
    width, mels, _ = arrays["encoder/conv1/weight"].shape
    layers = sum(
        name.endswith("/self_attention/linear_0/weight") and name.startswith("encoder/") for name in arrays
    )
    sizes = {
        "width": width,
        "mels": mels,
        "layers": layers,
        "heads": int(arrays["encoder/num_heads"]),
        "inner": arrays["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        "positions": len(arrays["encoder/position_encodings/encodings"]),
    }
    return _config(sizes)


def _config(sizes: dict[str, int]) -> dict[str, Any]:
    return {
        "whisper": sizes,
        "mels": sizes["mels"],
        "input_size": [sizes["mels"], 2 * sizes["positions"]],
        "fixed_input_size": True,
        "classifier": None,
        "modality": "audio",
    }


def is_whisper(folder: Path) -> bool:
    """True for a folder in the layout of transformers whose model is a Whisper."""
    file = folder / "config.json"
    about = read_json(file) if file.is_file() else None
    return isinstance(about, dict) and about.get("model_type") == "whisper" and "architecture" not in about


def read_folder(folder: Path, name: str = "") -> tuple[WhisperEncoder, str, dict[str, Any]]:
    """The encoder of such a folder, what its architecture is called, and its config; nothing of the decoder
    is kept. `name` is what an error calls it. Raises BackboneError.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise BackboneError(f"{name or folder}: there is no model.safetensors in it.")
    try:
        about = read_json(folder / "config.json")
        config = _config({ours: int(about[theirs]) for ours, theirs in NAMES.items()})
        with openable(weights) as file:
            every = load_file(file)
        state = {
            name.removeprefix("model.").removeprefix("encoder."): tensor.float()
            for name, tensor in every.items()
            if name.removeprefix("model.").startswith("encoder.")
        }
        return _from_library(state, config), f"{PREFIX}encoder", config
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError, OSError) as error:
        raise BackboneError(
            f"{name or folder} does not fit Whisper's encoder: {str(error).splitlines()[0]}"
        ) from None


def from_arrays(arrays: Named, config: dict[str, Any]) -> WhisperEncoder:
    """The network with the weights of CTranslate2's arrays, by way of transformers' own encoder, which has to
    fit strictly. Raises KeyError, ValueError or RuntimeError where the arrays are those of another network.
    """
    return _from_library(renamed(arrays, config["whisper"]["layers"]), config)


def _from_library(state: dict[str, torch.Tensor], config: dict[str, Any]) -> WhisperEncoder:
    """The network with the weights of transformers' encoder, which `state` has to fit strictly."""
    theirs = library(config["whisper"])
    theirs.load_state_dict(state, strict=True)
    network = build(config)
    network.load_state_dict(
        {
            **{
                f"stem.{name}": value
                for name, value in theirs.state_dict().items()
                if name.startswith("conv")
            },
            "stem.positions": theirs.embed_positions.weight.detach(),
            **{
                name.replace(f"layers.{number}.", f"layers.{number}.layer.", 1): value
                for number in range(config["whisper"]["layers"])
                for name, value in theirs.state_dict().items()
                if name.startswith(f"layers.{number}.")
            },
            **{f"norm.{leaf}": getattr(theirs.layer_norm, leaf) for leaf in ("weight", "bias")},
        },
        strict=True,
    )
    return network.eval()


def renamed(arrays: Named, layers: int) -> dict[str, torch.Tensor]:
    """The encoder's arrays under the names of transformers, in float32. Queries, keys and values are rows of
    one matrix there, and keys have no bias: that of the file must be 0.
    """
    left = {
        name.removeprefix("encoder/"): values
        for name, values in arrays.items()
        if name.startswith("encoder/")
    }
    left.pop("num_heads")
    state = {"embed_positions.weight": left.pop("position_encodings/encodings")}
    for conv in ("conv1", "conv2"):
        state |= {f"{conv}.{leaf}": left.pop(f"{conv}/{leaf}") for leaf in ("weight", "bias")}
    norms = {"": "layer_norm"}
    for number in range(layers):
        theirs, ours = f"layer_{number}", f"layers.{number}"
        norms[f"{theirs}/self_attention/"] = f"{ours}.self_attn_layer_norm"
        norms[f"{theirs}/ffn/"] = f"{ours}.final_layer_norm"
        for leaf in ("weight", "bias"):
            parts = np.split(left.pop(f"{theirs}/self_attention/linear_0/{leaf}"), 3)
            for name, part in zip("qkv", parts, strict=True):
                state[f"{ours}.self_attn.{name}_proj.{leaf}"] = part
            state[f"{ours}.self_attn.out_proj.{leaf}"] = left.pop(f"{theirs}/self_attention/linear_1/{leaf}")
            for name, linear in (("fc1", "linear_0"), ("fc2", "linear_1")):
                state[f"{ours}.{name}.{leaf}"] = left.pop(f"{theirs}/ffn/{linear}/{leaf}")
        if np.any(state.pop(f"{ours}.self_attn.k_proj.bias")):
            raise ValueError("its keys have a bias, and Whisper's have none")
    for theirs, ours in norms.items():
        for leaf, name in (("gamma", "weight"), ("beta", "bias")):
            state[f"{ours}.{name}"] = left.pop(f"{theirs}layer_norm/{leaf}")
    if left:
        raise ValueError(f"it holds {min(left)!r}, which no encoder of Whisper has")
    return {name: torch.from_numpy(values.astype(np.float32)) for name, values in state.items()}
