"""The one preprocessing that training, evaluation, prediction and export of sounds share.

`host` makes mono samples of whatever was given, at the network's rate and no longer than its input; `collate` pads
several with silence, and tells how long each is; the module of `device`, in the model's graph, makes of them
what the network takes, mostly log-mel frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from regraft.artifacts import fingerprint
from regraft.errors import UsageError
from regraft.modalities import Intake, bucket_of, prepared
from regraft.modalities.audio.augment import Augment
from regraft.modalities.audio.reading import MOST_CHANNELS, RATES, stretches, waveform

if TYPE_CHECKING:
    from torch import nn

VERSION = "1"  # should the samples or frames ever change, this does, and old runs keep theirs
STANDALONE = Path(__file__).with_name("standalone")  # what goes with an export, to be used without regraft
RATE, HOP = 16_000, 160  # Hz of most networks, and samples from one frame to the next
FRAMES = 100  # a second
WINDOW = 1_000  # frames, ten seconds: longer inputs are made of windows
LEAST = 0.1  # of a window: what is left over and shorter is no window of its own
EVEN = 8  # frames: lengths are multiples of it, which networks with strides divide without a rest


@dataclass(frozen=True)
class AudioPreprocess:
    """Preprocessing that travels with the weights.

    `size` is the length of the input in frames of 10 ms. Of longer recordings evenly spaced windows of
    WINDOW frames are taken, as many as `size` holds. `mels` is the number of tones of a frame. `mean` and
    `std` are those of a network of images, which is given pictures of the frames, or what a network's own
    frames are standardised by.

    `front` names what stands before a network that takes sounds in a way of its own (`fronts.FRONTS`), ""
    for Whisper's frames. `rate` is that of its samples in Hz, `frames` how many it takes where it always
    takes as many, `tones` the lowest and the highest in Hz where they are not all.
    """

    size: int
    mels: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    front: str = ""
    rate: int = RATE
    frames: int = 0
    tones: tuple[float, ...] = ()
    version: str = VERSION
    modality: str = "audio"
    files: ClassVar[Mapping[str, bytes]] = {}

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes what a model hears."""
        return fingerprint(asdict(self))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for regraft.json."""
        return asdict(self)

    def config(self) -> dict[str, Any]:
        """What config.json tells other libraries: nothing, none knows this input."""
        return {}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AudioPreprocess:
        """The reverse of `to_dict`. Raises UsageError for a version this regraft does not have."""
        if values.get("version") != VERSION:
            raise UsageError(
                f"this model prepares sounds by version {values.get('version')!r}, and this regraft has version "
                f"{VERSION!r}: load it with the regraft that made it, or fit it anew."
            )
        several = {name: tuple(values.get(name, ())) for name in ("mean", "std", "tones")}
        return cls(**{**values, **several})

    @property
    def windows(self) -> int:
        """How many parts of a recording longer than the input are heard."""
        return max(1, self.size // WINDOW)

    @property
    def hop(self) -> int:
        """Samples from one frame of 10 ms to the next."""
        return self.rate // FRAMES

    @property
    def window(self) -> int:
        """Samples of a window: of the whole input where there is one."""
        return self.size * self.hop // self.windows

    def host(
        self, item: Any, rng: np.random.Generator | None = None, augment: Augment | None = None
    ) -> np.ndarray:
        """(n,) float32 mono samples at `rate` of a path, KnownFile, bytes, or array of samples at `rate`, at
        most as many as the input holds; augmented when `rng` and `augment` are given. Raises Unreadable.
        """
        samples = waveform(item, self.rate, self.windows, self.window)
        return samples if rng is None or augment is None else augment(samples, rng)

    def parts(self, item: Any) -> list[tuple[str, np.ndarray]]:
        """The windows of a recording in which nothing attends to anything outside, in words, and the samples
        of each, which `host` takes as they are; none of a recording of one window. Raises Unreadable.
        """
        if self.windows == 1:
            return []
        length, rate = self.window, self.rate
        found = [
            (begins + start / rate, samples[start : start + length])
            for begins, samples in stretches(item, rate, self.windows, length)
            for start in range(0, len(samples), length)
        ]
        return [
            (f"window {span(begins, begins + len(samples) / rate)}", samples)
            for begins, samples in found
            if len(samples) >= LEAST * length
        ]

    @property
    def varying(self) -> tuple[str, ...]:
        """Clips are padded to the bucket of their lengths, except where there are windows, which are whole."""
        return ("samples",) if self.windows == 1 else ()

    def collate(self, raws: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """A batch of what `host` gave: `samples` (B, L) float32 with silence behind each, and `lengths` (B,)
        int64, the samples of each. L is the bucket of the longest, in whole steps of networks, at most what
        the input holds.
        """
        most, step = self.size * self.hop, EVEN * self.hop
        if self.varying:
            most = min(most, step * -(-bucket_of(max(len(raw) for raw in raws)) // step))
        samples = np.zeros((len(raws), most), dtype=np.float32)
        for row, raw in zip(samples, raws, strict=True):
            row[: len(raw)] = raw
        return {"samples": samples, "lengths": np.array([len(raw) for raw in raws], dtype=np.int64)}

    def device(self) -> nn.Module:
        """The module that makes frames of a batch on the network's device: (B, mels + 1, size), or pictures
        (B, 3, mels, size), or what the network takes in a way of its own.
        """
        from regraft.modalities.audio.fronts import FRONTS
        from regraft.modalities.audio.mel import Frames, Picture

        if self.front:
            return FRONTS[self.front](self)
        return Picture(self.mels, self.mean, self.std) if self.mean else Frames(self.mels)

    def intake(self) -> Intake:
        """A graph takes `samples` and `lengths`, and makes the frames itself."""
        settings = {
            "rate": self.rate,
            "windows": self.windows,
            "length": self.window,
            "step": EVEN * self.hop,
            "rates": RATES,
            "channels": MOST_CHANNELS,
        }
        reading = (STANDALONE / "read.py.txt").read_text("utf-8")
        return replace(
            prepared(self),
            reading=reading,
            needs=("soundfile", "soxr"),
            settings=settings,
            entering=f"as mono samples at {RATE:,} Hz",
            inside="log-mel frames",
        )

    def blank(self, count: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """A batch of `count` silent clips as long as the input, or of noise drawn from `rng`."""
        shape = (count, self.size * self.hop)
        drawn = np.zeros(shape) if rng is None else 0.1 * rng.normal(size=shape)
        return self.collate(list(drawn.astype(np.float32)))


def span(begins: float, ends: float) -> str:
    """A stretch of a recording: "20-30 s" in the first ten minutes, then "1:02:20-1:02:30"."""
    if ends < 600:
        return f"{begins:.0f}-{ends:.0f} s"
    first, last = (
        f"{whole // 3_600}:{whole // 60 % 60:02}:{whole % 60:02}" for whole in (round(begins), round(ends))
    )
    return f"{first}-{last}"


class Viewed:
    """Wraps a preprocessing so that `host` gives one kind of augmented view: what a probe looks at."""

    def __init__(self, preprocess: AudioPreprocess, augment: Augment) -> None:
        self.preprocess, self.augment = preprocess, augment

    def host(self, item: Any) -> np.ndarray:
        """(n,) float32 samples of the view, the same for the same samples."""
        samples = self.preprocess.host(item)
        return self.augment(samples, np.random.default_rng(len(samples)))

    def collate(self, raws: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """A batch of several."""
        return self.preprocess.collate(raws)
