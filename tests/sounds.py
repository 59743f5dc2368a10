"""Sounds that tests make: tones and noises, written as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def tone(pitch: float, seconds: float = 0.5, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    """(n,) float32: a tone with two overtones that fades out, and a little noise of its own."""
    time = np.arange(round(seconds * rate)) / rate
    sound = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3)) * np.exp(-3 * time / seconds)
    noise = np.random.default_rng(seed).normal(0, 0.01, len(time))
    return (0.3 * sound + noise).astype(np.float32)


def hiss(seconds: float = 0.5, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    """(n,) float32 noise, different for each seed."""
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate)).astype(np.float32)


def write(place: Path, samples: np.ndarray, rate: int = 16_000, subtype: str | None = None) -> Path:
    """The samples as a file, of the format that its ending names."""
    import soundfile

    place.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(place, samples, rate, subtype=subtype)
    return place


def draw(root: Path, count: int = 12) -> Path:
    """A folder of three classes: low and high tones, and noise; `count` clips of each, no two the same."""
    rng = np.random.default_rng(0)
    for number in range(count):
        length = float(rng.uniform(0.25, 0.5))
        pitches = {"low": rng.uniform(150, 300), "high": rng.uniform(900, 1_800)}
        for label, pitch in pitches.items():
            write(root / label / f"{number:02}.wav", tone(float(pitch), length, seed=number))
        write(root / "noise" / f"{number:02}.wav", hiss(length, seed=number))
    return root


def tiny_encoder(folder: Path) -> Path:
    """Whisper's encoder with random weights, 32 wide, in the layout of a model folder."""
    import torch
    from safetensors.torch import save_file

    from regraft.backbones import whisper

    sizes = {"width": 32, "mels": 80, "layers": 2, "heads": 2, "inner": 64, "positions": 1_500}
    config = {
        "whisper": sizes,
        "mels": 80,
        "input_size": [80, 3_000],
        "classifier": None,
        "modality": "audio",
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = whisper.build(config)
    torch.nn.init.normal_(network.stem.positions, std=0.1)
    save_file(network.state_dict(), folder / "model.safetensors")
    about = {"architecture": "whisper:encoder", "pretrained_cfg": config}
    (folder / "config.json").write_text(json.dumps(about))
    return folder
