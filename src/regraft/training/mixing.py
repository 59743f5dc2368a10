"""Training examples made of two: mixup and CutMix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional as F

from regraft.training.loop import Batch, Batches

LEAST = 1e-3  # strength below which the draws are a coin's, and those of a far smaller one no numbers


def mixed(batches: Batches, mixup: float, cutmix: float, classes: int, seed: int) -> Batches:
    """Batches each of whose examples holds a share of another one, and as large a share of its label: (B, K)
    of them.

    mixup (Zhang et al. 2018) blends the two, CutMix (Yun et al. 2019) pastes a rectangle of the other; the
    share is drawn from Beta(a, a) of the strength a. With both a coin decides, batch by batch. Images are (B,
    H, W, 3) uint8; anything else, as the activations of frozen stages, is blended in either case. A draw
    depends on (seed, epoch, batch) only.
    """

    def epoch_of(epoch: int, skip: int = 0, /) -> Iterator[Batch]:
        for number, (inputs, labels, weights) in enumerate(batches(epoch, skip), start=skip):
            rng = np.random.default_rng([seed, epoch, number])
            cut = bool(cutmix) and not (mixup and rng.random() < 0.5)
            strength = cutmix if cut else mixup
            share = float(rng.beta(*2 * (max(LEAST, strength),)))
            if cut and inputs.dtype == torch.uint8:
                inputs, share = _pasted(inputs, share, rng)
            else:
                inputs = torch.lerp(inputs.float().flip(0), inputs.float(), share)
            targets = F.one_hot(labels, classes).float()
            yield (
                inputs,
                torch.lerp(targets.flip(0), targets, share),
                torch.lerp(weights.flip(0), weights, share),
            )

    return epoch_of


def _pasted(images: torch.Tensor, share: float, rng: np.random.Generator) -> tuple[torch.Tensor, float]:
    """(B, H, W, 3) images with one rectangle each of the batch in reverse order, and the share of its own
    each has kept.
    """
    height, width = images.shape[1:3]
    side = np.sqrt(1 - share)
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    left, right = (
        round(float(np.clip(x + half, 0, width))) for half in (-side * width / 2, side * width / 2)
    )
    top, bottom = (
        round(float(np.clip(y + half, 0, height))) for half in (-side * height / 2, side * height / 2)
    )
    result = images.clone()
    result[:, top:bottom, left:right] = images.flip(0)[:, top:bottom, left:right]
    return result, 1 - (right - left) * (bottom - top) / (width * height)
