"""What stands before networks that take sounds in ways of their own, as modules of the model's graph: samples
for Wav2Vec2 and its kin, Kaldi's log-mel frames for AST, decibels for CLAP.

Each makes (B, W, ...) of a batch, W windows of a recording, and tells beside the values, as 1 or 0, where there
is sound. They equal transformers' own feature extractors, of a clip that is neither padded nor cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from regraft.modalities.audio.preprocess import AudioPreprocess

LEAST = 1e-7  # added to the variance of samples
FLOOR = float(np.finfo(np.float32).eps)  # the least power of one of Kaldi's tones
QUIET = 1e-10  # the least power of a tone in decibels
Filters = tuple[np.ndarray, np.ndarray]  # (2 * bins, samples) bases, and (tones, bins) triangles


class Front(nn.Module):
    """A batch's `samples` (B, L) float32 and `lengths` (B,) cut into `windows` parts of the same length."""

    def __init__(self, windows: int) -> None:
        super().__init__()
        self.windows = windows

    def cut(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(B * W, L / W) samples, and (B * W, 1) how many of each are sound."""
        samples, lengths = batch["samples"].float(), batch["lengths"]
        if self.windows == 1:
            return samples, lengths.unsqueeze(1)
        long = samples.shape[1] // self.windows
        starts = torch.arange(self.windows, device=samples.device) * long
        left = (lengths.unsqueeze(1) - starts).clamp(min=0, max=long)
        return samples.reshape(-1, long), left.reshape(-1, 1)

    def together(self, values: torch.Tensor) -> torch.Tensor:
        """(B * W, ...) values of windows as (B, W, ...)."""
        return values.reshape(-1, self.windows, *values.shape[1:])


class Samples(Front):
    """(B, W, 2, L / W): samples, of mean 0 and variance 1 where they are `standardised`, 0 behind the sound;
    and the truths.
    """

    def __init__(self, windows: int, standardised: bool) -> None:
        super().__init__(windows)
        self.standardised = standardised

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Samples of one batch, in float32 whatever is the precision around."""
        samples, lengths = self.cut(batch)
        with torch.autocast(samples.device.type, enabled=False):
            there = places_of(samples.shape[1], lengths)
            if self.standardised:
                count = lengths.clamp(min=1).float()
                samples = (samples - (samples * there).sum(dim=1, keepdim=True) / count) * there
                variance = samples.square().sum(dim=1, keepdim=True) / count
                samples = samples / (variance + LEAST).sqrt()
            return self.together(torch.stack([samples * there, there], dim=1))


class Spectra(Front):
    """Powers of tones: of (N, L) samples (N, frames, tones), by a convolution with fixed bases."""

    bases: torch.Tensor
    triangles: torch.Tensor

    def __init__(self, windows: int, filters: Filters, hop: int) -> None:
        super().__init__(windows)
        self.hop = hop
        for name, values in zip(("bases", "triangles"), filters, strict=True):
            self.register_buffer(name, torch.from_numpy(values).float(), persistent=False)

    def powers(self, samples: torch.Tensor) -> torch.Tensor:
        """Powers, in frames that lie wholly within the samples."""
        parts = nn.functional.conv1d(samples.unsqueeze(1), self.bases.unsqueeze(1), stride=self.hop)
        half = len(self.bases) // 2
        power = parts[:, :half] ** 2 + parts[:, half:] ** 2
        return nn.functional.conv1d(power, self.triangles.unsqueeze(2)).transpose(1, 2)


class Kaldi(Spectra):
    """(B, W, frames, tones + 1): logarithms of the powers of Kaldi's filter bank, standardised by the numbers of
    the weights, as long as the network takes them, 0 before that behind the sound; the truths as the last tone.
    """

    WIDE, HOP, FAST = 400, 160, 512

    def __init__(self, windows: int, tones: int, frames: int, mean: float, std: float) -> None:
        super().__init__(windows, kaldi(tones), self.HOP)
        self.frames, self.mean, self.std = frames, mean, std

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Frames of one batch, in float32 whatever is the precision around."""
        samples, lengths = self.cut(batch)
        with torch.autocast(samples.device.type, enabled=False):
            samples = nn.functional.pad(samples, (0, max(0, self.WIDE - samples.shape[1])))
            logs = self.powers(samples).clamp(min=FLOOR).log()[:, : self.frames]
            logs = nn.functional.pad(logs, (0, 0, 0, self.frames - logs.shape[1]))
            whole = torch.div(lengths - self.WIDE, self.HOP, rounding_mode="floor") + 1
            there = places_of(self.frames, torch.where(lengths > 0, whole.clamp(min=1), 0)).unsqueeze(2)
            logs = (logs * there - self.mean) / (2 * self.std)
            return self.together(torch.cat([logs, there], dim=2))


class Decibels(Spectra):
    """(B, W, frames, tones + 1): CLAP's log-mel frames in decibels. A clip shorter than a window is repeated as
    often as it fits whole, with silence behind; the last tone is 1 in windows with sound.
    """

    WIDE, HOP = 1_024, 480

    def __init__(self, windows: int, tones: int, frames: int, rate: int, low: float, high: float) -> None:
        super().__init__(windows, decibels(tones, rate, low, high), self.HOP)
        self.length = (frames - 1) * self.HOP

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Frames of one batch, in float32 whatever is the precision around."""
        samples, lengths = self.cut(batch)
        with torch.autocast(samples.device.type, enabled=False):
            count = lengths.clamp(min=1)
            places = torch.arange(self.length, device=samples.device).unsqueeze(0)
            most = torch.full_like(count, self.length)
            samples = samples.gather(1, places % count) * (places < most - most % count)
            half = self.WIDE // 2
            before, behind = samples[:, 1 : half + 1].flip(1), samples[:, -half - 1 : -1].flip(1)
            power = self.powers(torch.cat([before, samples, behind], dim=1))
            logs = 10 * power.clamp(min=QUIET).log10()
            there = (lengths > 0).float().unsqueeze(2).expand(-1, logs.shape[1], 1)
            return self.together(torch.cat([logs, there], dim=2))


def places_of(total: int, lengths: torch.Tensor) -> torch.Tensor:
    """(N, total) 1 where a place lies before the length, of (N, 1) lengths, else 0."""
    return (torch.arange(total, device=lengths.device).unsqueeze(0) < lengths).float()


def kaldi(tones: int, rate: int = 16_000, low: float = 20.0) -> Filters:
    """The filters of torchaudio's and transformers' `fbank`: each frame without its mean, pre-emphasised by
    0.97, under a Hann window; triangles on the mel scale of HTK, drawn on it.
    """
    wide, fast = Kaldi.WIDE, Kaldi.FAST
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(wide) / (wide - 1))
    emphasis = np.eye(wide) - 0.97 * np.eye(wide, k=-1)
    emphasis[0, 0] = 1 - 0.97
    linear = window[:, None] * (emphasis @ (np.eye(wide) - 1 / wide))
    tone = tones_of(fast, rate)
    edges = np.linspace(float(htk(np.array(low))), float(htk(np.array(rate / 2))), tones + 2)
    return fourier(wide, fast) @ linear, triangular(edges, htk(tone))


