"""Settings of fine-tuning by rule from the data: their number, their images' size, what their mirror images
look like.
"""

from __future__ import annotations

import numpy as np

from regraft.recipe import FinetuneRecipe

CHEAP = 96  # pixels
REFIT = 1_000  # examples up to which what val chose is trained once more on train and val together
JUDGED = (
    1_000  # examples of train and val up to which fine-tuning is judged by folds of both, beyond them by val
)
FOLDS, THIRDS = 5, 3  # without a val set, with one
HELD = 200  # held-out examples that are enough to judge by: then no further fold is tried
CHIRAL = 0.75  # share of pairs whose mirror image is found out


def length(examples: int, size: int) -> int:
    """Epochs by the number of training examples, in the spirit of BiT-HyperRule (Kolesnikov et al. 2020).

    Half as many again of inputs up to 96 pixels, which cost a fifth of native ones.
    """
    found = next(
        (epochs for most, epochs in ((500, 12), (2_000, 8), (10_000, 6), (50_000, 4)) if examples <= most), 2
    )
    return found * 3 // 2 if size <= CHEAP else found


def batch_size(examples: int) -> int:
    """Small data get more steps an epoch: on handwritten digits 16 reached a val log loss of 0.020, 32 of
    0.033.
    """
    return 16 if examples <= 2_000 else 32


def crop_scale(short_sides: np.ndarray, size: int) -> float:
    """The smallest share a random crop keeps: half of a photograph, more of images smaller than the input.

    Those are framed closely, as scans and icons are: on handwritten digits 0.8 reached a val log loss of
    0.033, 0.5 of 0.039.
    """
    return 0.8 if float(np.median(short_sides)) < size else 0.5


def rates(short_sides: np.ndarray, size: int) -> tuple[float, float]:
    """AdamW's peak rate, and its decay a layer towards the input: gentle with photographs, as they were in
    pre-training.

    Smaller, enlarged images look unlike anything the first layers have learnt, so these move as far as the
    last ones. On held-out parts of training sets (5e-4, 1) ended at a mean log loss of 0.08 on handwritten
    digits and (1e-3, 0.8) at 0.11, at 0.14 and 0.17 on sign digits, 0.86 and 0.92 on CIFAR-10; on flowers
    (2e-4, 0.8) at 0.22 and (5e-4, 0.7) at 0.27.
    """
    return (5e-4, 1.0) if float(np.median(short_sides)) < size else (2e-4, 0.8)


def folds(train: int, val: int, unhurried: bool) -> int:
    """Into how many folds train and val are cut to judge fine-tuning; 0: val judges it, as it does where time
    is short.
    """
    if not val:
        return FOLDS
    return THIRDS if train + val <= JUDGED and unhurried else 0


def trainings(examples: int, folds: int, refit: bool) -> float:
    """How many times step 6 trains all `examples` of train and val for the whole length, at most: in folds,
    and at the end.
    """
    if not folds:
        return 1.0 + refit
    tried = min(folds, -(-HELD * folds // max(1, examples)))
    return 1.0 + tried * (1 - 1 / folds)


def mirror_allowed(plain: np.ndarray, mirrored: np.ndarray) -> tuple[bool, str]:
    """Whether mirror images look like the data, by (N, D) features of images and of their mirror images.

    A linear map is asked which of each pair was mirrored (ridge regression on the differences, leave one
    out): visual chirality (Lin et al. 2020). Where it knows in three cases of four, as with writing and
    signs, mirror images do not occur. It was right in 0.47 to 0.56 of flowers, insects, textures, leaves and
    CIFAR-10, 0.68 of photographed packages, 0.81 of handwritten digits, 0.94 of hand signs.
    """
    difference = plain.astype(np.float64) - mirrored
    difference /= np.sqrt((difference**2).mean(axis=0)) + 1e-6
    kernel = difference @ difference.T
    inverse = np.linalg.inv(kernel + (np.trace(kernel) / len(kernel) + 1e-9) * np.eye(len(kernel)))
    known = float((1 - inverse.sum(axis=1) / np.diag(inverse) > 0).mean())
    verb = "as good as those of the data" if known < CHIRAL else "unlike the data"
    return known < CHIRAL, f"{verb}; which of two is mirrored shows in {known:.0%} of pairs, by chance in 50%"


def settle(recipe: FinetuneRecipe, examples: int, short_sides: np.ndarray, size: int) -> None:
    """Replace every "auto" that follows from the (N,) short sides of the images, their number and the input
    size.
    """
    rate, decay = rates(short_sides, size)
    found = {
        "crop_scale": crop_scale(short_sides, size),
        "lr": rate,
        "layer_decay": decay,
        "epochs": length(examples, size),
        "batch_size": batch_size(examples),
    }
    for name, value in found.items():
        if getattr(recipe, name) == "auto":
            setattr(recipe, name, value)
    if recipe.patience == "auto":  # a cosine gains the most at its end: stopping early stops short of that
        recipe.patience = max(4, -(-int(recipe.epochs) // 2))


def settle_idle(recipe: FinetuneRecipe) -> None:
    """Replace every "auto" where nothing is fine-tuned, so that no choice stays open."""
    recipe.epochs = 0
    settled = {
        "batch_size": 32,
        "lr": 2e-4,
        "layer_decay": 0.8,
        "crop_scale": 1.0,
        "patience": 4,
        "interpolation": 1.0,
        "precision": "float32",
        "mirror": False,
        "refit": False,
        "folds": 0,
    }
    for name, value in settled.items():
        if getattr(recipe, name) == "auto":
            setattr(recipe, name, value)
