"""Settings of fine-tuning by rule from the number of examples; the modality adds those that follow from
what they are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from regraft.modalities import Suited
from regraft.recipe import FinetuneRecipe, Section

CHEAP = 96  # pixels
# Examples up to which what val chose is trained once more on train and val together, where the modality has
# no number of its own
REFIT = 1_000
# Examples of train and val up to which fine-tuning is judged by folds of both, beyond them by val
JUDGED = 1_000
FOLDS, THIRDS = 5, 3  # without a val set, with one
HELD = 200  # held-out examples that are enough to judge by: then no further fold is tried
GROUPS = 3  # groups that these have to be of, where examples come in groups


def length(examples: int, size: int) -> int:
    """Epochs by the number of training examples, in the spirit of BiT-HyperRule (Kolesnikov et al. 2020).

    Half as many again of inputs up to 96 pixels, which cost a fifth of native ones.
    """
    usual = next(
        (epochs for most, epochs in ((500, 12), (2_000, 8), (10_000, 6), (50_000, 4)) if examples <= most), 2
    )
    return usual * 3 // 2 if size <= CHEAP else usual


def batch_size(examples: int) -> int:
    """How many examples make a batch: small data get more steps an epoch (docs/decisions.md)."""
    return 16 if examples <= 2_000 else 32


def folds(train: int, val: int, unhurried: bool, blocks: int | None = None) -> int:
    """Into how many folds train and val are cut to judge fine-tuning; 0: val judges it, as it does where
    time is short.

    `blocks` is how many blocks the examples of val are of. A single one, such as one speaker, does not tell how
    much of a gain is owed to it, so folds judge then however many examples there are.
    """
    if not val:
        return FOLDS
    return THIRDS if unhurried and (train + val <= JUDGED or blocks == 1) else 0


def trainings(examples: int, folds: int, refit: bool) -> float:
    """How many times step 6 trains all `examples` of train and val for the whole length, at most: in folds,
    and at the end.
    """
    if not folds:
        return 1.0 + refit
    tried = min(folds, -(-HELD * folds // max(1, examples)))
    return 1.0 + tried * (1 - 1 / folds)


def learns_again(
    asked: FinetuneRecipe, prefer: str, examples: int, suited: Suited | None
) -> tuple[bool, str]:
    """Whether what val chose is trained once more on all `examples` of train and val, and why."""
    if asked.refit != "auto":
        return asked.refit, "the user asked for it"
    few = examples <= (REFIT if suited is None or suited.refit is None else suited.refit)
    return few and prefer == "accuracy", "by the number of examples"


def settled(asked: FinetuneRecipe, examples: int, suited: Suited, size: int) -> dict[str, Any]:
    """The settings that follow from the number of examples, the input size, and what suits the modality's
    examples.

    What the recipe names stays as it is.
    """
    settings: dict[str, Any] = {"lr": suited.lr, "layer_decay": suited.layer_decay}
    settings |= {"epochs": suited.epochs or length(examples, size), "batch_size": batch_size(examples)}
    settings |= {name: getattr(asked, name) for name in settings if getattr(asked, name) != "auto"}
    # A cosine gains the most at its end: stopping early stops short of that.
    usual = max(4, -(-int(settings["epochs"]) // 2))
    settings["patience"] = usual if asked.patience == "auto" else asked.patience
    return settings


def settled_idle(asked: FinetuneRecipe) -> dict[str, Any]:
    """What the settings are called where nothing is fine-tuned, so that no choice stays open."""
    usual: dict[str, Any] = {
        "batch_size": 32,
        "lr": 2e-4,
        "layer_decay": 0.8,
        "patience": 4,
        "interpolation": 1.0,
        "precision": "float32",
        "refit": False,
        "folds": 0,
    }
    return {"epochs": 0, **{name: value for name, value in usual.items() if getattr(asked, name) == "auto"}}


@dataclass(frozen=True)
class Tuning:
    """Every setting of one fine-tuning; `augment` are those of the modality's augmentation.

    Only two may be open, "auto", when training begins: `precision` is then decided by a trial of a few
    steps, and `interpolation` by val. What training used stands in `Finetuned.tuning`.
    """

    augment: Section
    epochs: int
    batch_size: int
    lr: float
    layer_decay: float
    patience: int
    weight_decay: float
    precision: str
    interpolation: float | str
    class_weights: str = "none"

    @classmethod
    def of(
        cls, asked: FinetuneRecipe, augment: Section, class_weights: str = "none", **settings: Any
    ) -> Tuning:
        """The settings of a recipe, with `settings` in place of what it leaves open."""
        names = [field.name for field in fields(cls) if field.name not in ("augment", "class_weights")]
        values = {name: getattr(asked, name) for name in names} | settings
        return cls(augment, **values, class_weights=class_weights)