def decibels(tones: int, rate: int, low: float, high: float) -> Filters:
    """The filters of transformers' CLAP: a Hann window, triangles of equal area on Slaney's mel scale."""
    wide = Decibels.WIDE
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(wide) / wide)
    step, knee, growth = 200 / 3, 1_000.0, np.log(6.4) / 27
    first, last = (f / step if f < knee else knee / step + np.log(f / knee) / growth for f in (low, high))
    places = np.linspace(first, last, tones + 2)
    over = knee * np.exp(growth * (places - knee / step))
    edges = np.where(places < knee / step, step * places, over)
    area = 2 / (edges[2:] - edges[:-2])
    return fourier(wide, wide) * window, triangular(edges, tones_of(wide, rate)) * area[:, None]


def fourier(wide: int, fast: int) -> np.ndarray:
    """(2 * (fast / 2 + 1), wide) cosines, then sines, of a transform of `fast` samples of which `wide` are
    there.
    """
    turns = 2 * np.pi * np.outer(np.arange(fast // 2 + 1), np.arange(wide)) / fast
    return np.concatenate([np.cos(turns), np.sin(turns)])


def tones_of(fast: int, rate: int) -> np.ndarray:
    """(fast / 2 + 1,) Hz of the tones of a transform."""
    return np.linspace(0, rate / 2, fast // 2 + 1)


def htk(tone: np.ndarray) -> np.ndarray:
    """Mels of tones in Hz, by HTK's formula."""
    return np.asarray(1_127.0 * np.log(1 + tone / 700.0))


def triangular(edges: np.ndarray, tones: np.ndarray) -> np.ndarray:
    """(mels, tones) triangles, each from one of (mels + 2,) edges over the next to the one after that."""
    rising = (tones - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - tones) / np.diff(edges)[1:, None]
    return np.asarray(np.maximum(0, np.minimum(rising, falling)))


# How the module of each front is made, by the name that a config gives it
FRONTS: dict[str, Callable[[AudioPreprocess], nn.Module]] = {
    "samples": lambda given: Samples(given.windows, standardised=False),
    "standardised": lambda given: Samples(given.windows, standardised=True),
    "kaldi": lambda given: Kaldi(given.windows, given.mels, given.frames, given.mean[0], given.std[0]),
    "decibels": lambda given: Decibels(given.windows, given.mels, given.frames, given.rate, *given.tones),
}
