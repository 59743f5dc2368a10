"""What one fine-tuning needs at hand: the network, its batches, the arithmetic, val."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from regraft.backbones import PRECISIONS, Arithmetic, Backbone, pick_arithmetic, seconds_a_step
from regraft.data.part import Part
from regraft.errors import BudgetError
from regraft.evaluation import per_block
from regraft.inference import recall, remember
from regraft.steps.context import Context
from regraft.steps.finetune.batches import augmented
from regraft.steps.finetune.mix import SHARES, Placed, between, logits_of, prepared
from regraft.steps.finetune.packed import PackedPrefix
from regraft.steps.finetune.prefix import Prefix, cache_prefix
from regraft.training import (
    Checkpoint,
    Inputs,
    Learner,
    Listeners,
    Loop,
    Loss,
    Network,
    Ranks,
    Schedule,
    State,
    Trained,
    add_adapters,
    layer_groups,
    merge_adapters,
    shuffled,
)

if TYPE_CHECKING:
    from regraft.steps.finetune.tune import Tuner

FASTER = {"bias": 5.0, "norm": 5.0, "lora": 5.0}  # times the rate: few parameters have to move further
NOTHING = Part(items=(), ids=(), labels=np.zeros(0, np.int64), weights=np.zeros(0))


@dataclass(frozen=True)
class Found:
    """What is found out once, by whoever sends others to train: activations of the frozen stages, and the
    precision.
    """

    prefix: Prefix | PackedPrefix | None
    precision: str


class Work:
    """What one training needs at hand. Where it is one of several processes that train together
    (`context.ranks`), it is given what was `found`.
    """

    def __init__(
        self,
        tuner: Tuner,
        head: nn.Module,
        data: Part,
        val: Part | None,
        context: Context,
        found: Found | None = None,
    ) -> None:
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
        size, whole = self.tuning.batch_size, replace(context, ranks=Ranks())
        self.batches = augmented(data, self.tuned, augment, size, self.tuning.epochs, context)
        if found is None:
            self.prefix = self._prefix(tuner, augment)
        else:
            self.prefix = found.prefix.before(self.tuned, self.plan.boundary) if found.prefix else None
        self.network = Network(self.tuned, copy.deepcopy(head), self.prefix.suffix if self.prefix else None)
        self.network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.prefix is not None:
            self.batches = self.prefix.batches(data, size, context)
            self.first = next(iter(self.prefix.batches(data, size, whole)(1)))
        elif found is not None:
            some = augmented(data.cut(0, 2), self.tuned, augment, size, 1, whole)
            self.first = next(iter(some(1)))
        self.task = tuner.task
        self.steps = len(shuffled(len(data.items), 0, 1, size))
        self.arithmetic = self._arithmetic(
            tuner.backbone, found.precision if found else self.tuning.precision
        )

    def _prefix(self, tuner: Tuner, augment: Any) -> Prefix | PackedPrefix | None:
        """Show the first batch, and compute the activations of what stays frozen."""
        context, data, val = self.context, self.data, self.val or NOTHING
        self.first = next(iter(self.batches(1)))
        shown = self.first[0]
        context.keeper.first_batch({name: tensor.cpu().numpy() for name, tensor in shown.items()})  # type: ignore[union-attr]
        boundary, epochs = self.plan.boundary, self.tuning.epochs
        return cache_prefix(self.tuned, boundary, data, val, augment, epochs, tuner.engine, context)

    def _arithmetic(self, backbone: Backbone, wanted: str) -> Arithmetic:
        """The precision that was asked for, else the faster by a trial; on a GPU with norms folded where that is
        faster.

        The outcome is remembered, so that a resumed run takes the same.
        """
        memory, inputs = self.context.store.folder, self.first[0]
        key = [
            "training",
            backbone.fingerprint(),
            _shapes(inputs),
            self.plan.strategy,
            str(self.context.device),
        ]
        key += [] if wanted == "auto" else [wanted]
        known = recall(memory, *key) or {}
        if known.get("precision") in PRECISIONS:
            wanted = str(known["precision"])
        arithmetic, speed = pick_arithmetic(self.network.train(), inputs, wanted, known.get("folded"))
        if speed:
            remember(
                memory, *key, found={"precision": arithmetic.precision, "folded": bool(arithmetic.folds)}
            )
            ranked = sorted(speed.items(), key=lambda item: -item[1])
            said = " against ".join(f"{rate:.0f} examples/s in {name}" for name, rate in ranked)
            self.context.events.emit("note", text=f"trained in {arithmetic.precision}: {said}")
        return arithmetic

    def seconds_an_epoch(self) -> float:
        """How long one process takes for an epoch and a look at val, by a few steps."""
        step, held = seconds_a_step(self.network, self.first[0], self.arithmetic), len(self.val or ())
        return 1.1 * self.steps * step + 0.3 * step * held / len(self.first[1])

    def moves_statistics(self) -> bool:
        """Whether running statistics of norms follow the batches."""
        return any(
            getattr(module, "running_mean", None) is not None and name not in self.plan.eval_modules
            for name, module in self.tuned.module.named_modules()
        )

    def affordable(self, epochs: int) -> int:
        """The epochs that fit the time left, a fifth of which is kept for the last step.

        Without val training goes its whole length. Raises BudgetError where not one epoch fits.
        """
        left = self.context.seconds_left
        if self.val is None or left == float("inf"):
            return epochs
        epoch = self.seconds_an_epoch()
        fitting = max(0, min(epochs, int(0.8 * left / epoch)))
        if epochs and not fitting:
            raise BudgetError(f"an epoch takes about {epoch:.0f} s and the budget leaves {left:.0f} s")
        return fitting

    def logits(self) -> np.ndarray:
        """(V, K) float32 logits of val as the network stands: each of several ranks computes some batches."""
        ranks, val = self.context.ranks, self.val or NOTHING
        if ranks.world == 1:
            return logits_of(self.network, self._inputs(val, 0, 1), self.arithmetic)
        logits, places = np.zeros((len(val), self.task.outputs), dtype=np.float32), list[np.ndarray]()

        def noted() -> Iterator[Placed]:
            for rows, given in self._inputs(val, ranks.rank, ranks.world):
                places.append(rows)
                yield rows, given

        mine = logits_of(self.network, noted(), self.arithmetic)
        if places:
            logits[np.sort(np.concatenate(places))] = mine
        return ranks.joined(logits)

    def _inputs(self, val: Part, rank: int, world: int) -> Iterator[Placed]:
        """What the network is given of val, a batch at a time, with the positions in val: prepared examples,
        or their cached activations; of every `world`-th batch from batch `rank` on.
        """
        size = self.context.feature_batch
        if self.prefix is not None:
            yield from islice(self.prefix.held(size, self.context), rank, None, world)
            return
        mine = np.flatnonzero(np.arange(len(val)) // size % world == rank)
        for rows, given in prepared(self.tuned, val if world == 1 else val.some(mine), self.context):
            yield mine[rows], given

    def judge(self) -> tuple[np.ndarray, dict[str, float]]:
        """Val losses after the best calibration, one a block, and the task's headline of the network as it
        stands: it is told as `val_` and the metric's name.
        """
        val, logits, headline = self.val or NOTHING, self.logits(), self.task.headline
        each, told = np.zeros(0), 0.0
        if self.context.ranks.leads:
            each = per_block(self.task.losses(val.labels, logits, refined=True), val.blocks)
            told = headline.valued(self.task.facts(val.labels, logits))
        each, told = self.context.ranks.same((each, told))
        return each, {f"val_{headline.name}": told}

    def train(
        self, epochs: int, checkpoint: Checkpoint, interrupted: Callable[[], bool] = lambda: False
    ) -> Trained:
        """Train the network, and tell each epoch. `interrupted` is asked after each step."""
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
            epoch=lambda **f: events.emit(
                "epoch", step="finetune", metric=told, passes=len(self.val or ()), **f
            ),
            note=events.note,
        )
        schedule = Schedule(self.steps, epochs, tuning.patience, context.out_of_time, interrupted)
        judge = self.judge if self.val else None
        return Loop(learner, schedule, self.batches, judge, listeners, checkpoint, context.ranks).run()

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
            told |= {"val_loss": losses[share], "passes": len(self.val or ())}
            self.context.events.emit("mixture", step="finetune", share=share, **told)
        best = min(losses, key=lambda share: losses[share])
        trained.best, trained.val_loss = between(origin, trained.best, best), losses[best]
        self.network.load_state_dict(trained.best, strict=False)
        return best


def _shapes(inputs: Inputs) -> str:
    """The shapes of what a network is given, to tell one trial from another."""
    named = {"activations": inputs} if isinstance(inputs, torch.Tensor) else inputs
    return str({name: tuple(tensor.shape) for name, tensor in named.items()})
