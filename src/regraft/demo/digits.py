"""Handwritten digits, the demo of images, and what its result is held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from regraft.artifacts import Events, RunFolder, write_json
from regraft.data import Examples, KnownFile, readings
from regraft.run.handle import Run

SIDE = 8  # pixels of a digit


def write_digits(folder: Path) -> None:
    """scikit-learn's 1,797 real scans of handwritten digits as PNG files, in a folder a digit."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (picture, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(picture * 255 / 16).astype(np.uint8)).save(place / f"{number:04d}.png")


def nearest_neighbours(run: Run, k: int = 3) -> float:
    """The test accuracy of k nearest neighbours on the raw pixels of a run's data, the demo's yardstick.

    The reading of the test set is recorded in the run.
    """
    from sklearn.neighbors import KNeighborsClassifier

    from regraft.modalities import modality_of

    examples = Examples.load(run.path / "examples.parquet")
    train, val = examples.part("train"), examples.part("val")
    folder = RunFolder(run.path)
    folder.lock()
    try:
        test = examples.unseal("raw-pixel neighbours beside the demo's result", Events(folder.events).emit)
        write_json(folder.state, {**folder.read_state(), "readings": readings(folder)})
    finally:
        folder.release()

    plain = {"mean": (0, 0, 0), "std": (1, 1, 1), "crop_pct": 1.0}
    whole, _ = modality_of("image").preprocess(plain, SIDE, None, None, cpu=False)

    def pixels(paths: Sequence[KnownFile]) -> np.ndarray:
        return np.stack([whole.host(path)[..., 0].ravel() for path in paths]).astype(np.float32)

    known = KNeighborsClassifier(k).fit(
        pixels(train.items + val.items), np.concatenate([train.labels, val.labels])
    )
    return float(known.score(pixels(test.items), test.labels))
