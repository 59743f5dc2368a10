"""The one preprocessing that training, evaluation, prediction and export of images share.

`host` turns whatever was given into (size, size, 3) uint8 on the CPU; `collate` makes a batch of several,
which `device`, a module in the model's graph, normalises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from regraft.artifacts import fingerprint
from regraft.errors import UsageError
from regraft.modalities.image.augment import Augment
from regraft.modalities.image.levels import Levels
from regraft.modalities.image.reading import FILTERS, STANDARD, load_rgb
from regraft.modalities.intake import Input, Intake

if TYPE_CHECKING:
    from torch import nn

STANDALONE = Path(__file__).with_name("standalone")  # what goes with an export, to be used without regraft
VERSION = "2"  # should the pixels ever change, this does, and old runs keep theirs


@dataclass(frozen=True)
class ImagePreprocess:
    """Preprocessing that travels with the weights.

    The centre square of `crop` times the short side is resized to `size`; `mean` and `std` are in units of
    0 to 1. `levels` say which values of pictures with more than 8 bits become black and white.
    """

    size: int
    crop: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    levels: Levels = STANDARD
    version: str = VERSION
    modality: str = "image"
    varying: ClassVar[tuple[str, ...]] = ()  # all images have one shape
    files: ClassVar[Mapping[str, bytes]] = {}

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes the pixels a model sees."""
        return fingerprint(asdict(self))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for regraft.json."""
        return asdict(self)

    def config(self) -> dict[str, Any]:
        """The same as timm names it in a `pretrained_cfg`, as far as timm knows it."""
        return {
            "input_size": [3, self.size, self.size],
            "crop_pct": self.crop,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ImagePreprocess:
        """The reverse of `to_dict`. Raises UsageError for a version this regraft does not have."""
        if values.get("version") != VERSION:
            raise UsageError(
                f"this model prepares images by version {values.get('version')!r}, and this regraft has version "
                f"{VERSION!r}: load it with the regraft that made it, or fit it anew."
            )
        return cls(
            **{
                **values,
                "mean": tuple(values["mean"]),
                "std": tuple(values["std"]),
                "levels": Levels.from_dict(values["levels"]),
            }
        )

    def host(
        self, item: Any, rng: np.random.Generator | None = None, augment: Augment | None = None
    ) -> np.ndarray:
        """(size, size, 3) uint8 of a path, KnownFile, bytes, PIL image or array; augmented when `rng` and
        `augment` are given.

        A JPEG of several times the size is decoded smaller. Given as pixels, it is averaged to the same
        size, which differs by up to half a grey level on average; all else gives the same bits, however it
        is given. Raises Unreadable.
        """
        image = load_rgb(item, max(1, round(self.size / self.crop)), self.levels)
        width, height = image.size
        if rng is not None and augment is not None:
            return augment(image, self.size, FILTERS[self.interpolation], rng)
        side = min(width, height) * self.crop
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((self.size, self.size), FILTERS[self.interpolation], box=box))

    def collate(self, raws: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """A batch of what `host` gave: `pixels` (B, size, size, 3) uint8."""
        return {"pixels": np.stack(raws)}

    def device(self) -> nn.Module:
        """The module that normalises a batch on the network's device: to (B, 3, size, size) float32."""
        from regraft.modalities.image.normalise import Normalise

        return Normalise(self.mean, self.std)

    def intake(self) -> Intake:
        """A graph takes `pixels` (B, H, W, 3), RGB of any height and width, and resizes them itself."""
        from regraft.modalities.image.resize import Resize

        least = max(1, round(self.size / self.crop))
        return Intake(
            module=Resize(self.size, self.crop, self.interpolation),
            inputs=(Input("pixels", "uint8", ("batch", "height", "width", 3), (2, 301, 407, 3)),),
            read=lambda item: {"pixels": np.asarray(load_rgb(item, least, self.levels))[None]},
            reading=(STANDALONE / "read.py.txt").read_text("utf-8"),
            needs=("pillow",),
            page=(STANDALONE / "page.js.txt").read_text("utf-8"),
            settings={"least": least, "levels": asdict(self.levels)},
            entering="as they are read",
            inside="resizing, normalising",
        )

    def blank(self, count: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """A batch of `count` black images, or of noise drawn from `rng`."""
        shape = (count, self.size, self.size, 3)
        return {"pixels": np.zeros(shape, np.uint8) if rng is None else rng.integers(0, 256, shape, np.uint8)}


class Mirrored:
    """Wraps a preprocessing so that `host` gives the mirror image: the second view of the mirror test."""

    varying: ClassVar[tuple[str, ...]] = ()

    def __init__(self, preprocess: ImagePreprocess) -> None:
        self.preprocess = preprocess

    def host(self, item: Any) -> np.ndarray:
        """(size, size, 3) uint8, left and right exchanged."""
        return np.ascontiguousarray(self.preprocess.host(item)[:, ::-1])

    def collate(self, raws: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """A batch of several."""
        return self.preprocess.collate(raws)
