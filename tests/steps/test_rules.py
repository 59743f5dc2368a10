"""The rules that decide for the user, one by one."""

from __future__ import annotations

import numpy as np

from regraft.steps.base import input_size
from regraft.steps.finetune import crop_scale, length, mirror_allowed


def test_input_size_follows_the_images_between_64_and_native() -> None:
    def size(side: int, images: int = 100, cpu: bool = True) -> int:
        return input_size(224, False, np.full(images, side), images, cpu)[0]

    assert size(8) == 64  # digits of 8x8 pixels are not worth 224
    assert size(32) == 128
    assert size(500) == 224
    assert size(500, images=100_000, cpu=True) < size(500, images=100_000, cpu=False) == 224
    assert input_size(224, True, np.full(9, 8), 9, True)[0] == 224  # a network of one size keeps it
    assert all(size(side) % 32 == 0 for side in range(1, 300, 7))


def test_mirror_images_are_refused_only_when_the_head_no_longer_knows_them() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(300) < 0.9
    assert mirror_allowed(right, right)[0]
    assert mirror_allowed(right, np.roll(right, 1))[0]  # other mistakes, as many
    assert not mirror_allowed(right, right & (rng.random(300) < 0.8))[0]


def test_more_data_mean_fewer_epochs() -> None:
    epochs = [length(n, 224) for n in (100, 1_000, 5_000, 30_000, 1_000_000)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[-1] >= 1
    assert length(1_000, 64) > length(1_000, 224)  # small inputs cost little


def test_closely_framed_images_are_cropped_less() -> None:
    assert crop_scale(np.full(5, 8), 64) > crop_scale(np.full(5, 300), 224)
