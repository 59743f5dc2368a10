"""One fine-tuning: the released layers, gently, from the trained head (LP-FT, Kumar et al. 2022)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.artifacts import fingerprint
from regraft.backbones import PRECISIONS, Arithmetic, Backbone, pick_arithmetic, seconds_a_step, tensors
from regraft.data.part import Part
from regraft.errors import BudgetError, RegraftError
from regraft.evaluation import per_block
from regraft.inference import REFERENCE, batched, prefetch, recall, remember
from regraft.steps.context import Context
from regraft.steps.finetune.mix import SHARES, Placed, between, logits_of, prepared
from regraft.steps.finetune.packed import READ, prepared_items
from regraft.steps.finetune.prefix import cache_prefix, taught
from regraft.steps.finetune.rules import Tuning
from regraft.tasks import Task
from regraft.training import (
    Batch,
    Batches,
    Checkpoint,
    FreezePlan,
    Inputs,
    Learner,
    Listeners,
    Loop,
    Loss,
    Network,
    Schedule,
    State,
    Trained,
    add_adapters,
    layer_groups,
    merge_adapters,
    shuffled,
)

FASTER = {"bias": 5.0, "norm": 5.0, "lora": 5.0}  # times the rate: few parameters have to move further
NOTHING = Part(items=(), ids=(), labels=np.zeros(0, np.int64), weights=np.zeros(0))


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
        work = _Work(self, head, taught(data), val, context)
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
        torch.manual_seed(seed)  # whatever the trials before drew
        origin = Network(self.backbone, head).state_dict()
        moving = sum(p.numel() for p in work.network.parameters() if p.requires_grad)
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


class _Work:
    """What one training needs at hand: the network, its batches, the arithmetic, val."""

    def __init__(self, tuner: Tuner, head: nn.Module, data: Part, val: Part | None, context: Context) -> None:
        self.plan, self.tuning, self.data, self.val, self.context = (
            tuner.plan,
            tuner.tuning,
            data,
            val,
            context,
        )
        torch.manual_seed(context.recipe.run.seed)
        self.tuned = copy.deepcopy(tuner.backbone)
        module = self.tuned.module
        if self.plan.strategy == "lora":
            add_adapters(module)
        module.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.plan.apply(module)
        self.frozen_digest = self.plan.digest(module)
        augment = context.modality.views(self.tuning.augment)
        self.batches = _batches(data, self.tuned, augment, self.tuning.batch_size, context)
        self.first = next(iter(self.batches(1)))
        shown = self.first[0]
        context.keeper.first_batch({name: tensor.cpu().numpy() for name, tensor in shown.items()})  # type: ignore[union-attr]
        self.prefix = cache_prefix(
            self.tuned,
            self.plan.boundary,
            data,
            val or NOTHING,
            augment,
            self.tuning.epochs,
            tuner.engine,
            context,
        )
        self.network = Network(self.tuned, copy.deepcopy(head), self.prefix.suffix if self.prefix else None)
        self.network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.prefix is not None:
            self.batches = self.prefix.batches(data, self.tuning.batch_size, context)
            self.first = next(iter(self.batches(1)))
        self.task = tuner.task
        self.steps = len(shuffled(len(data.items), 0, 1, self.tuning.batch_size))
        self.arithmetic = self._arithmetic(tuner.backbone)

    def _arithmetic(self, backbone: Backbone) -> Arithmetic:
        """The precision that was asked for, else the faster by a trial.

        The outcome is remembered, so that a resumed run takes the same.
        """
        memory, wanted, inputs = self.context.store.folder, self.tuning.precision, self.first[0]
        key = (
            "training",
            backbone.fingerprint(),
            _shapes(inputs),
            self.plan.strategy,
            str(self.context.device),
        )
        known = recall(memory, *key) if wanted == "auto" else None
        if known and known.get("precision") in PRECISIONS:
            wanted = str(known["precision"])
        arithmetic, speed = pick_arithmetic(self.network.train(), inputs, wanted)
        if speed:
            remember(memory, *key, found={"precision": arithmetic.precision})
            ranked = sorted(speed.items(), key=lambda item: -item[1])
            said = " against ".join(f"{rate:.0f} examples/s in {name}" for name, rate in ranked)
            self.context.events.emit("note", text=f"trained in {arithmetic.precision}: {said}")
        return arithmetic

    def affordable(self, epochs: int) -> int:
        """The epochs that fit the time left, a fifth of which is kept for the last step.

        Without val training goes its whole length. Raises BudgetError where not one epoch fits.
        """
        left = self.context.seconds_left
        if self.val is None or left == float("inf"):
            return epochs
        step = seconds_a_step(self.network, self.first[0], self.arithmetic)
        epoch = 1.1 * self.steps * step + 0.3 * step * len(self.val.items) / len(self.first[1])
        fitting = max(0, min(epochs, int(0.8 * left / epoch)))
        if epochs and not fitting:
            raise BudgetError(f"an epoch takes about {epoch:.0f} s and the budget leaves {left:.0f} s")
        return fitting

    def logits(self) -> np.ndarray:
        """(V, K) float32 logits of val as the network stands."""
        return logits_of(self.network, self._inputs(), self.arithmetic)

    def _inputs(self) -> Iterator[Placed]:
        """What the network is given of val, a batch at a time, with the positions in val: prepared examples,
        or their cached activations.
        """
        val, size = self.val or NOTHING, self.context.recipe.run.feature_batch
        if self.prefix is None:
            yield from prepared(self.tuned, val, self.context)
            return
        yield from self.prefix.held(size, self.context)

    def judge(self) -> tuple[np.ndarray, dict[str, float]]:
        """Val losses after the best calibration, one a block, and the task's headline of the network as it
        stands: it is told as `val_` and the metric's name.
        """
        val, logits, headline = self.val or NOTHING, self.logits(), self.task.headline
        each = per_block(self.task.losses(val.labels, logits, refined=True), val.blocks)
        told = headline.valued(self.task.facts(val.labels, logits))
        return each, {f"val_{headline.name}": told}

    def train(self, epochs: int, checkpoint: Checkpoint) -> Trained:
        """Train the network, and tell each epoch."""
        context, events, tuning = self.context, self.context.events, self.tuning
        fused = context.device.type in ("cpu", "cuda")
        learner = Learner(
            self.network,
            torch.optim.AdamW(self._groups(), fused=fused),
            self._loss(),
            self.task.guessing(self.data.labels),
            self.arithmetic,
        )
        told = self.task.headline.described()
        listeners = Listeners(
            tick=lambda **f: events.tick(label="fine-tuning", **f),
            epoch=lambda **f: events.emit("epoch", step="finetune", metric=told, **f),
            note=events.note,
        )
        schedule = Schedule(self.steps, epochs, tuning.patience, context.out_of_time)
        judge = self.judge if self.val else None
        return Loop(learner, schedule, self.batches, judge, listeners, checkpoint).run()

    def _loss(self) -> Loss:
        """The task's loss, its outputs shifted where the settings treat classes of different sizes so."""
        task, shift = self.task, self.task.offset(self.data.labels, self.tuning.class_weights)
        if shift is None:
            return task.loss
        offset = torch.from_numpy(shift).to(self.context.device)
        return lambda outputs, targets: task.loss(outputs + offset, targets)

    def _groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the backbone, with layer-wise decay, and of the head."""
        tuning, network = self.tuning, self.network
        rate = tuning.lr * FASTER.get(self.plan.strategy, 1.0)
        decays = tuning.layer_decay, tuning.weight_decay
        groups = layer_groups(network.backbone, self.tuned.stages, rate, *decays)
        groups.append({"params": list(network.head.parameters()), "lr": tuning.lr, "weight_decay": 0.0})
        return groups

    def land(self, origin: State, trained: Trained) -> float | str:
        """Leave the network where it is handed over: on the way from `origin` to what training reached.

        Gives the share of the way; "auto" where that is still to be decided, by the run that goes on.
        """
        wanted, finished = self.tuning.interpolation, trained.stopped != "interrupted"
        if self.plan.strategy == "lora":
            merge_adapters(self.tuned.module)
            trained.best = {name: value.clone() for name, value in self.network.state_dict().items()}
        if self.val and trained.epoch and finished and not self.context.out_of_time() and wanted != 1:
            return self._interpolated(origin, trained)
        share = 1.0 if wanted == "auto" else float(wanted)
        self.network.load_state_dict(between(origin, trained.best, share), strict=False)
        return share if finished else wanted

    def _interpolated(self, origin: State, trained: Trained) -> float:
        """The share of the way at which the val loss is least, or the one that was asked for."""
        wanted = self.tuning.interpolation
        losses = {1.0: trained.val_loss} if wanted == "auto" else {}
        for share in SHARES[:-1] if wanted == "auto" else (float(wanted),):
            self.network.load_state_dict(between(origin, trained.best, share), strict=False)
            each, told = self.judge()
            losses[share] = float(each.mean())
            self.context.events.emit("mixture", step="finetune", share=share, val_loss=losses[share], **told)
        best = min(losses, key=lambda share: losses[share])
        trained.best, trained.val_loss = between(origin, trained.best, best), losses[best]
        self.network.load_state_dict(trained.best, strict=False)
        return best


def _batches(data: Part, backbone: Backbone, augment: Any, size: int, context: Context) -> Batches:
    """Augmented batches of an epoch; the draw for an example depends on (seed, epoch, example) only, not on
    threads.
    """
    seed, device = context.recipe.run.seed, context.device
    kept = prepared_items(data, backbone) if backbone.preprocess.varying and augment is None else None
    lengths = None
    if backbone.preprocess.varying:
        lengths = lengths_of(data, backbone) if kept is None else kept.lengths

    def epoch_of(epoch: int, skip: int = 0, /) -> Iterator[Batch]:
        def read(index: int) -> np.ndarray:
            rng = np.random.default_rng([seed, epoch, index])
            raw: np.ndarray = backbone.preprocess.host(data.items[index], rng, augment)
            return raw

        orders = shuffled(len(data.items), seed, epoch, size, lengths=lengths)[skip:]
        batches = [order.tolist() for order in orders]
        for rows, raws in (
            prefetch(batches, read) if kept is None else ((b, [kept[i] for i in b]) for b in batches)
        ):
            inputs = tensors(backbone.preprocess.collate(raws), device)
            labels = torch.from_numpy(data.labels[rows]).to(device)
            yield inputs, labels, torch.from_numpy(data.weights[rows]).float().to(device)

    return epoch_of


def lengths_of(data: Part, backbone: Backbone) -> np.ndarray:
    """(N,) how long the network sees each example, not augmented."""
    read = prefetch(batched(data.items, READ), lambda item: len(backbone.preprocess.host(item)))
    return np.array([length for _, lengths in read for length in lengths])


def _shapes(inputs: Inputs) -> str:
    """The shapes of what a network is given, to tell one trial from another."""
    named = {"activations": inputs} if isinstance(inputs, torch.Tensor) else inputs
    return str({name: tuple(tensor.shape) for name, tensor in named.items()})


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
