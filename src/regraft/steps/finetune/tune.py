"""One fine-tuning: the released layers, gently, from the trained head (LP-FT, Kumar et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from regraft.artifacts import fingerprint
from regraft.backbones import Backbone
from regraft.data.part import Part
from regraft.errors import RegraftError
from regraft.inference import REFERENCE
from regraft.steps.context import Context
from regraft.steps.finetune.prefix import taught
from regraft.steps.finetune.rules import Tuning
from regraft.steps.finetune.team import trained_together, worth_a_team
from regraft.steps.finetune.work import Work
from regraft.tasks import Task
from regraft.training import Checkpoint, FreezePlan, Network, Trained


@dataclass
class Finetuned:
    """A fine-tuned copy of the base with its head, and how it came about.

    `parameters` is how many were trained, those of the head included; `logits` (V, K) are those of val,
    None where there is none; `tuning` are the settings as they were used, and `decided` and `why` say it in
    words.
    """

    backbone: Backbone
    head: nn.Module
    trained: Trained
    parameters: int
    logits: np.ndarray | None
    tuning: Tuning
    decided: str = ""
    why: str = ""
    frozen_digest: str = ""
    name: str = "fine-tuned"

    @property
    def interrupted(self) -> bool:
        """Whether the user stopped it: then it holds the best so far."""
        return self.trained.stopped == "interrupted"


@dataclass(frozen=True)
class Tuner:
    """One way to fine-tune `backbone` for a task: what may move, and every setting.

    `engine` names what runs the stages that stay frozen, where their activations are computed once.
    """

    backbone: Backbone
    plan: FreezePlan
    tuning: Tuning
    task: Task
    engine: str = REFERENCE

    def settled(self, head: nn.Module, data: Part, context: Context) -> Tuner:
        """The same with the precision that training such `data` takes, and the activations of what stays frozen
        stored: what several trainings of parts of these data would each find out.
        """
        work = Work(self, head, taught(data), None, context.trial())
        return replace(self, tuning=replace(self.tuning, precision=work.arithmetic.precision))

    def fit(
        self,
        head: nn.Module,
        data: Part,
        val: Part | None,
        context: Context,
        checkpoint: Checkpoint | None = None,
    ) -> Finetuned:
        """Train a copy of the backbone and of `head` on `data`; the given ones stay as they are.

        Examples of weight 0 are not trained on. Without `val` training goes its whole length. Where
        `checkpoint` holds a training of the same data, weights and settings, it goes on from there. The
        first augmented batch is shown to `context.keeper`. Raises BudgetError where the time left does not
        allow one epoch, and RegraftError should anything frozen have moved.
        """
        checkpoint, seed = checkpoint or Checkpoint(), context.recipe.run.seed
        work = Work(self, head, taught(data), val, context)
        before = work.frozen_digest
        tuning = replace(self.tuning, precision=work.arithmetic.precision)
        settings = {k: v for k, v in vars(tuning).items() if k not in ("epochs", "interpolation")}
        settings["augment"] = tuning.augment.model_dump()
        checkpoint.key = fingerprint(
            settings,
            seed,
            self.plan.strategy,
            before,
            self.backbone.fingerprint(),
            *work.data.ids,
            "val",
            *(val.ids if val else ()),
        )
        going = checkpoint.load()
        epochs = int(going["epochs"]) if going is not None else work.affordable(tuning.epochs)
        together = worth_a_team(work, epochs)
        torch.manual_seed(seed)  # whatever the trials before drew
        origin = Network(self.backbone, head).state_dict()
        moving = sum(p.numel() for p in work.network.parameters() if p.requires_grad)
        if together:
            trained = trained_together(work, self, head, epochs, checkpoint)
        else:
            trained = work.train(epochs, checkpoint)
        if self.plan.digest(work.tuned.module) != before:
            raise RegraftError(
                "something frozen moved during fine-tuning: a fault of regraft, please report it"
            )
        reached = trained.val_loss
        share = work.land(origin, trained)
        logits = work.logits() if val else None
        tuning = replace(tuning, epochs=epochs, interpolation=share)
        work.network.suffix = None
        work.network.to("cpu")
        decided, why = _in_words(trained, reached, tuning, self.task.loss_name)
        return Finetuned(
            work.tuned, work.network.head.eval(), trained, moving, logits, tuning, decided, why, before
        )


def _in_words(trained: Trained, reached: float, tuning: Tuning, loss: str) -> tuple[str, str]:
    """What came of a training and why it ended; `reached` is the val loss, called `loss`, before any
    mixture.
    """
    best = f", kept as of epoch {trained.epoch} (val {loss} {reached:.3f})" if np.isfinite(reached) else ""
    share, val = tuning.interpolation, f" {trained.val_loss:.3f}" if np.isfinite(trained.val_loss) else ""
    mixed = f", {share:g} of the way there{val}" if share not in (1, "auto") else ""
    why = {
        "length": "went its whole length",
        "patience": f"val {loss} clearly worse for {tuning.patience} epochs",
        "budget": "the time was up",
        "interrupted": "stopped by the user",
        "diverged": "the loss fell apart again at an eighth of the rate; the best before is kept",
    }
    return f"{trained.epochs_run} of {tuning.epochs} epochs{best}{mixed}", why[trained.stopped]
